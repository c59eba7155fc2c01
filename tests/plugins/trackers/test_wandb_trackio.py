"""The trackers wandb and trackio, read back from wandb's offline file and trackio's database, held against the records.

wandb's file is read as its protocol buffers and its framing (a log of LevelDB) say; trackio's by its own functions.
"""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from children import Child, Command
from ganlab import RunFolder, numbers_of
from ganlab.run.records import read_records
from ganlab_plugins.trackers.wandb_trackio import Wandb, identity_of
from read_trackio import read_trackio
from saboteur import InEnvironment
from support import until

Write = Callable[..., Path]
Row = tuple[int, str, float]

pytestmark = [pytest.mark.extended, pytest.mark.slow]


def recorded(run: Path) -> set[Row]:
    """The values of the run's own records."""
    records = [record for file in ("log.jsonl", "metrics.jsonl") for record in read_records(run / file)]
    return {(record["step"], name, value) for record in records for name, value in numbers_of(record).items()}


def messages(file: Path) -> Iterator[bytes]:
    """The records of a log of LevelDB in blocks of 32 KiB, after wandb's 7 bytes: crc32, length, type, data."""
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):
            return  # it is being written
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def wandb_records(run: Path) -> list[Any]:
    """The records of a finished run: wandb's own process may still be writing the last ones when `finish` returns."""
    from wandb.proto import wandb_internal_pb2

    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    found: list[Any] = []

    def finished() -> bool:
        found[:] = [wandb_internal_pb2.Record.FromString(message) for message in messages(file)]
        return any(record.WhichOneof("record_type") == "exit" for record in found)

    until(finished)
    return found


def in_wandb(run: Path) -> tuple[set[Row], dict[int, str], dict[str, Any]]:
    """Values, paths of images and configuration in a run's only offline file."""
    rows: set[Row] = set()
    images: dict[int, str] = {}
    config: dict[str, Any] = {}
    for record in wandb_records(run):
        if record.WhichOneof("record_type") == "run":
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.WhichOneof("record_type") != "history":
            continue
        values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in values.items():
            if name == "samples.path":
                images[values["_step"]] = value
            elif name.startswith(("train/", "score/")):
                rows.add((values["_step"], name, float(value)))
    return rows, images, config


@pytest.fixture
def tracked(table: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Nine steps with a tick each, checkpoints and grids at 4 and 8."""
    table["train"] |= {"steps": 9, "log_every": 1, "sample_every": 4, "checkpoint_every": 4}
    table["tracker"] = ["wandb", "trackio"]
    return table


def test_killed_and_resumed_it_is_one_run_that_holds_the_records(
    tracked: dict[str, Any], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In step 7 of 9, after the checkpoint of step 4: steps 5 and 6 are in it once."""
    # wandb's own process, which earlier tests have started, would still have the killed run.
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    file, place = write(tracked), {"TRACKIO_DIR": str(tmp_path / "trackio")}

    for resume, code in ((), -signal.SIGKILL), (("--resume",), 0):
        child = Child(
            Command("run", file, "--out", "r", *resume, before=InEnvironment(place, None if resume else 6)),
            tmp_path / "log",
        )
        assert child.ended() == code, child.said
    assert "not called again" not in child.said
    assert "* " not in child.said, "what trackio prints"
    run, expected = Path("r"), recorded(Path("r"))
    assert {step for step, name, _ in expected if name == "train/loss_generator"} == set(range(1, 10))

    rows, images, config = in_wandb(run)
    assert rows == expected
    assert (config["optimizer"]["lr"], config["loss"]["name"]) == (0.001, "bce")
    assert sorted(images) == [0, 4, 8, 9]
    (folder,) = (run / "wandb").glob("offline-run-*")
    for step, path in images.items():
        with Image.open(folder / "files" / path) as logged, Image.open(grid(run, step)) as drawn:
            np.testing.assert_array_equal(np.asarray(logged.convert("RGB")), np.asarray(drawn.convert("RGB")))

    read = Child(partial(read_trackio, place, str(tmp_path / "read.json")), tmp_path / "log-read")
    assert read.ended() == 0, read.said
    (name,), logs, config = json.loads((tmp_path / "read.json").read_text())
    assert {(log["step"], key, log[key]) for log in logs for key in log if "/" in key} == expected
    assert len([log for log in logs if "train/loss_generator" in log]) == 9, "no step twice"
    assert (config["optimizer"]["lr"], config["run_folder"]) == (0.001, str(run.resolve()))
    shown = {log["step"]: log["samples"]["file_path"] for log in logs if "samples" in log}
    assert sorted(shown) == [0, 4, 8, 9]
    for step, path in shown.items():
        assert (tmp_path / "trackio" / "media" / path).read_bytes() == grid(run, step).read_bytes()
    assert len(list((tmp_path / "trackio").rglob("*.png"))) == 4
    assert name.startswith(tmp_path.name)


def grid(run: Path, step: int) -> Path:
    return run / "samples" / f"step-{step:08d}.png"


def test_online_without_a_key_is_offline_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run = RunFolder(tmp_path / "r", {"name": "tiny", "started": "now", "status": "running"})
    run.path.mkdir()
    run.experiment_file.write_text('name = "tiny"\n')
    with pytest.warns(UserWarning, match=r"^tracker wandb: no API key, so it is offline; `wandb login`, then "):
        tracker = Wandb(mode="online").build(run)
    tracker.log({"step": 3, "loss_generator": float("nan"), "alarms": ["one", "two"]})
    tracker.close()
    ((step, name, value),) = in_wandb(run.path)[0]
    assert (step, name) == (3, "train/loss_generator")
    assert np.isnan(value)
    assert identity_of(run)[0] == f"{tmp_path.name}-r"
