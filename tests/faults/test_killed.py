"""Runs that are killed by SIGKILL, held against one that was left alone: bitwise identical, wherever it happened.

Records are compared too, without their times.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from children import Child, Command
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from run_folders import assert_same_run
from saboteur import AtFileOperation, AtUpdate

Write = Callable[..., Path]
CLASSIFIER = {"name": "classifier", "updates": 20}
pytestmark = pytest.mark.kill


@pytest.fixture
def saving(table: dict[str, Any]) -> dict[str, Any]:
    """Four steps, each with a tick, a grid and a save of everything that there is to save; two scores."""
    table["train"] |= {"log_every": 1, "sample_every": 2, "checkpoint_every": 1, "checkpoint_keep": 2, "ema": 0.9}
    table["penalty"] = [{"name": "l2_generator", "weight": 0.01, "every": 2}]
    table["metric"] = [{"name": "fid", "every": 2, "samples": 16, "features": CLASSIFIER}]
    return table


@pytest.mark.extended
def test_killed_at_every_write_flush_and_rename(saving: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """Of a save, and of every other kind of file that a run writes; after each rename too, not only before."""
    file, notes = write(saving), tmp_path / "notes"
    # What is costly lies in the cache after a first run, so that all others do the same operations.
    assert Child(Command("run", file, "--out", "first"), tmp_path / "log").ended() == 0
    whole = Child(Command("run", file, "--out", "whole", before=AtFileOperation(notes)), tmp_path / "log")
    assert whole.ended() == 0, whole.said
    operations = notes.read_text().splitlines()
    assert {line.split()[0] for line in operations} == {"write", "fsync", "rename", "replace"}
    assert sum("safetensors" in line for line in operations) >= 16
    # Of what is done several times the second is taken, when there is something to lose.
    places: dict[str, list[int]] = {}
    for number, line in enumerate(operations):
        places.setdefault(re.sub(r"\d{3,}|\.\w{8}$", "", line), []).append(number)
    points = [(numbers[:2][-1], False) for numbers in places.values()]
    points += [(number, True) for number, _ in points if operations[number].startswith("re")]
    resumed = 0
    for number, after in points:
        out = f"r{number}{'after' if after else ''}"
        child = Child(
            Command("run", file, "--out", out, before=AtFileOperation(tmp_path / f"notes-{out}", number, after)),
            tmp_path / f"log-{out}",
        )
        assert child.ended() == -signal.SIGKILL, (operations[number], child.said)
        again = Child(Command("run", file, "--out", out, "--resume"), tmp_path / f"log-{out}")
        # A run that died before it had a run.json has nothing to resume: the same command as before starts it.
        assert again.ended() == 0, (operations[number], again.said)
        resumed += "resuming" in again.said
        assert_same_run(Path("whole"), Path(out), checkpoints=False)  # a score more may be known to what keeps the best
        left = [path for path in Path(out).rglob(".*") if path.name != ".lock"]
        assert not left, f"after {operations[number]} these are left: {left}"
    assert resumed > len(points) / 2


@pytest.mark.extended
def test_killed_at_random(saving: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """Five times, at a time drawn anew, always the same run; it must get to its end."""
    saving["train"] |= {"steps": 400, "checkpoint_every": 10, "log_every": 5, "sample_every": 50}
    saving["metric"][0]["every"] = 100
    file, generator = write(saving), random.Random(0)
    whole = Child(Command("run", file, "--out", "whole"), tmp_path / "log")
    started = time.monotonic()
    assert whole.ended() == 0, whole.said
    seconds = time.monotonic() - started
    kills, tries = 0, 0
    while kills < 5:
        tries += 1
        out = f"r{tries}"
        while True:
            child = Child(Command("run", file, "--out", out, "--resume"), tmp_path / f"log-{out}")
            child.process.join(generator.uniform(0.2, max(0.5, 0.8 * seconds)))
            if child.process.exitcode is not None:
                break
            child.process.kill()
            if child.ended() == 0:  # it was quicker
                break
            assert child.ended() == -signal.SIGKILL
            kills += 1
        assert child.ended() == 0, child.said
        assert_same_run(Path("whole"), Path(out), checkpoints=False)  # a score more may be known to what keeps the best


@pytest.mark.parametrize(
    ("updates", "where"),
    [
        (3, "epoch's middle"),
        pytest.param(4, "epoch's end", marks=pytest.mark.extended),
        pytest.param(5, "epoch's start", marks=pytest.mark.extended),
    ],
)
def test_killed_in_a_step(updates: int, where: str, table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """Between the two updates of a step; an epoch is five steps, and the checkpoint is two or three steps old."""
    table["train"] |= {"batch_size": 256, "steps": 9, "checkpoint_every": 2 if updates == 3 else 3}
    file = write(table)
    assert Child(Command("run", file, "--out", "whole"), tmp_path / "log").ended() == 0
    child = Child(Command("run", file, "--out", "r", before=AtUpdate(updates)), tmp_path / "log")
    assert child.ended() == -signal.SIGKILL
    assert read_info(Path("r"))["status"] == "running"
    saved = list_checkpoints(Path("r/checkpoints"))
    assert max(saved) == (2 if updates == 3 else 3)
    assert torch.is_tensor(load_checkpoint(saved[max(saved)])["random"]["torch"])
    again = Child(Command("run", file, "--out", "r", "--resume"), tmp_path / "log")
    assert again.ended() == 0, again.said
    assert_same_run(Path("whole"), Path("r"))
