"""The command line: the `ganlab` command, its subcommands and their arguments, and shell completion.

A command reads its arguments, calls one function of another package and prints the result. Modules that import torch
are imported inside the commands, so that `ganlab --help` answers at once.

May import: every other package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab._moved import old_names

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__)
