"""Training data: data sets, memory-mapped images, batch loading and prefetching, pixel values, conditions.

May import: utils, protocols, plugin, config, nn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab._moved import old_names

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
