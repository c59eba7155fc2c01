"""Many processes that want one folder at the same time: one has it, the others say so, and nothing of it is theirs."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saboteur
from children import Child, Command
from ganlab.run.run_folder import read_info
from run_folders import assert_same_run

Write = Callable[..., Path]


def together(count: int, tmp_path: Path, *arguments: object) -> list[Child]:
    """So many processes that begin at the same moment."""
    wait = functools.partial(saboteur.wait_until, time.time() + 3)
    return [Child(Command(*arguments, before=wait), tmp_path / f"log-{number}") for number in range(count)]


@pytest.mark.extended
@pytest.mark.slow
def test_sixteen_runs_into_one_folder(table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    table["train"]["steps"] = 30
    file = write(table)
    assert Child(Command("run", file, "--out", "alone"), tmp_path / "log").ended() == 0
    children = together(16, tmp_path, "run", file, "--out", "r")
    codes = [child.ended() for child in children]
    assert sorted(codes) == [0, *[2] * 15], [child.said for child in children]
    for child, code in zip(children, codes, strict=True):
        if code == 2:
            assert re.fullmatch(
                r"r: another process is writing to this run\n"
                r"|--out r: holds an earlier run \(\w+\); go on with it by --resume, or choose another folder\n",
                child.said,
            ), child.said
    assert_same_run(Path("alone"), Path("r"))


@pytest.mark.extended
@pytest.mark.slow
def test_sixteen_times_the_same_run_resumed(table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    table["train"]["steps"] = 30
    file = write(table)
    assert Child(Command("run", file, "--out", "alone"), tmp_path / "log").ended() == 0
    assert Child(Command("run", file, "--out", "r", "--set", "train.steps=10"), tmp_path / "log").ended() == 0
    children = together(16, tmp_path, "run", file, "--out", "r", "--resume")
    codes = [child.ended() for child in children]
    trained = [child for child in children if "finished at step 30" in child.said and "already" not in child.said]
    assert len(trained) == 1
    assert set(codes) <= {0, 2}
    for child, code in zip(children, codes, strict=True):
        if code == 2:
            assert re.fullmatch(
                r"r: another process (is writing to this run|has gone on with this run meanwhile)\n", child.said
            ), child.said
    assert read_info(Path("r"))["step"] == 30


@pytest.mark.extended
@pytest.mark.slow
def test_runs_that_are_given_no_folder_each_get_one(table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """In the same second, so that their names would be the same."""
    children = together(8, tmp_path, "run", write(table))
    assert [child.ended() for child in children] == [0] * 8, [child.said for child in children]
    folders = list(Path("runs/tiny").iterdir())
    assert len(folders) == 8
    for folder in folders:
        assert_same_run(folders[0], folder)
