"""Events of the pretend device: values read back, copies between devices, and the lines of code that cause them.

Decisions:
- An event's place is the innermost line that belongs neither to torch nor to the core: that of a plugin. Where there is
  none it is the core's own.
- Autograd runs backward passes of devices in threads of its own. An event there is placed where the code is that runs
  in that thread, as in the `backward` of an `autograd.Function`, else at the line that called `backward`.
- An event is *in the step* where `take_step` of the training loop is among the callers, and nothing of `run/` between:
  when a run has diverged, that repeats steps and looks at every value.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from attrs import frozen

from ganlab.utils.paths import PACKAGE

READ, TO_CPU, FROM_CPU, SCALAR = "reads a value back", "copies to the CPU", "copies from the CPU", "takes a CPU scalar"
"""Kinds of events. A scalar is a 0-dim tensor of the CPU in an operation of the device."""

_OWN = f"{Path(__file__).parent}{os.sep}"
_CORE = f"{PACKAGE}{os.sep}"
_TORCH = str(Path(torch.__file__).parent)  # also matches torchvision and other packages installed next to it
_DRIVERS = tuple(f"{PACKAGE / name}{os.sep}" for name in ("training", "run", "bench", "testing", "cli"))
"""Packages of the core that call plugins and are not called by them: what called these is not looked at."""
_DATA = f"{PACKAGE / 'data'}{os.sep}"
_RUN = f"{PACKAGE / 'run'}{os.sep}"
_LOOP = str(PACKAGE / "training" / "loop.py")
_TRIAL = str(PACKAGE / "run" / "first_updates.py")


@frozen
class Event:
    """An event of the pretend device: what happened, by which operation, at which line, and whether in a step.

    `nbytes` is the size of what a copy from the CPU copied.
    """

    what: str
    operation: str
    file: str
    line: int
    in_step: bool
    nbytes: int = 0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.what} ({self.operation})"


def describe_steps(events: Iterable[Event]) -> list[str]:
    """Lines on what crossed between the pretend device and the CPU in train steps, but for the data that are loaded.

    Each line has a place and how often it was.
    """
    counts = Counter(str(event) for event in events if event.in_step and not event.file.startswith(_DATA))
    if not counts:
        return ["pretend device: no train step read a value back or copied between devices"]
    lines = [f"{text}, {count} time{'s' * (count > 1)}" for text, count in counts.items()]
    return ["pretend device: in the train steps", *lines]


_recordings: list[list[Event]] = []


@contextmanager
def record_events() -> Iterator[list[Event]]:
    """Records the events of the pretend device in the body."""
    events: list[Event] = []
    _recordings.append(events)
    try:
        yield events
    finally:
        _recordings[:] = [one for one in _recordings if one is not events]


def add_event(what: str, operation: object, nbytes: int = 0) -> Event:
    """Notes an event of the pretend device at the line that is running."""
    event = Event(what, str(operation), *find_place(), nbytes)
    for events in _recordings:
        events.append(event)
    return event


def find_place() -> tuple[str, int, bool]:
    """The file and line that the pretend device calls responsible for what happens now, and whether it is in a step."""
    own, core, in_step = _search(sys._getframe(1))
    if threading.current_thread() is not threading.main_thread():
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        calling, calling_core, main_in_step = _search(main)
        in_step |= main_in_step
        if "ganlab-reader" not in threading.current_thread().name:
            own, core = own or calling, core or calling_core
    return *(own or core or ("", 0)), in_step


def in_first_update(event: Event) -> bool:
    """Whether an event is of a plugin in the updates that a run tries before it has a folder."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not event.file.startswith(_CORE):
        if frame.f_code.co_filename == _TRIAL and frame.f_code.co_name == "try_move":
            return True
        frame = frame.f_back
    return False


def current_place() -> str:
    """The place that the pretend device names in an error, as "file:line"."""
    file, line, _ = find_place()
    return f"{file}:{line}"


def _search(frame: FrameType | None) -> tuple[tuple[str, int] | None, tuple[str, int] | None, bool]:
    """The innermost place outside of torch and the core, the innermost one of the core, and whether in a step."""
    own: tuple[str, int] | None = None
    core: tuple[str, int] | None = None
    outside = beside = False
    while frame is not None:
        file = frame.f_code.co_filename
        if file == _LOOP and frame.f_code.co_name == "take_step":
            return own, core, not beside
        if not file.startswith((_OWN, _TORCH, "<")):
            if file.startswith(_CORE):
                core = core or (file, frame.f_lineno)
                outside |= file.startswith(_DRIVERS)
                beside |= file.startswith(_RUN)
            elif not outside:
                own = own or (file, frame.f_lineno)
        frame = frame.f_back
    return own, core, False
