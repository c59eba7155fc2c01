"""Commands of ganlab in the process of a part of the GPU script, and what two run folders have in common."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch

import quick_plots
from ganlab.cli import main
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.state_tree import tensors_with_paths
from ganlab.viz import plots


def ganlab(*arguments: object) -> str:
    """Calls a command, whose plots are not drawn; returns what it said, or raises RuntimeError with that."""
    said = io.StringIO()
    for name, stand_in in quick_plots.STAND_INS.items():
        setattr(plots, name, stand_in)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main.call([str(argument) for argument in arguments])
    if code:
        command = " ".join(map(str, arguments))
        raise RuntimeError(f"ganlab {command} ended with exit code {code}: {said.getvalue()[-600:]}")
    return said.getvalue()


def last_state(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint of a run, by path."""
    folder = list(list_checkpoints(run / "checkpoints").values())[-1]
    return dict(tensors_with_paths(load_checkpoint(folder), ""))


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The paths of tensors that differ in a bit, or that only one state has."""
    return sorted(
        path
        for path in one.keys() | other.keys()
        if path not in one or path not in other or not torch.equal(one[path], other[path])
    )


def in_words(different: list[str]) -> str:
    """Differences as the cell of a table."""
    if not different:
        return "the same bits"
    return f"{len(different)} tensors differ: {', '.join(different[:3])}{', …' * (len(different) > 3)}"
