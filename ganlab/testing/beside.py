"""What trackers and launchers are checked for: the ends of a run and of a sweep."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from ganlab.files import places
from ganlab.images import save_grid
from ganlab.protocols import Task
from ganlab.runfolder import RunFolder, now
from ganlab.testing.checks import Fault, Inspection, temporary_folder
from ganlab.testing.game import TinyGame, in_turns
from ganlab.testing.tiny import TinyImages

# ---------------------------------------------------------------------------------------------------------------------
# Trackers
# ---------------------------------------------------------------------------------------------------------------------

TICK: dict[str, Any] = {
    "step": 10,
    "images_seen": 640,
    "loss_discriminator": 1.2,
    "loss_generator": 0.8,
    "d_real": 0.6,
    "d_fake": 0.4,
    "images_per_second": 1234.5,
    "seconds": 0.5,
    "alarms": ["the samples have collapsed"],
}
SCORE: dict[str, Any] = {
    "step": 10,
    "metric": 0,
    "name": "fid",
    "value": 12.5,
    "better": "lower",
    "protocol": {"metric": "fid", "generated": 100},
    "seconds": 0.1,
}


def check_tracker(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    empty = look("empty run: opened and closed", lambda: _track(inspection, 0))
    tracked = look(
        "records: takes ticks, scores, also of NaN, and sample grids, and leaves them as they were",
        lambda: _track(inspection, 3),
        empty,
    )
    look("resumes: opened again in the folder of a run it goes on", lambda: _track(inspection, 3, again=True), tracked)
    look("cost of a record", lambda: _track_cost(inspection), tracked)


@contextmanager
def _run() -> Iterator[RunFolder]:
    with temporary_folder() as folder, chdir(folder):  # where a relative path of a tracker leads
        run = RunFolder(folder / "run")
        run.samples.mkdir(parents=True)
        run.experiment_file.write_text('name = "check"\n')
        run.write_info(name="check", seed=0, started=now(), resumed=[], status="running")
        yield run


def _track(inspection: Inspection, ticks: int, again: bool = False) -> None:
    with _run() as run:
        for _ in range(1 + again):
            tracker: Any = inspection.fresh().build(run)
            for method in ("log", "samples", "close"):
                if not callable(getattr(tracker, method, None)):
                    at = inspection.line_of("build")
                    raise Fault(f"build gives {type(tracker).__name__}, which lacks {method}()", at)
            for tick in range(ticks):
                for record in (TICK, SCORE, {**TICK, "loss_generator": math.nan}):
                    mine = {**record, "step": 10 * (tick + 1)}
                    tracker.log(given := json.loads(json.dumps(mine)))
                    if repr(given) != repr(mine):
                        raise Fault("changes the record that it is given", inspection.line_of("log", tracker))
                path = run.sample_file(10 * (tick + 1))
                save_grid(TinyImages(count=4).build(places(), "test").images, path)
                tracker.samples(10 * (tick + 1), path)
            tracker.close()


def _track_cost(inspection: Inspection) -> str:
    with _run() as run:
        tracker = inspection.fresh().build(run)
        milliseconds = in_turns({"log": lambda: tracker.log(TICK)}, 5)["log"]
        tracker.close()
    return f"{milliseconds:.2f} ms"


# ---------------------------------------------------------------------------------------------------------------------
# Launchers
# ---------------------------------------------------------------------------------------------------------------------

# A run that is asked to stop saves and then ends.
LONG = """
import os, pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1] + ".saved").write_text("")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""
WHEN_STARTED = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
"""


def check_launcher(inspection: Inspection, game: TinyGame) -> None:
    launches = inspection.look(
        "launches: every task once, with its exit code, one that fails too, and its output in its log",
        lambda: _launches(inspection),
    )
    inspection.look("stops: closed early, it has tasks save, and waits for them", lambda: _stops(inspection), launches)


def _launches(inspection: Inspection) -> str:
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
        began = time.perf_counter()
        ended = [(task.name, code) for task, code in inspection.fresh().launch(tasks, 2)]
        seconds = time.perf_counter() - began
        if sorted(ended) != sorted(codes.items()):
            raise Fault(f"tasks that end with {codes} ended with {dict(ended)}, {len(ended)} of them", at)
        for task in tasks:
            if not task.log.is_file() or f"this is {task.name}" not in task.log.read_text():
                raise Fault("what a task prints is not in its log", at)
    return f"3 tasks, 2 at a time, in {seconds:.1f} s"


def _stops(inspection: Inspection) -> None:
    at = inspection.line_of("launch")
    with temporary_folder() as folder:
        mark = folder / "started"
        tasks = [
            Task("long", (sys.executable, "-c", LONG, str(mark)), folder / "long.log"),
            Task("short", (sys.executable, "-c", WHEN_STARTED, str(mark)), folder / "short.log"),
        ]
        running: Any = inspection.fresh().launch(tasks, 2)
        task, _ = next(running)
        if task.name != "short":
            raise Fault(f"{task.name!r} ended first, and nobody stopped it", at)
        running.close()
        saved, pid = Path(f"{mark}.saved"), int(mark.read_text())
        if _alive(pid):
            raise Fault("closed early, it leaves a task running", at)
        if not saved.exists():
            raise Fault("closed early, it ends a task without letting it save: ask by SIGTERM and wait", at)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
