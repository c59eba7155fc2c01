"""The protocol of a sweep launcher, and the tasks that it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import frozen


@frozen
class Task:
    """A launcher's protocol, its task: one run of a sweep, a command to restart until it succeeds, and a log file."""

    name: str
    command: tuple[str, ...]
    log: Path


@runtime_checkable
class Launcher(Protocol):
    """A launcher's protocol: runs a sweep's tasks, on this machine, on a cluster or elsewhere.

    A failed task never stops the others. Closing the iterator asks the running tasks to save a checkpoint and exit, and
    waits for them.
    """

    def launch(self, tasks: Sequence[Task], jobs: int, /) -> Iterator[tuple[Task, int]]:
        """A launcher's protocol: runs tasks, at most `jobs` at once, and yields (task, exit code) as each finishes."""
        ...
