"""Every metric in a run from the command line, with features that are trained on its data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

FEATURES = {"name": "classifier", "updates": 10, "dim": 8}
METRICS = [
    {"name": "fid", "samples": 64, "infinity": True},
    {"name": "kid", "samples": 64, "subsets": 3, "subset_size": 32},
    {"name": "precision_recall", "samples": 64},
    {"name": "inception_score", "samples": 64},
    {"name": "mode_coverage", "samples": 64},
]
VALUES = {
    *("fid", "fid_infinity", "kid", "kid_std", "precision", "recall", "density", "coverage"),
    *("inception_score", "inception_score_std"),
    *("modes", "mode_kl"),
}


def test_every_value_is_recorded_with_its_protocol(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    table["metric"] = [{**metric, "features": FEATURES} for metric in METRICS]
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    records = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert {record["name"] for record in records} == VALUES
    for record in records:
        assert math.isfinite(record["value"])
        assert record["protocol"]["generated"] == 64
        assert record["protocol"]["features"]["name"] == "classifier"
        assert (record["better"] is None) == record["name"].endswith("_std")


def test_points_are_trained_on_scored_and_drawn(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    table["dataset"] = {"name": "ring", "count": 640}
    names = ("mode_coverage", "fid", "kid", "precision_recall", "inception_score")
    table["metric"] = [{"name": name, "samples": 64, "features": "pixels"} for name in names]
    table["metric"][2] |= {"subsets": 3, "subset_size": 32}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    records = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    last = {record["name"]: float(record["value"]) for record in records if record["step"] == 4}
    assert last.keys() == VALUES - {"fid_infinity"} | {"high_quality"}
    assert all(math.isfinite(value) for name, value in last.items() if name != "mode_kl")
    assert (last["modes"] == 0) == math.isnan(last["mode_kl"])
    assert ganlab("eval", "r", "--metric", "fid")[0] == 0
    for out in ("points.png", "points.npz"):
        assert ganlab("sample", "r", "--out", out)[0] == 0
    code, _, err = ganlab("sample", "r", "--out", "folder")
    assert code == 2
    assert "--out folder: a PNG file cannot hold images of 2 channels; use FILE.npz" in " ".join(err.split())
    assert not (tmp_path / "folder").exists()


def test_what_cannot_be_scored_is_refused_before_the_folder_is_made(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    table["metric"] = [{"name": "precision_recall", "samples": 10_000, "features": FEATURES}]
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 2
    assert "has 1500 images for 10000 generated ones" in " ".join(err.split())
    assert not (tmp_path / "r").exists()
