"""What trackers and launchers are checked for: the ends of a run and of a sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from typing import Any

from ganlab.run.run_folder import RunFolder, now
from ganlab.testing.inspection import Fault, Inspection, temporary_folder
from ganlab.testing.tiny_components import TinyImages
from ganlab.testing.tiny_training import TinyGame, in_turns
from ganlab.utils.paths import places
from ganlab.viz.image_grid import save_grid

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
