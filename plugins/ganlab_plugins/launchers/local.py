"""The local launcher: starts the runs of a sweep as processes on this machine, a given number at a time.

Decisions: the CPU cores are divided among concurrent runs; a run's output is written to a log file next to its folder;
stopping the sweep asks every run to save.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

from attrs import field, frozen
from attrs.validators import ge, le, optional

from ganlab import Launcher, Register, Task, hookimpl

POLL = 0.2
"""Seconds between two polls of the processes."""


@frozen
class Local:
    """Local launcher: each run of a sweep is a process on this machine.

    threads: CPU threads of each run; by default the cores divided by the jobs. A run's exact results depend on it.
    """

    threads: int | None = field(default=None, validator=optional([ge(1), le(4096)]))

    def launch(self, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, int]]:
        threads = self.threads or max(1, (os.cpu_count() or 1) // jobs)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        waiting = list(tasks)
        running: dict[subprocess.Popen[bytes], Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    task = waiting.pop(0)
                    running[_start(task, environment)] = task
                for process in [process for process in running if process.poll() is not None]:
                    yield running.pop(process), process.returncode
                time.sleep(POLL)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait()


def _start(task: Task, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        # In a new session, so that Ctrl-C reaches only the sweep, which then asks each run once to save.
        return subprocess.Popen(
            task.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@hookimpl
def register_launchers(register: Register[Launcher]) -> None:
    register("local", Local)
