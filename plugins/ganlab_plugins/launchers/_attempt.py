"""One attempt at a task on this machine, by a process that may itself be lost at any moment.

Decisions:
- The command does not outlive the process that started it: Linux kills it when that one is gone. SIGKILL loses nothing
  but the steps since the last checkpoint, because checkpoints are whole at every moment.
- An attempt begins only when the last process of the attempt before is gone, however it was lost. The log is the lock:
  the command holds it by holding its output open, so that the kernel lets go of it exactly when the command ends.
- An attempt that is stopped asks its command to save, and waits.

Only the standard library is imported: this file also runs by itself, to become the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NoReturn

POLL = 0.2
"""Seconds between two looks at what is waited for; a signal or an interrupt is noticed between two looks."""

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that a process gets when the thread that started it ends."""


def attempt(command: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> int:
    """Runs a command in `folder` with its output added to `log`, and returns its exit code, -N where signal N ended it.

    `environment` is laid over this process's own. Only for the main thread: the command dies with the thread that
    started it. Raises OSError, with the name of this machine, where the command cannot be started here.
    """
    with _interruptible():
        return _attempt(command, log, folder, environment)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """In the body an interrupt raises, though what a shell starts in the background, Ray's workers too, ignores it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _attempt(command: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> int:
    try:
        with open(log, "ab") as stream:
            _take_turn(stream)
            process = _start(command, stream, folder, environment)
            try:
                while process.poll() is None:
                    time.sleep(POLL)
            finally:
                if process.returncode is None:
                    process.terminate()
                    process.wait()
                # What the command itself left running may hold the log open; the next attempt need not wait for that.
                fcntl.flock(stream, fcntl.LOCK_UN)
    except OSError as error:
        raise OSError(f"{platform.node()}: {error}") from None
    return process.returncode


def _take_turn(log: BinaryIO) -> None:
    """Returns when no process of an earlier attempt is left."""
    told = False
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                log.write(b"waiting for the attempt before this one to end\n")
                log.flush()
            told = True
            time.sleep(POLL)
        else:
            return


def _start(
    command: Sequence[str], log: BinaryIO, folder: str, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # By way of this file: code between fork and exec could deadlock, because the starter may have other threads.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command],
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _become(starter: int, command: list[str]) -> NoReturn:
    """Turns this process into the command, which ends when the starter does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != starter:  # it was gone before the kernel was told
            sys.exit(f"process {starter}, which started this one, is gone")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{platform.node()}: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
