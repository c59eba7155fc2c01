"""Runs that one may only read: of another user, on a read-only disk, or still training."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saboteur
from children import Child, Command
from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
METRIC = {"name": "fid", "samples": 16, "features": {"name": "classifier", "updates": 20}}


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    table["metric"] = [METRIC]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    return Path("r")


def test_scores_of_a_run_that_another_process_writes_to(run: Path, ganlab: Ganlab) -> None:
    records = read_records(run / "metrics.jsonl")
    writer = RunFolder(run)
    writer.lock()
    try:
        code, out, err = ganlab("eval", run)
        assert (code, out) == (2, "")
        assert err == (
            "r: another process is writing to this run; with --out FILE the scores are written there and the run is "
            "only read\n"
        )
        assert ganlab("eval", run, "--out", "scores.json")[0] == 0
    finally:
        writer.unlock()
    assert read_records(run / "metrics.jsonl") == records
    (found,) = json.loads(Path("scores.json").read_text())
    assert (found["name"], found["step"], found["value"]) == ("fid", 4, records[-1]["value"])
    assert found["protocol"] == records[-1]["protocol"]


def test_a_file_of_scores_is_compared_with_runs(run: Path, ganlab: Ganlab) -> None:
    assert ganlab("eval", run, "--out", "scores.json")[0] == 0
    code, out, err = ganlab("compare", run, "scores.json", "--json")
    assert (code, err) == (0, "")
    (made,) = json.loads(out)
    assert len({row["final"]["mean"] for row in made["rows"]}) == 1


@pytest.fixture
def others(run: Path) -> Path:
    """A run that belongs to another user, and that all may read."""
    for item in [run, *run.rglob("*")]:
        item.chmod(0o755 if item.is_dir() else 0o644)
        os.chown(item, 12345, 12345)
    return run


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.getuid() != 0, reason="only root can give files away")
def test_another_users_run(others: Path, tmp_path: Path) -> None:
    before = sorted(others.rglob("*"))

    def said(*arguments: object, code: int = 0) -> str:
        child = Child(Command(*arguments, before=saboteur.no_capabilities), tmp_path / f"{arguments[0]}{code}.log")
        assert child.ended() == code, child.said
        return child.said

    assert said("eval", others, code=2) == (
        "r: cannot be written to: Permission denied; with --out FILE the scores are written there and the run is only "
        "read\n"
    )
    said("eval", others, "--out", "scores.json")
    said("sample", others, "--out", "samples.png")
    said("report", others, "--html", "r.html")
    said("compare", others)
    assert sorted(others.rglob("*")) == before
