"""Experiment files: the schema, reading TOML and `--set` overrides, and converting tables to components.

May import: utils, protocols, plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab._moved import old_names

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
