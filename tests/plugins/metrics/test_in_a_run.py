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
]
VALUES = {
    *("fid", "fid_infinity", "kid", "kid_std", "precision", "recall", "density", "coverage"),
    *("inception_score", "inception_score_std"),
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


def test_what_cannot_be_scored_is_refused_before_the_folder_is_made(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    table["metric"] = [{"name": "precision_recall", "samples": 10_000, "features": FEATURES}]
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 2
    assert "has 1500 images for 10000 generated ones" in " ".join(err.split())
    assert not (tmp_path / "r").exists()
