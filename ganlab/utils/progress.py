"""Progress of long work: the callback that reports it, and that ends the work where a run is to stop.

A progress callback is called as `progress(what, done, total)`; `total` is 0 where it is not known. It draws, and it
raises KeyboardInterrupt once a signal has asked the run to stop. So work that takes long calls it several times a
second, from the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Reports progress: what is done, how much of it is done, and how much there is in all (0 if that is not known)."""

FIRST = 0.5
"""Seconds after which `paced` reports progress for the first time: what is over sooner needs no line."""

PAUSE = 0.2
"""Seconds between two reports of `paced`."""


def no_progress(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def paced(progress: Progress) -> Progress:
    """Returns a progress callback that may be called very often: it passes on a few calls a second."""
    due = time.monotonic() + FIRST

    def report(what: str, done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + PAUSE
            progress(what, done, total)

    return report
