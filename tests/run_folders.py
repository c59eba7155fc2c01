"""Run folders held against each other: what must be bitwise equal, and what is only timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints

TIMED = ("images_per_second", "seconds")

HELD = {"status": "interrupted", "name": "r", "seed": 0, "step": 0, "images": {}, "total_steps": 1, "device": "cpu"}
"""The least that run.json holds."""


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the latest checkpoint: networks, average, optimisers, random states."""
    path = list(list_checkpoints(run / "checkpoints").values())[-1]
    return {f"{file.stem}.{name}": t for file in path.glob("*.safetensors") for name, t in load_file(file).items()}


def records(run: Path, file: str = "log.jsonl") -> list[dict[str, Any]]:
    return [{key: value for key, value in r.items() if key not in TIMED} for r in read_records(run / file)]


def assert_same_bits(first: Path, second: Path) -> None:
    """Equal tensors in the latest checkpoints."""
    one, two = tensors(first), tensors(second)
    assert one.keys() == two.keys()
    assert len(one) > 20
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different, f"{second} differs from {first} in {different}"


def assert_same_run(first: Path, second: Path, checkpoints: bool = True) -> None:
    """Both finished, with equal tensors, records, scores and sample grids; and checkpoints of the same steps."""
    assert_same_bits(first, second)
    assert [read_info(run)["status"] for run in (first, second)] == ["finished", "finished"]
    for file in ("log.jsonl", "metrics.jsonl"):
        assert records(first, file) == records(second, file), file
    grids = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (first, second)]
    assert grids[0] == grids[1]
    kept = [list(list_checkpoints(run / "checkpoints")) for run in (first, second)]
    assert kept[0] == kept[1] or not checkpoints
