"""Benchmark of a training step: ganlab's own against loops without a framework that do the same arithmetic.

No other package needs it; `ganlab bench` imports it when it is called.

May import: utils, protocols, plugin, config, nn, data, viz, evaluation, training, run, report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab._moved import old_names

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
