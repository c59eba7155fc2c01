"""The trackers in real runs, each read by a reader that is not ours and held against the run's own records.

The readers: the csv module; TensorBoard's event accumulator; MLflow's client. Runs are left alone, killed by SIGKILL
and resumed, and watched while their disk is full.
"""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import saboteur
from children import Child, Command
from ganlab import RunFolder, numbers_of
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.viz import progress
from ganlab_plugins.trackers.csv import CSV
from ganlab_plugins.trackers.mlflow import MLflow
from ganlab_plugins.trackers.tensorboard import TensorBoard
from ganlab_plugins.trackers.wandb_trackio import LoggedRun
from run_folders import TIMED, assert_same_run
from saboteur import AtFileOperation, AtUpdate

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]
Series = dict[str, list[tuple[int, float]]]
TRACKERS = ["csv", "tensorboard", "mlflow"]

# What one of MLflow's own packages says to it; Python shows it to nobody but to tests.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def tracked(table: dict[str, Any]) -> dict[str, Any]:
    """Nine steps with a tick each, a penalty every third, checkpoints at 4 and 8, scores and grids at 4 and 8 too."""
    table["train"] |= {"steps": 9, "log_every": 1, "sample_every": 4, "checkpoint_every": 4}
    table["penalty"] = [{"name": "l2_generator", "weight": 0.01, "every": 3}]
    table["metric"] = [{"name": "fid", "every": 4, "samples": 16, "features": {"name": "classifier", "updates": 10}}]
    table["tracker"] = [{"name": name} for name in TRACKERS]
    return table


def recorded(run: Path) -> Series:
    """What the run's own records say."""
    series: Series = {}
    for file in ("log.jsonl", "metrics.jsonl"):
        for record in read_records(run / file):
            for name, value in numbers_of(record).items():
                series.setdefault(name, []).append((record["step"], value))
    return series


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance=dict.fromkeys(["images", "scalars"], 0))
    return accumulator.Reload()


def in_tensorboard(run: Path) -> Series:
    read = events(run)
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def mlflow_runs(name: str = "tiny") -> tuple[MlflowClient, list[Any]]:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def in_mlflow(run: Path) -> Series:
    client, runs = mlflow_runs()
    (found,) = [each for each in runs if each.data.tags["ganlab.folder"] == str(run.resolve())]
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }


def in_csv(run: Path) -> Series:
    series: Series = {}
    with (run / "ticks.csv").open(newline="") as file:
        for row in csv.DictReader(file, strict=True):
            assert None not in row, "a row has more cells than there are columns"
            for key, value in row.items():
                if value and key not in ("step", "alarms"):
                    series.setdefault(f"train/{key}", []).append((int(row["step"]), float(value)))
    with (run / "scores.csv").open(newline="") as file:
        for row in csv.DictReader(file, strict=True):
            series.setdefault(f"score/{row['name']}", []).append((int(row["step"]), float(row["value"])))
    return series


READERS = {"csv": in_csv, "tensorboard": in_tensorboard, "mlflow": in_mlflow}


def assert_equal(read: Series, expected: Series, single: bool = False) -> None:
    """Equal names, steps and values; TensorBoard keeps single precision."""
    assert read.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in read[name]] == [step for step, _ in points], name
        values = np.array([value for _, value in points], np.float32 if single else np.float64)
        np.testing.assert_array_equal(np.array([value for _, value in read[name]], values.dtype), values, name)


@pytest.mark.extended
@pytest.mark.slow
def test_all_three_hold_what_the_records_hold(tracked: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    code, out, err = ganlab("run", write(tracked), "--out", "r")
    assert (code, err) == (0, ""), err
    assert "plugin" not in out
    run, expected = Path("r"), recorded(Path("r"))
    assert len(expected["train/penalty_l2_generator"]) < len(expected["train/loss_generator"]) == 9
    assert len(expected["score/fid"]) == 4
    for name, reader in READERS.items():
        assert_equal(reader(run), expected, single=name == "tensorboard")

    toml = (run / "experiment.toml").read_text()
    read = events(run)
    (text,) = read.Tensors("experiment/text_summary")
    (shown,) = text.tensor_proto.string_val
    assert shown.decode().replace("    ", "") == toml.replace("    ", "")
    grids = {event.step: Image.open(io.BytesIO(event.encoded_image_string)) for event in read.Images("samples")}
    assert sorted(grids) == [0, 4, 8, 9]
    for step, grid in grids.items():
        with Image.open(run / "samples" / f"step-{step:08d}.png") as drawn:
            np.testing.assert_array_equal(np.asarray(grid), np.asarray(drawn.convert("RGB")))

    client, (only,) = mlflow_runs()
    assert only.info.status == "FINISHED"
    assert only.info.run_name == "r"
    parameters = only.data.params
    assert (parameters["optimizer.lr"], parameters["penalty.0.every"], parameters["loss.name"]) == ("0.001", "3", "bce")
    artifacts = Path(client.download_artifacts(only.info.run_id, "", dst_path=str(run.parent / ".")))
    assert (artifacts / "experiment.toml").read_text() == toml
    kept = {path.name: path.read_bytes() for path in (artifacts / "samples").iterdir()}
    assert kept == {path.name: path.read_bytes() for path in (run / "samples").iterdir()}

    with (run / "scores.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    score = read_records(run / "metrics.jsonl")[-1]
    assert (last["better"], float(last["floor"])) == ("lower", score["floor"]["value"])


def without_times(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMED} for row in csv.DictReader(stream)]


@pytest.mark.extended
@pytest.mark.kill
def test_killed_and_resumed_twice(tracked: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """In steps 7 and 9: steps 5 and 6 are logged again, once, and nothing up to the checkpoint is missing."""
    file = write(tracked)
    whole = Child(Command("run", file, "--out", "whole"), tmp_path / "log")
    assert whole.ended() == 0, whole.said
    for resume, updates in ((), 6), (("--resume",), 8), (("--resume",), None):
        before = AtUpdate(updates) if updates else None
        child = Child(Command("run", file, "--out", "r", *resume, before=before), tmp_path / "log-r")
        assert child.ended() == (-signal.SIGKILL if updates else 0), child.said
        if updates:  # what was told before the kill is there, to the last tick
            assert read_records(Path("r/log.jsonl"))[-1]["step"] == (6 if not resume else 8)
            for name, reader in READERS.items():
                assert_equal(reader(Path("r")), recorded(Path("r")), single=name == "tensorboard")
    assert "plugin" not in child.said
    assert_same_run(Path("whole"), Path("r"))
    assert [resumed["step"] for resumed in read_info(Path("r"))["resumed"]] == [4, 8]
    for name, reader in READERS.items():
        assert_equal(reader(Path("r")), recorded(Path("r")), single=name == "tensorboard")
    for table in ("ticks.csv", "scores.csv"):
        assert without_times(Path("r", table)) == without_times(Path("whole", table))
    assert sorted(event.step for event in events(Path("r")).Images("samples")) == [0, 4, 8, 9]
    statuses = {found.info.run_name: found.info.status for found in mlflow_runs()[1]}
    assert statuses == {"whole": "FINISHED", "r": "FINISHED"}, "the runs that were killed are deleted"


@pytest.mark.extended
@pytest.mark.kill
def test_a_table_killed_at_every_write(tracked: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """Half of a row, half of a table drawn anew, before and after its renaming: resumed, it is as one left alone."""
    tracked["tracker"] = [{"name": "csv"}]
    tracked["train"] |= {"steps": 5, "checkpoint_every": 2}
    file, notes = write(tracked), tmp_path / "notes"
    assert Child(Command("run", file, "--out", "first"), tmp_path / "log").ended() == 0  # fills the cache
    whole = Child(Command("run", file, "--out", "whole", before=AtFileOperation(notes)), tmp_path / "log")
    assert whole.ended() == 0, whole.said
    operations = notes.read_text().splitlines()
    points = [number for number, line in enumerate(operations) if ".csv" in line]
    assert {operations[number] for number in points} >= {"write ticks.csv", "write scores.csv"}
    assert sum("replace" in operations[number] for number in points) >= 3, "drawn at the start, and for a new column"
    for number in points[1::3]:
        out = f"r{number}"
        before = AtFileOperation(tmp_path / f"notes-{out}", number)
        child = Child(Command("run", file, "--out", out, before=before), tmp_path / f"log-{out}")
        assert child.ended() == -signal.SIGKILL, child.said
        again = Child(Command("run", file, "--out", out, "--resume"), tmp_path / f"log-{out}")
        assert again.ended() == 0, again.said
        for table in ("ticks.csv", "scores.csv"):
            assert without_times(Path(out, table)) == without_times(Path("whole", table)), operations[number]
        assert [path.name for path in Path(out).glob(".*")] in ([".lock"], [])


FULL = """
import resource
from ganlab import hookimpl

def limit(most): resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

@hookimpl
def tick_finished(run, record):
    if record["step"] == 2 and "TRACKER" == "csv":
        (run.path / "ticks.csv").unlink()
        (run.path / "ticks.csv").symlink_to("/dev/full")
    elif record["step"] == 2:  # what the run itself writes meanwhile is smaller
        (file,) = (run.path / "tensorboard").iterdir() if "TRACKER" == "tensorboard" else [run.path / "../mlflow.db"]
        limit(min(file.stat().st_size + 40, 20_000))
    if record["step"] == 4:
        limit(resource.RLIM_INFINITY)
"""


@pytest.mark.parametrize(
    "name", ["csv", "tensorboard", pytest.param("mlflow", marks=[pytest.mark.extended, pytest.mark.slow])]
)
def test_a_full_disk_ends_the_tracker_and_not_the_run(
    name: str, tracked: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    (tmp_path / "full.py").write_text(FULL.replace("TRACKER", name))
    tracked |= {"plugins": ["full.py"], "tracker": [{"name": name}]}
    tracked["train"] |= {"sample_every": 0, "checkpoint_every": 5}
    tracked["metric"] = []
    child = Child(Command("run", write(tracked), "--out", "r"), tmp_path / "log")
    assert child.ended() == 0, child.said
    said = [line for line in child.said.splitlines() if "not called again" in line]
    assert len(said) == 1, child.said
    assert f"tracker {name!r}, log: " in said[0]
    assert any(words in said[0] for words in ("No space left", "File too large", "disk")), said[0]
    assert "Traceback" not in child.said
    info = read_info(Path("r"))
    assert (info["status"], len(info["plugin_failures"])) == ("finished", 1)
    assert len(read_records(Path("r/log.jsonl"))) == 9


def add_a_row_that_does_not_fit(folder: Path) -> None:
    run = RunFolder(folder)
    tables = CSV().build(run)
    records = [{"step": step, "images_seen": step * 16} for step in (1, 2)]
    tables.log(records[0])
    before = (folder / "ticks.csv").read_bytes()
    saboteur.small_files(len(before) + 3)
    with pytest.raises(OSError, match="File too large"):
        tables.log(records[1])
    assert before == (folder / "ticks.csv").read_bytes() == b"step,images_seen\n1,16\n"


def test_a_row_that_a_full_disk_cuts_short_is_taken_back(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            add_a_row_that_does_not_fit(tmp_path)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_is_not_finite_and_alarms(tmp_path: Path) -> None:
    """Of a run that diverges: written when it happens, and again from the records, where they are texts."""
    run = RunFolder(tmp_path, {"name": "tiny", "started": "now", "status": "running"})
    run.experiment_file.write_text('name = "tiny"\n')
    first = {"step": 1, "loss_generator": math.inf, "alarms": ["the samples have collapsed", 'a, "b"']}
    second = {"step": 2, "loss_generator": math.nan, "sample_spread": 0.5}
    trackers = [config.build(run) for config in (CSV(), TensorBoard(), MLflow())]
    for record in (first, second):
        run.append("log.jsonl", record)
        for tracker in trackers:
            tracker.log(record)
    drawn = (tmp_path / "ticks.csv").read_bytes()
    for _ in range(2):
        rows = list(csv.DictReader((tmp_path / "ticks.csv").read_text().splitlines()))
        assert rows[0]["alarms"] == 'the samples have collapsed; a, "b"'
        assert [(row["loss_generator"], row["sample_spread"]) for row in rows] == [("inf", ""), ("nan", "0.5")]
        (alarm,) = events(tmp_path).Tensors("alarms/text_summary")
        assert (alarm.step, alarm.tensor_proto.string_val) == (1, [b'the samples have collapsed; a, "b"'])
        for name in ("tensorboard", "mlflow"):
            assert repr(READERS[name](tmp_path)["train/loss_generator"]) in (
                "[(1, inf), (2, nan)]",
                "[(1, 1.7976931348623157e+308), (2, nan)]",  # as far as a database goes
            )
        for tracker in trackers:
            tracker.close()
        run.info["resumed"] = [{"at": "now", "step": 2}]
        trackers = [config.build(run) for config in (CSV(), TensorBoard(), MLflow())]
        assert (tmp_path / "ticks.csv").read_bytes() == drawn


def test_a_tracker_may_be_added_and_dropped_on_resume(
    tracked: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """It changes no bit; a table that comes late begins at the first step too."""
    tracked["tracker"] = [{"name": "tensorboard"}]
    assert ganlab("run", write(tracked), "--out", "r")[0] == 0
    tracked["tracker"], tracked["train"]["steps"] = [{"name": "csv"}], 10
    code, _, err = ganlab("run", write(tracked), "--out", "r", "--resume")
    assert (code, err) == (0, "")
    assert_equal(in_csv(Path("r")), recorded(Path("r")))
    assert [step for step, _ in in_csv(Path("r"))["train/d_real"]] == list(range(1, 11))
    other = write(tracked | {"tracker": [], "seed": 1}, "other.toml")
    assert ganlab("run", other, "--out", "s")[0] == 0
    code, out, err = ganlab("compare", "r", "s", "--json")
    assert code == 0, err
    assert out.count('"variant"') == 1, "a variant with two seeds"


def test_event_files_that_come_late_begin_at_the_first_step_too(tmp_path: Path) -> None:
    """Then once: the next resume adds what its own step may lack."""
    run = RunFolder(tmp_path, {"name": "tiny", "status": "running", "resumed": [{"at": "now", "step": 3}]})
    run.experiment_file.write_text('name = "tiny"\n')
    for step in (1, 2, 3):
        run.append("log.jsonl", {"step": step, "loss_generator": float(step)})
    run.samples.mkdir()
    for step in (0, 3):
        Image.new("L", (2, 2)).save(run.sample_file(step))
    for _ in range(2):
        TensorBoard().build(run)
        assert in_tensorboard(tmp_path)["train/loss_generator"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
        assert [image.step for image in events(tmp_path).Images("samples")] == [0, 3]


def test_the_time_of_a_resume_grows_with_the_records_and_not_with_their_square() -> None:
    """Each record is looked at a few times, and logged in the order of the steps."""
    looks: list[str] = []

    class Record(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            looks.append(key)
            return super().__getitem__(key)

    ticks = [Record(step=step, loss_generator=1.0) for step in range(1, 101)]
    scores = [Record(step=step, name="fid", value=1.0) for step in (0, 50)]
    logged: list[int] = []
    client = SimpleNamespace(log=lambda values, step: logged.append(step))
    run: Any = SimpleNamespace(ticks=lambda: ticks, scores=lambda: scores, sample_grids=lambda: {100: Path("g.png")})
    LoggedRun(SimpleNamespace(Image=str), client).begin(run, 20)
    assert logged == sorted([*range(20, 101), 50, 100])
    assert len(looks) < 5 * (len(ticks) + len(scores))


@pytest.mark.parametrize(
    ("name", "package"),
    [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_a_missing_package_is_told_with_the_command_that_gets_it(
    name: str, package: str, tracked: dict[str, Any], write: Write, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.startswith((package, "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", math.inf)  # on a busy machine a line of progress would come first
    tracked["tracker"] = [{"name": "csv"}, {"name": name}]
    for more in (["--dry-run"], ["--out", "r"]):
        code, out, err = ganlab("run", write(tracked), *more)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert "tracker[1]: it needs " in err
        assert f"pip install 'ganlab[{name}]'" in err
    assert not Path("r").exists()


def test_no_tracker_imports_its_package_before_it_is_used() -> None:
    code = (
        "import sys; from ganlab_plugins.trackers import csv, mlflow, tensorboard, wandb_trackio;"
        "names = ('torch', 'tensorboard', 'mlflow', 'sqlalchemy', 'alembic', 'wandb', 'trackio');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.extended
@pytest.mark.slow
def test_nothing_leaves_the_machine(tracked: dict[str, Any], write: Write, tmp_path: Path) -> None:
    child = Child(Command("run", write(tracked), "--out", "r", before=saboteur.cut_off), tmp_path / "log")
    assert child.ended() == 0, child.said
    assert "connection" not in child.said
    assert "plugin_failures" not in read_info(Path("r"))


@pytest.mark.extended
@pytest.mark.slow
def test_runs_that_start_at_once_share_a_new_database(tracked: dict[str, Any], write: Write, tmp_path: Path) -> None:
    tracked["tracker"] = [{"name": "mlflow", "file": "deep/all.db"}]
    tracked["metric"] = []
    file = write(tracked)
    children = [Child(Command("run", file, "--out", f"r{n}"), tmp_path / f"log{n}") for n in range(3)]
    assert [child.ended() for child in children] == [0, 0, 0], [child.said for child in children]
    client = MlflowClient(f"sqlite:///{Path('deep/all.db').resolve()}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert {each.info.run_name for each in found} == {"r0", "r1", "r2"}
    assert {each.data.metrics["train/images_seen"] for each in found} == {144.0}
