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

# Two of them wait for a third, which a launcher of two at a time does not start before one has ended: whichever sees
# the marks of all three says so. They wait longer where they have started late, as the third does then.
NOTES_A_THIRD = """
import os, sys, time
name, code, folder, late = sys.argv[1], int(sys.argv[2]), sys.argv[3], time.time() - float(sys.argv[4])
print('this is ' + name, flush=True)
mark = os.path.join(folder, 'running-' + name)
open(mark, 'w').close()
end = time.monotonic() + (0.2 + min(2, 2 * max(0, late))) * (name != 'three')
while True:
    if len([file for file in os.listdir(folder) if file.startswith('running-')]) > 2:
        open(os.path.join(folder, 'too-many'), 'w').close()
        break
    if time.monotonic() >= end:
        break
    time.sleep(0.02)
if name != 'three':
    os.remove(mark)
raise SystemExit(code)
"""

EARLIER = "the output of an earlier session"

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
    """Checks that a launcher runs each task once, returns its exit code and appends its output to its log.

    Also that it runs no more of them at a time than it is asked to.
    """
    at = inspection.line_of("launch")
    codes = {"one": 0, "two": 3, "three": 0}
    with temporary_folder() as folder:
        tasks = [
            Task(
                name,
                (sys.executable, "-S", "-c", NOTES_A_THIRD, name, str(code), str(folder), str(time.time())),
                folder / f"{name}.log",
            )
            for name, code in codes.items()
        ]
        tasks[0].log.write_text(f"{EARLIER}\n")
        start = time.perf_counter()
        ended = [(task.name, code) for task, code in inspection.fresh().launch(tasks, 2)]
        seconds = time.perf_counter() - start
        if sorted(ended) != sorted(codes.items()):
            raise Fault(f"tasks that end with {codes} ended with {dict(ended)}, {len(ended)} of them", at)
        for task in tasks:
            if not task.log.is_file() or f"this is {task.name}" not in task.log.read_text():
                raise Fault("what a task prints is not in its log", at)
        if EARLIER not in tasks[0].log.read_text():
            raise Fault("overwrites a task's log: append to it, since a run that is resumed has one already", at)
        if (folder / "too-many").exists():
            raise Fault("runs 3 tasks at a time where it is asked for 2", at)
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
