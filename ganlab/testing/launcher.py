"""The conformance checks of a sweep launcher: it runs every task, and stops running ones so that they save."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from ganlab.protocols import Task
from ganlab.testing.check_result import Fault
from ganlab.testing.inspection import Inspection, temporary_folder
from ganlab.testing.tiny_training import TinyTraining

# As a run does that is asked to stop: it saves and then ends.
SAVES_WHEN_STOPPED = """
import os, pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1] + ".saved").write_text("")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""

ENDS_WHEN_STARTED = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"""


def check_launcher(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a launcher."""
    launches = inspection.run_check(
        "launches: runs every task once, returns its exit code, also of one that fails, and logs its output",
        lambda: _check_launches(inspection),
    )
    inspection.run_check(
        "stops: closed early, it lets running tasks save and waits for them", lambda: _check_stops(inspection), launches
    )


def _check_launches(inspection: Inspection) -> str:
    """Checks that a launcher runs each task once, returns its exit code and writes its output to its log."""
    at = inspection.line_of("launch")
    codes = {"one": 0, "two": 3, "three": 0}
    with temporary_folder() as folder:
        tasks = [
            Task(
                name,
                (sys.executable, "-c", f"print('this is {name}'); raise SystemExit({code})"),
                folder / f"{name}.log",
            )
            for name, code in codes.items()
        ]
        start = time.perf_counter()
        ended = [(task.name, code) for task, code in inspection.fresh().launch(tasks, 2)]
        seconds = time.perf_counter() - start
        if sorted(ended) != sorted(codes.items()):
            raise Fault(f"tasks that end with {codes} ended with {dict(ended)}, {len(ended)} of them", at)
        for task in tasks:
            if not task.log.is_file() or f"this is {task.name}" not in task.log.read_text():
                raise Fault("what a task prints is not in its log", at)
    return f"3 tasks, 2 at a time, in {seconds:.1f} s"


def _check_stops(inspection: Inspection) -> None:
    """Checks that a launcher that is closed early asks its running tasks to save, and waits until they have ended."""
    at = inspection.line_of("launch")
    with temporary_folder() as folder:
        mark = folder / "started"
        tasks = [
            Task("long", (sys.executable, "-c", SAVES_WHEN_STOPPED, str(mark)), folder / "long.log"),
            Task("short", (sys.executable, "-c", ENDS_WHEN_STARTED, str(mark)), folder / "short.log"),
        ]
        running: Any = inspection.fresh().launch(tasks, 2)
        task, _ = next(running)
        if task.name != "short":
            raise Fault(f"{task.name!r} ended first, and nobody stopped it", at)
        running.close()
        saved, pid = Path(f"{mark}.saved"), int(mark.read_text())
        if _is_running(pid):
            raise Fault("closed early, it leaves a task running", at)
        if not saved.exists():
            raise Fault("closed early, it ends a task without letting it save: send SIGTERM and wait", at)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
