"""What a child does to itself: it dies, really, by SIGKILL, at a chosen write, flush, rename or update.

A write dies in its middle, with half of its bytes in the file.
"""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import io
import os
import resource
import signal
import socket
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from children import set_environment


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@define
class AtFileOperation:
    """Dies at the `number`th operation on files that are written, counted from 0, or just after it.

    Each operation is noted in `notes`, a line each, so that a child that lives through all of them tells how many and
    which there are.
    """

    notes: Path
    number: int | None = None
    after: bool = False
    _done: int = field(default=0, init=False)
    _notes: Any = field(default=None, init=False)

    def __call__(self) -> None:
        self._notes = os.open(self.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        plain_open = io.open

        def opened(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            stream = plain_open(file, mode, *rest, **options)
            return _Stream(stream, self) if set(mode) & set("wxa+") else stream

        io.open = opened
        for name in ("fsync", "rename", "replace"):
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.reached(f"{name} {Path(str(arguments[0])).name}")
            result = plain(*arguments, **options)
            self.passed()
            return result

        return call

    def reached(self, what: str, half: Callable[[], object] | None = None) -> None:
        os.write(self._notes, f"{what}\n".encode())
        if self.number == self._done and not self.after:
            if half is not None:
                half()
            die()

    def passed(self) -> None:
        if self.number == self._done:
            die()
        self._done += 1


class _Stream:
    """An open file whose writes go to the disk at once."""

    def __init__(self, stream: Any, watcher: AtFileOperation) -> None:
        self._stream, self._watcher = stream, watcher

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()

        self._watcher.reached(f"write {Path(str(self._stream.name)).name}", half)
        written = self._stream.write(data)
        self._stream.flush()
        self._watcher.passed()
        return written

    def __enter__(self) -> _Stream:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@define
class AtUpdate:
    """Dies in a step: at the last move's update after so many, when the moves before it have had theirs."""

    updates: int

    def __call__(self) -> None:
        from ganlab.training.game import Game

        plain = Game.make_update

        def make_update(game: Any, move: Any, batch: Any, updates: int) -> None:
            if move.name == game.rules.moves[-1].name and updates == self.updates:
                die()
            plain(game, move, batch, updates)

        Game.make_update = make_update  # type: ignore[method-assign]


@define
class InEnvironment:
    """What a command's process does first: it takes environment variables, and dies in a step if it is told when."""

    variables: dict[str, str]
    updates: int | None = None

    def __call__(self) -> None:
        set_environment(self.variables)
        if self.updates is not None:
            AtUpdate(self.updates)()


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ignore_interrupt() -> None:
    """As of a process that a shell script started with `&`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def slow_disk() -> None:
    """Every flush takes a tenth of a second."""
    plain = os.fsync

    def flush(descriptor: int) -> None:
        time.sleep(0.1)
        plain(descriptor)

    os.fsync = flush


def small_files(most: int) -> None:
    """No file may grow beyond so many bytes, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def in_tokyo() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def clock_set_back() -> None:
    """The clock says 1999."""
    then, began = 930_000_000.0, time.monotonic()
    time.time = lambda: then + time.monotonic() - began
    plain_localtime = time.localtime
    time.localtime = lambda seconds=None: plain_localtime(time.time() if seconds is None else seconds)
    plain_strftime = time.strftime
    time.strftime = lambda form, at=None: plain_strftime(form, time.localtime() if at is None else at)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.fromtimestamp(time.time(), tz)

    from ganlab.run import run_folder

    run_folder.datetime = types.SimpleNamespace(datetime=Datetime, UTC=datetime.UTC)  # type: ignore[assignment]


def nobody(temporary: str) -> None:
    """A user whom the system does not know, without a home."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "GANLAB_CACHE", "GANLAB_DATA"):
        os.environ.pop(name, None)
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    os.getuid = lambda: 54321


def no_capabilities() -> None:
    """On Linux: permissions hold for root too. Another user could not import what lies in the home of this one."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # of capabilities of 64 bits; of this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def cut_off() -> None:
    """No network: who asks for a connection, or for an address, gets an error and is heard of."""

    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a connection is asked for: {arguments}")

    socket.socket.connect = socket.socket.connect_ex = refused  # type: ignore[assignment]
    socket.getaddrinfo = refused  # type: ignore[assignment]


def slow_decoding(seconds: float) -> None:
    """Decoding an image takes so long."""
    from ganlab_plugins.datasets import _decoded_file

    plain = _decoded_file.decode_image

    def slow(*arguments: Any) -> Any:
        time.sleep(seconds)
        return plain(*arguments)

    _decoded_file.decode_image = slow


def hold_lock(mark: Path) -> None:
    """The lock of decoded images is held, as by another process; `mark` says since when."""
    from ganlab_plugins.datasets import _decoded_cache

    plain = _decoded_cache.cache_lock

    def held(path: Path, *rest: Any) -> Any:
        path.parent.mkdir(parents=True, exist_ok=True)
        # By a descriptor that filelock does not know of.
        fcntl.flock(os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
        mark.write_text(str(time.time()))
        return plain(path, *rest)

    _decoded_cache.cache_lock = held


@contextmanager
def interrupted_at(stop: int) -> Iterator[None]:
    """A run of this process, in the body, is sent SIGINT at the boundary before a step."""
    from ganlab.run.callbacks.callback_list import CallbackList

    plain = CallbackList.__call__

    def interrupting(self: CallbackList, step: int) -> None:
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        plain(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallbackList, "__call__", interrupting)
        yield
