"""The conformance checks of a tracker: an empty run, records and sample grids, a run that is resumed.

As in a run, run.json has all its keys, a record is on disk before the tracker gets it, and a resumed run has forgotten
what came after its checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from typing import Any

from ganlab.plugin.loader import Plugins
from ganlab.run.environment import run_environment
from ganlab.run.run_folder import RunFolder, now
from ganlab.run.train import run_facts
from ganlab.testing.check_result import Fault
from ganlab.testing.inspection import Inspection, temporary_folder
from ganlab.testing.step_timing import median_milliseconds
from ganlab.testing.tiny_components import TinyImages
from ganlab.testing.tiny_game import GENERATES, JUDGES
from ganlab.testing.tiny_training import TinyTraining
from ganlab.utils.hashing import sha256
from ganlab.utils.paths import places
from ganlab.viz.image_grid import save_grid

TICK: dict[str, Any] = {
    "step": 10,
    "images_seen": 640,
    f"loss_{JUDGES}": 1.2,
    f"loss_{GENERATES}": 0.8,
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


def check_tracker(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a tracker."""
    run_check, info = inspection.run_check, run_info(tiny)
    empty = run_check("empty run: opened and closed", lambda: _check_track(inspection, info, 0))
    tracked = run_check(
        "records: accepts ticks, scores (NaN too) and sample grids, and does not change them",
        lambda: _check_track(inspection, info, 3),
        empty,
    )
    run_check(
        "resumes: continues when opened again in the folder of a run",
        lambda: _check_track(inspection, info, 3, again=True),
        tracked,
    )
    run_check("cost of a record", lambda: _measure_cost(inspection, info), tracked)


def run_info(tiny: TinyTraining) -> dict[str, Any]:
    """What run.json has while a run trains, for a tracker under check that reads it: of a tiny training without it."""
    experiment = tiny.experiment(without=True)
    training = tiny.build_experiment(experiment)
    return {
        **run_facts(training, run_environment(experiment, Plugins(registry=tiny.registry), training)),
        "status": "running",
        "name": experiment.name,
        "seed": experiment.seed,
        "identity": sha256(b"check"),
        "started": now(),
        "resumed": [],
        "initialised": training.initialised,
    }


@contextmanager
def _run_folder(info: dict[str, Any]) -> Iterator[RunFolder]:
    """The temporary folder of a run that a tracker under check follows; it is the current folder meanwhile."""
    with temporary_folder() as folder, chdir(folder):  # where a relative path of a tracker leads
        run = RunFolder(folder / "run")
        run.samples.mkdir(parents=True)
        run.experiment_file.write_text('name = "check"\n')
        run.write_info(**info)
        yield run


def _check_track(inspection: Inspection, info: dict[str, Any], ticks: int, again: bool = False) -> None:
    """Checks that a tracker takes the records and sample grids of a run, and with `again` of the resumed run."""
    with _run_folder(info) as run:
        for resumed in range(1 + again):
            if resumed:
                run.forget_after(10)
                run.write_info(resumed=[{"at": now(), "step": 10}])
            tracker: Any = inspection.fresh().build(run)
            for method in ("log", "samples", "close"):
                if not callable(getattr(tracker, method, None)):
                    at = inspection.line_of("build")
                    raise Fault(f"build returns {type(tracker).__name__}, which lacks {method}()", at)
            for tick in range(resumed, ticks):
                for record in (TICK, SCORE, {**TICK, f"loss_{GENERATES}": math.nan}):
                    expected = {**record, "step": 10 * (tick + 1)}
                    run.append("metrics.jsonl" if record is SCORE else "log.jsonl", expected)
                    tracker.log(given := json.loads(json.dumps(expected)))
                    if repr(given) != repr(expected):
                        raise Fault("changes the record", inspection.line_of("log", tracker))
                path = run.sample_file(10 * (tick + 1))
                save_grid(TinyImages(count=4).build(places(), "test").images, path)
                tracker.samples(10 * (tick + 1), path)
            tracker.close()


def _measure_cost(inspection: Inspection, info: dict[str, Any]) -> str:
    """Measures how long a tracker under check takes for one record."""
    with _run_folder(info) as run:
        run.append("log.jsonl", TICK)
        tracker = inspection.fresh().build(run)
        milliseconds = median_milliseconds({"log": lambda: tracker.log(TICK)})["log"]
        tracker.close()
    return f"{milliseconds:.2f} ms"
