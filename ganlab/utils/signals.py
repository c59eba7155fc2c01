"""Signal handlers: the first SIGINT or SIGTERM stops a run between two steps, a second one ends it at once.

A command that can go on where it was stopped (`run`, `sweep`, `sample`) hears SIGINT even where it was ignored, as in
a process that a shell script put into the background with `&`. Only SIGHUP stays ignored, as under `nohup`.

Once a command has its result, no signal changes the exit code. Python takes a second or more to shut down after torch
was imported; a handler ends that time early, except for its last part, in which Python calls no handlers any more.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
"""Signals that stop a run. SIGHUP means that the terminal was closed; under `nohup` it stays ignored."""


@contextmanager
def signals_as_keyboard_interrupt() -> Iterator[None]:
    """Makes each of `SIGNALS` raise KeyboardInterrupt in the body. Only for the main thread.

    SIGINT is included because a process that a shell script started in the background ignores it by default.
    """
    before = _handle_signals(signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_as_interrupt() -> None:
    """Makes the signal SIGTERM end a command as SIGINT does: by KeyboardInterrupt, so temporary files are removed."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def ignore_signals_at_exit() -> None:
    """Lets signals be ignored in the last part of Python's shutdown. Must be called before anything uses `atexit`.

    Python then resets its own handlers, so that a signal would end the process with the code of that signal.
    """
    atexit.register(_handle_signals, signal.SIG_IGN)


def keep_exit_code(code: int) -> None:
    """Lets signals end this process at once with the exit code `code` from now on. Only for the main thread.

    For the end of a command. What is in the buffers of stdout and stderr is then lost, so flush them next.
    """
    _handle_signals(lambda number, frame: os._exit(code))


def _handle_signals(handler: signal.Handlers | Callable[[int, FrameType | None], Any]) -> dict[signal.Signals, Any]:
    """Sets a handler of all signals, but not of a SIGHUP that is ignored, as `nohup` asks; returns those before it."""
    handled = [s for s in SIGNALS if s.name != "SIGHUP" or signal.getsignal(s) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in handled}


class StopRequest:
    """A signal handler: `requested` becomes True on the first of `SIGNALS`; the second raises KeyboardInterrupt.

    A context manager, only for the main thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = _handle_signals(self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
