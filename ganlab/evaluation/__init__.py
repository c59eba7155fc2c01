"""Evaluation of generators: sampling, metrics and their features, scores per class, `ganlab score`.

May import: utils, protocols, plugin, config, nn, data, viz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab._moved import old_names

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
