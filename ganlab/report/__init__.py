"""Comparisons of finished runs: statistics over seeds, tables, CSV, JSON and HTML pages. Run folders are only read.

May import: utils, protocols, plugin, config, nn, data, viz, evaluation, training, run, sweep.
"""
