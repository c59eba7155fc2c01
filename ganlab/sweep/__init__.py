"""Sweeps: the variants of an experiment times seeds, planned from a sweep file and launched as ordinary runs.

May import: utils, protocols, plugin, config, nn, data, viz, evaluation, training, run.
"""
