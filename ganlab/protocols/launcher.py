"""The protocol of a sweep launcher, and the tasks that it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import frozen


@frozen
class Task:
    """A launcher's task, one run of a sweep: a command that may be restarted until it succeeds, and its log file."""

    name: str
    command: tuple[str, ...]
    log: Path


@runtime_checkable
class Launcher(Protocol):
    """The protocol of a launcher of a sweep's tasks: on this machine, on a cluster or elsewhere.

    A failed task never stops the others. Closing the iterator asks the running tasks to save a checkpoint and exit, and
    waits for them.
    """

    def launch(self, tasks: Sequence[Task], jobs: int, /) -> Iterator[tuple[Task, int]]:
        """Runs a sweep's tasks, at most `jobs` at a time, and yields (task, exit code) as each finishes."""
        ...
