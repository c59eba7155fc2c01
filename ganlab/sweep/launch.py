"""Launching a sweep: its unfinished runs are handed to the launcher, as one `ganlab run` command each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ganlab.protocols import Task
from ganlab.run.run_folder import SWEEP_FILE
from ganlab.sweep.plan import PlannedRun, Sweep
from ganlab.utils.files import write_whole


def launch_runs(sweep: Sweep, out: Path, jobs: int) -> Iterator[tuple[PlannedRun, int]]:
    """Launches a sweep: writes `sweep.json`, starts the unfinished runs, and yields each with its exit code as it ends.

    out: the sweep's folder. jobs: how many runs the launcher keeps going at a time.
    """
    write_whole(
        out / SWEEP_FILE,
        json.dumps({"name": sweep.name, "seeds": sweep.seeds, "variants": sweep.variants}, indent=2) + "\n",
    )
    runs: dict[str, PlannedRun] = {}
    tasks = []
    for run in sweep.planned:
        if run.finished(out):
            continue
        folder = run.folder(out)
        file = folder.with_suffix(".toml")
        write_whole(file, run.toml)
        command = (sys.executable, "-m", "ganlab", "run", str(file), "--out", str(folder), "--resume")
        tasks.append(Task(f"{run.variant}/seed-{run.seed}", command, run.log(out)))
        runs[tasks[-1].name] = run
    for task, code in sweep.launcher.launch(tasks, jobs):
        yield runs[task.name], code
