"""Runs one command on this machine as a subprocess, for a launcher whose own process may be killed at any moment.

Decisions:
- The command does not outlive the process that started it: Linux kills it when that process ends. SIGKILL loses only
  the steps since the last checkpoint, because a checkpoint file is complete at every moment.
- An attempt starts only when the last process of the previous attempt has ended, however it ended. The log is the lock:
  the command holds it by keeping its output open, so the kernel releases it exactly when the command ends.
- When an attempt is stopped, its command is asked to save (SIGTERM), and is waited for.

Only the standard library is imported: this file is also run as a script, which then becomes the command.
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
"""Seconds between two polls; a signal or an interrupt is noticed between polls."""

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: sets the signal that a process receives when the thread that started it ends."""


def run_command(command: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> int:
    """Runs a command in `folder`, appends its output to `log`, and returns its exit code, -N if signal N ended it.

    `environment` is merged over this process's own. Only for the main thread: the command is killed when the thread
    that started it ends. Raises OSError, with this machine's name, if the command cannot be started.
    """
    with _interruptible():
        return _run_locked(command, log, folder, environment)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt in the body, even in Ray workers and shell background jobs, which ignore it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _run_locked(command: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> int:
    try:
        with open(log, "ab") as stream:
            _lock(stream)
            process = _start(command, stream, folder, environment)
            try:
                while process.poll() is None:
                    time.sleep(POLL)
            finally:
                if process.returncode is None:
                    process.terminate()
                    process.wait()
                # Children that the command left running may keep the log open; the next attempt must not wait for them.
                fcntl.flock(stream, fcntl.LOCK_UN)
    except OSError as error:
        raise OSError(f"{platform.node()}: {error}") from None
    return process.returncode


def _lock(log: BinaryIO) -> None:
    """Locks the log file of a command; waits until no process of an earlier attempt holds it."""
    noted = False
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not noted:
                log.write(b"waiting for the previous attempt to end\n")
                log.flush()
            noted = True
            time.sleep(POLL)
        else:
            return


def _start(
    command: Sequence[str], log: BinaryIO, folder: str, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # Through this file: code between fork and exec could deadlock, because the parent may have other threads.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command],
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _exec(parent: int, command: list[str]) -> NoReturn:
    """Replaces this process by the command, to be killed when the parent process ends.

    SIGUSR2, which a queue may send to all processes of a job to announce its end, is left to the parent.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it ended before the call to prctl
            sys.exit(f"process {parent}, which started this one, is gone")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{platform.node()}: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    _exec(int(sys.argv[1]), sys.argv[2:])
