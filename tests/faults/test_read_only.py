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
    assert {row["variant"] for row in made["rows"]} == {"tiny", "tiny at step 4"}
    assert {row["verdict"] for row in made["rows"]} == {"baseline", "cannot tell"}
    out = ganlab("compare", run, "scores.json", "--html", "page.html", "--csv", "table.csv")[1]
    assert "checkpoints of runs, scored by `ganlab eval --out`: tiny at step 4 (scores.json)" in out
    assert "is not recorded" not in out
    assert "tiny at step 4" in Path("page.html").read_text()
    run_of = json.loads(Path("scores.json").read_text())[0]["run"]
    assert {key: run_of[key] for key in ("name", "variant", "seed", "step")} == {
        "name": "tiny",
        "variant": "tiny",
        "seed": 0,
        "step": 4,
    }


def test_a_file_of_scores_stands_for_a_run_that_has_none(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    """Two seeds of one experiment without a metric share a row; another experiment of that name does not."""
    score = ("--set", "metric=[{name='fid', samples=16, features='pixels'}]")
    for out, *more in (["r0"], ["r1", "--set", "seed=1"], ["other", "--set", "seed=2", "--set", "loss=hinge"]):
        assert ganlab("run", write(table), "--out", out, *more)[0] == 0
        assert ganlab("eval", out, *score, "--out", f"{out}.json")[0] == 0
    assert not read_records(Path("r0/metrics.jsonl"))
    code, out, err = ganlab("compare", "r0", "r1", "r0.json", "r1.json", "--json")
    assert (code, err) == (0, "")
    ((row,),) = (made["rows"] for made in json.loads(out))
    assert (row["variant"], row["finished"], row["paths"]) == ("tiny at step 4", 2, ["r0.json", "r1.json"])
    code, _, err = ganlab("compare", "r0.json", "other.json")
    assert code == 2
    assert "r0.json and other.json: score runs of different experiments called 'tiny'" in err
    assert ganlab("eval", "other", *score, "--out", "r0.json")[0] == 0
    Path("r2.json").write_text(Path("r0.json").read_text().replace('"seed": 2', '"seed": 0'))
    code, _, err = ganlab("compare", "r0", "r2.json")
    assert code == 2
    assert "r2.json: scores a run 'tiny' of another experiment than that in r0" in err


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_a_file_of_scores_of_a_sweeps_run_has_its_variant(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    write(table)
    Path("s.toml").write_text('base = "tiny.toml"\n[variants.a]\n[variants.b]\nloss.name = "hinge"\n')
    assert ganlab("sweep", "s.toml", "--out", "s")[0] == 0
    score = ("--metric", "fid", "--set", "metric=[{name='fid', samples=16, features='pixels'}]")
    for variant in ("a", "b"):
        assert ganlab("eval", f"s/{variant}/seed-0", *score, "--out", f"{variant}.json")[0] == 0
    code, out, err = ganlab("compare", "s", "a.json", "b.json", "--json")
    assert (code, err) == (0, "")
    assert {row["variant"] for row in json.loads(out)[0]["rows"]} == {"a at step 4", "b at step 4"}


@pytest.mark.parametrize("wrong", ['{"run": 1}', '{"run": {"variant": "a"}}'])
def test_a_damaged_file_of_scores_is_refused(run: Path, ganlab: Ganlab, wrong: str) -> None:
    assert ganlab("eval", run, "--out", "scores.json")[0] == 0
    (record,) = json.loads(Path("scores.json").read_text())
    Path("wrong.json").write_text(json.dumps([record | json.loads(wrong)]))
    code, _, err = ganlab("compare", "wrong.json")
    assert (code, err.count("\n")) == (2, 1)
    assert "wrong.json: expected the list of records that" in err
    Path("two.json").write_text(json.dumps([record, record | {"run": record["run"] | {"seed": 1}}]))
    code, _, err = ganlab("compare", "two.json")
    assert (code, err) == (2, "two.json: holds scores of more than one run; compare a file for each\n")


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
