"""Signal handlers: the first SIGINT or SIGTERM stops a run between two steps, a second one ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
"""Signals that stop a run. SIGHUP means that the terminal was closed; under `nohup` it stays ignored."""


@contextmanager
def signals_as_keyboard_interrupt() -> Iterator[None]:
    """Makes the signals SIGINT and SIGTERM raise KeyboardInterrupt in the body. Only for the main thread.

    SIGINT is included because a process that a shell started in the background ignores it by default.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest:
    """A signal handler: `requested` becomes True on the first of `SIGNALS`; the second raises KeyboardInterrupt.

    A context manager, only for the main thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in SIGNALS:
            if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
