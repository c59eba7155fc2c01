"""The protocols of a tracker and of its configuration: where a run's records are sent besides the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class Tracker(Protocol):
    """A tracker's protocol, such as TensorBoard's: receives a run's records as they are written."""

    def log(self, record: Mapping[str, Any], /) -> None:
        """A tracker's protocol: receives a record of `log.jsonl` (a tick) or of `metrics.jsonl` (a metric's value)."""
        ...

    def samples(self, step: int, path: Path, /) -> None:
        """A tracker's protocol: receives the file of the sample grid that was just written."""
        ...

    def close(self) -> None:
        """A tracker's protocol: flushes and closes it at the end of a run."""
        ...


@runtime_checkable
class TrackerConfig(Protocol):
    """A tracker's protocol, its configuration: its options in the experiment file, and `build`.

    Optional method `prepare()`: called before the run folder exists, to raise `ComponentError` where the tracker cannot
    work, such as where a package is missing.
    """

    def build(self, run: Any, /) -> Tracker:
        """A tracker's protocol: opens it for a run before the first step.

        `run` is the run folder (`RunView`); its type is Any so that a plugin may annotate it as `ganlab.RunFolder`. On
        resume (`run.resumed_from` is not None) the tracker drops what it has of later steps, which are taken again;
        `run.ticks()` and `run.scores()` are the valid records.
        """
        ...
