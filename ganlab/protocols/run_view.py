"""`RunView`: what a hook or a tracker may use of a run folder; `ganlab.RunFolder` implements it.

A protocol, so that the contracts of hooks and trackers do not depend on the code that runs a training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class RunView(Protocol):
    """The protocol of a run folder as hooks and trackers see it: its path, its files, `run.json` and its records."""

    @property
    def path(self) -> Path:
        """The run folder."""
        ...

    @property
    def info(self) -> dict[str, Any]:
        """The contents of `run.json`: read, do not change."""
        ...

    @property
    def experiment_file(self) -> Path: ...

    @property
    def checkpoints(self) -> Path: ...

    @property
    def plots(self) -> Path: ...

    @property
    def samples(self) -> Path: ...

    def sample_file(self, step: int) -> Path:
        """Returns the path of the sample grid of a step."""
        ...

    @property
    def resumed_from(self) -> int | None:
        """The step that a resumed run continues from, whose later records are dropped; None in a new run."""
        ...

    def ticks(self) -> list[dict[str, Any]]:
        """Returns the records of `log.jsonl`. Numbers that are not finite are strings that `float()` reads."""
        ...

    def scores(self) -> list[dict[str, Any]]:
        """Returns the records of `metrics.jsonl` that were measured in training, without those of `ganlab eval`."""
        ...
