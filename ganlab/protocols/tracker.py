"""ganlab.protocols.tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ganlab.run.run_folder import RunFolder


class Tracker(Protocol):
    """A place where records go, as they are written to the run folder."""

    def log(self, record: Mapping[str, Any], /) -> None:
        """Takes a record of `log.jsonl` (a tick) or of `metrics.jsonl` (a value)."""
        ...

    def samples(self, step: int, path: Path, /) -> None:
        """Takes the sample grid that was just drawn."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class TrackerConfig(Protocol):
    """The options of a tracker.

    It may also have `prepare()`, called before a run folder is made, to raise `ComponentError` where it cannot work,
    such as where a package is missing.
    """

    def build(self, run: RunFolder, /) -> Tracker:
        """Opens it before the first step. On resume (`run.resumed_from`) what it holds of later steps is void, since
        these are taken again; `run.ticks()` and `run.scores()` are the records that hold."""
        ...
