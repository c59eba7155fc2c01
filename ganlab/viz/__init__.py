"""What users see of a run: plots, image grids and progress on the terminal.

May import: utils, protocols, plugin, config, nn, data.
"""
