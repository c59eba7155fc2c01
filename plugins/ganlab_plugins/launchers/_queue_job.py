"""The job of a queue: one attempt at a run, on the node that the queue chose, asked to save when the queue ends it.

Decisions:
- SIGTERM, or the signal that submitit orders some time before the limit, asks the command to save; its exit code is
  then that of an interrupted run, and whoever submitted the job submits it again.
- The sweep asks by a file, since a queue's own command to cancel leaves a run half a minute to save. A job that is
  still waiting in the queue sees the file when it starts.
- Slurm with proctrack/cgroup signals the first process of a job alone, which passes it on once.

Only the standard library is imported.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType

from ganlab_plugins.launchers._run_command import POLL, run_command

INTERRUPTED = 75
"""Exit code of a run that was asked to stop and has saved."""


class _Asked(BaseException):
    """Raised in a queue's job by the signal that asks it to end."""


def run_job(command: Sequence[str], log: str, folder: str, environment: Mapping[str, str], stop: str) -> int:
    """Runs a command as the job of a queue; returns its exit code, `INTERRUPTED` if the job was asked to end.

    stop: a file that need not exist; when it does, the command is asked to save. Raises OSError, with this machine's
    name, if the command cannot be started.
    """
    early = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))

    def ask(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, early):  # it is saving
            signal.signal(each, lambda number, frame: None)
        raise _Asked

    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL):
            if os.path.exists(stop):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    for each in (signal.SIGTERM, early):
        signal.signal(each, ask)
    threading.Thread(target=watch, daemon=True).start()
    try:
        return run_command(command, log, folder, environment)
    except _Asked:
        return INTERRUPTED
    finally:
        ended.set()
