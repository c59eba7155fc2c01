"""`RunView`: what a hook or a tracker may use of a run folder; `ganlab.RunFolder` implements it.

A protocol, so that the contracts of hooks and trackers do not depend on the code that runs a training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class RunView(Protocol):
    """A run view's protocol: a run folder as hooks and trackers see it, with path, files, `run.json`, records."""

    @property
    def path(self) -> Path:
        """The run folder."""
        ...

    @property
    def info(self) -> dict[str, Any]:
        """A run view's protocol: the contents of `run.json`, to be read, not changed."""
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
        """A run view's protocol: returns the path of the sample grid of a step."""
        ...

    @property
    def resumed_from(self) -> int | None:
        """A run view's protocol: the step a resumed run continues from; later records are dropped. None if new."""
        ...

    def ticks(self) -> list[dict[str, Any]]:
        """A run view's protocol: the records of `log.jsonl`. Numbers not finite are strings that `float()` reads."""
        ...

    def scores(self) -> list[dict[str, Any]]:
        """A run view's protocol: the records of `metrics.jsonl` from training, without those of `ganlab eval`."""
        ...
