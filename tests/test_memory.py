"""What lies in memory during a run, counted tensor by tensor: the images on the device, and that it does not grow.

Against what run.json says, and against the bytes that the pretend device has and has been given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import memory_watch
import noise_data
from children import Child, Command
from ganlab import ImageDataset, MappedImages
from ganlab.data.game_loader import GameLoader
from pretend_runs import look_at_images
from pretend_work import needs_pretend, on_pretend
from step_cases import as_files, changed
from stubs import CPU

COUNT = 4000
IMAGE_BYTES = COUNT * 3 * 16 * 16
RESIDENT = IMAGE_BYTES + 8 * COUNT
"""With the labels, which are int64."""


@pytest.fixture
def large(table: dict[str, Any]) -> dict[str, Any]:
    """Images that are much larger than the networks."""
    dataset = {"name": "noise", "size": 16, "count": COUNT}
    return changed(table, plugins=[noise_data.__file__], dataset=dataset, discriminator={"dropout": 0.0})


@needs_pretend
def test_the_device_holds_the_images_once_as_run_json_says(large: dict[str, Any], tmp_path: Path) -> None:
    found = on_pretend(look_at_images, tmp_path, as_files({"run": large}, tmp_path)["run"])
    assert found["run_json"] == {"dataset": RESIDENT}
    order = 8 * COUNT
    assert RESIDENT <= found["held"] - found["networks"] < RESIDENT + order + 0.05 * RESIDENT
    assert RESIDENT <= found["copied"] - found["networks"] < RESIDENT + order + 0.05 * RESIDENT
    assert found["copied_in_steps"] == 0, "but for the order of an epoch"


def test_all_data_sets_of_a_game_together_keep_to_the_limit(tmp_path: Path) -> None:
    images = torch.zeros(100, 3, 8, 8, dtype=torch.uint8)
    np.save(tmp_path / "images.npy", images.numpy())
    data = [ImageDataset(MappedImages.open(tmp_path / "images.npy"), name) for name in ("one", "two", "three")]

    def resident(limit: float | None) -> dict[str, int]:
        loader = GameLoader.of(data[0], {"two": data[1], "three": data[2]}, 10, 0, CPU, limit)
        loader.close()
        return loader.resident_bytes

    size = images.nbytes
    assert resident(None) == {"dataset": size, "two": size, "three": size}
    assert resident(2 * size / 1e9) == {"dataset": size, "two": size, "three": 0}
    assert resident(1.5 * size / 1e9) == {"dataset": size, "two": 0, "three": 0}
    assert resident(0) == {"dataset": 0, "two": 0, "three": 0}


SCORES = 200


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("pretend", marks=needs_pretend)])
def test_memory_does_not_grow_over_two_hundred_evaluations(device: str, table: dict[str, Any], tmp_path: Path) -> None:
    metric = {"name": "fid", "every": 1, "samples": 16, "features": "pixels"}
    train = {"steps": SCORES, "log_every": 50, "sample_every": 50, "checkpoint_every": 50, "ema": 0.9}
    table = changed(table, plugins=[memory_watch.__file__], metric=[metric], train=train)
    file = as_files({"run": table}, tmp_path)["run"]
    child = Child(Command("run", file, "--device", device, "--out", "r"), tmp_path / "log")
    assert child.ended(300) == 0, child.said
    growth = memory_watch.growth(Path("r"))
    assert growth["scores"] >= SCORES - 2 * memory_watch.EVERY
    assert (growth["tensors"], growth["cpu_bytes"], growth["device_bytes"]) == (0, 0, 0)
    assert growth["resident_set"] < 20 * 2**20
