"""ganlab.protocols.launcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    pass


@frozen
class Task:
    """One run of a sweep: a command that can be started again and again until it has finished, and where it prints."""

    name: str
    command: tuple[str, ...]
    log: Path


@runtime_checkable
class Launcher(Protocol):
    """Runs the tasks of a sweep somewhere, `jobs` at a time, and yields (task, exit code) as each ends.

    A failed task never stops the others. Closing the iterator asks those that run to save and end, and waits for them.
    """

    def launch(self, tasks: Sequence[Task], jobs: int, /) -> Iterator[tuple[Task, int]]: ...
