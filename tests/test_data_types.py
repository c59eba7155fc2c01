"""Data and conditions of types that are not supported: refused with one line, never scaled or truncated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganlab import ComponentError, ImageDataset, features_of, to_float, to_uint8
from ganlab.data.loader import BatchLoader, copy_to_device
from ganlab.data.prefetch import Prefetcher
from ganlab.viz.image_grid import image_grid
from stubs import CPU

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

BYTES = "torch.zeros(40, 1, 8, 8, dtype=torch.uint8)"

PLUGIN = """
import ganlab, numpy, torch
from attrs import field, frozen

@frozen
class Given:
    images: str
    condition: str = "None"
    test_images: str = ""
    def build(self, places, split):
        images = eval(self.test_images) if split == "test" and self.test_images else eval(self.images)
        return Data(images, eval(self.condition), split)

class Data:
    name, fingerprint = "given", "0"
    def __init__(self, images, condition, split):
        self.images, self.condition, self.split = images, condition, split

@frozen
class Own:
    images: str
    condition: str = "None"
    def build(self, places, split): return ganlab.ImageDataset(eval(self.images), "own", split, eval(self.condition))

@ganlab.hookimpl
def register_datasets(register):
    register("given", Given)
    register("own", Own)
"""

IMAGES = {
    "torch.linspace(0, 1, 2560).view(40, 1, 8, 8).double()": (
        "float64 (40, 1, 8, 8) from 0 to 1",
        "; .float() converts them",
    ),
    "torch.zeros(40, 1, 8, 8).half()": ("float16 (40, 1, 8, 8) from 0 to 0", "; .float() converts them"),
    "torch.zeros(40, 1, 8, 8, dtype=torch.int16) + 300": (
        "int16 (40, 1, 8, 8) from 300 to 300",
        "; .to(torch.uint16) makes pixels of them, .float() values that are never scaled",
    ),
    "torch.zeros(40, 1, 8, 8, dtype=torch.int32) + 255": ("int32 (40, 1, 8, 8) from 255 to 255", "; .to(torch.uint8)"),
    "torch.zeros(40, 1, 8, 8, dtype=torch.int64) - 1": ("int64 (40, 1, 8, 8) from -1 to -1", "; .float() converts"),
    "torch.zeros(40, 1, 8, 8, dtype=torch.uint32)": ("uint32 (40, 1, 8, 8) from 0 to 0", "; .to(torch.uint8)"),
    "torch.zeros(40, 1, 8, 8, dtype=torch.bool)": ("bool (40, 1, 8, 8)", "; .float() makes 0 and 1 of them"),
    "torch.zeros(40, 16, dtype=torch.complex64)": ("complex64 (40, 16)", "; .real and .imag are float"),
    "torch.zeros(40, dtype=torch.uint8)": ("uint8 (40,) from 0 to 0", "rows of a table (N, D)"),
    "torch.zeros(40, 1, 2, 8, 8)": ("float32 (40, 1, 2, 8, 8) from 0 to 0", "rows of a table (N, D)"),
    "numpy.zeros((40, 1, 8, 8), numpy.uint8)": ("numpy.ndarray", "; torch.from_numpy"),
}

NOT_FINITE = {
    "torch.zeros(40, 3).index_fill(0, torch.tensor([7]), float('nan'))": "float32 (40, 3) with values that are NaN",
    "torch.zeros(40, 1, 8).index_fill(0, torch.tensor([7]), float('inf'))": "images: float32 (40, 1, 8) with values",
}

CONDITIONS = {
    "torch.linspace(0, 1, 200).view(40, 5).double()": "float64 (40, 5) from 0 to 1",
    "torch.linspace(0, 1, 40)": "float32 (40,) from 0 to 1",
    "torch.arange(40.0) % 3": "[:, None] makes an attribute of each number",
    "torch.arange(40) % 2 == 0": "bool (40,); wanted class labels, int64 (N,), images, uint8 or uint16 (N, C, H, W)",
    "torch.arange(40, dtype=torch.int32) % 3": ".long() converts them",
    "torch.arange(40, dtype=torch.uint8) % 3": ".long() converts them",
    "torch.eye(4, dtype=torch.int64).repeat(10, 1)": ".argmax(1) makes class labels of what is one-hot",
    "torch.eye(4, dtype=torch.uint8).repeat(10, 1)": ".argmax(1) makes class labels of what is one-hot",
    "torch.arange(200).view(40, 5) % 9": "int64 (40, 5) from 0 to 8; wanted",
    "torch.arange(30)": "condition: 30 entries for 40 images; wanted one for each",
    "torch.zeros(39, 1, 8, 8, dtype=torch.uint8)": "condition: 39 entries for 40 images",
    "torch.zeros(40, 8, 8, dtype=torch.uint16)": "uint16 (40, 8, 8) from 0 to 0; wanted",
    "torch.arange(40) - 1": "condition: class labels from -1; wanted them from 0",
    "torch.tensor(3)": "int64 () from 3 to 3; wanted",
    "[0, 1] * 20": "builtins.list; wanted",
    "{}": "condition: a mapping without a tensor; wanted None",
    "{'a b': torch.zeros(40, 2)}": "condition: the name 'a b'; wanted letters, digits and _",
    "{'a': torch.zeros(40, 2), 'b': None}": "condition 'b': None; wanted a tensor",
    "{'a': torch.zeros(40, 2), 'b': torch.arange(30)}": "condition 'b': 30 entries for 40 images",
}


@pytest.fixture
def given(table: dict[str, Any], write: Write, tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment on a data set with these images and conditions, given as the text of an expression."""
    (tmp_path / "given.py").write_text(PLUGIN)

    def experiment(name: str = "given", **options: str) -> Path:
        return write(table | {"plugins": ["given.py"], "dataset": {"name": name, **options}})

    return experiment


def refused(result: tuple[int, str, str], line: str) -> None:
    code, out, err = result
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "tiny.toml: dataset: " in err
    assert line in err
    assert "Traceback" not in out + err
    assert not Path("r").exists()


def test_images_of_another_type_are_refused(given: Callable[..., Path], ganlab: Command) -> None:
    for images, (line, advice) in IMAGES.items():
        for name in ("given", "own"):
            result = ganlab("run", given(name, images=images), "--out", "r")
            refused(result, f"split 'train': images: {line}")
            assert "wanted uint8, uint16 or float32" in result[2]
            assert advice in result[2]


def test_data_on_another_device_are_refused(given: Callable[..., Path], ganlab: Command) -> None:
    images = "torch.zeros(40, 1, 8, 8, dtype=torch.uint8, device='meta')"
    for name in ("given", "own"):
        refused(ganlab("run", given(name, images=images), "--out", "r"), "images: on meta; wanted on the CPU")
    condition = "torch.zeros(40, 2, device='meta')"
    line = "condition: on meta; wanted on the CPU"
    refused(ganlab("run", given(images=BYTES, condition=condition), "--out", "r"), line)


def test_values_that_are_not_finite_are_refused(given: Callable[..., Path], ganlab: Command) -> None:
    for images, line in NOT_FINITE.items():
        refused(ganlab("run", given(images=images), "--out", "r"), line)
    attributes = "torch.full((40, 2), float('nan'))"
    line = "condition: float32 (40, 2) with values that are NaN"
    refused(ganlab("run", given(images=BYTES, condition=attributes), "--out", "r"), line)
    line = "condition.a: float32 (40, 2) with values that are NaN"
    refused(ganlab("run", given(images=BYTES, condition=f"{{'a': {attributes}}}"), "--out", "r"), line)


@pytest.mark.parametrize("name", ["given", "own"])
def test_conditions_of_another_type_are_refused(name: str, given: Callable[..., Path], ganlab: Command) -> None:
    for condition, line in CONDITIONS.items():
        result = ganlab("run", given(name, images=BYTES, condition=condition), "--out", "r")
        refused(result, line)
        assert f"{name!r}, split 'train': condition" in result[2]


def test_every_command_refuses_them(given: Callable[..., Path], ganlab: Command, tmp_path: Path) -> None:
    file = given(images=BYTES, condition="torch.rand(40)")
    refused(ganlab("run", file, "--dry-run"), "condition: float32 (40,)")
    code, _, err = ganlab("bench", file, "--seconds", 1)
    assert code == 2
    assert "condition: float32 (40,)" in err
    np.savez(tmp_path / "own.npz", images=np.zeros((40, 8, 8, 1), np.uint8))
    against = ("--against", "given", "--plugin", "given.py", "--features", "pixels")
    code, _, err = ganlab("score", "own.npz", *against, "--set", "dataset.images=torch.zeros(40, 9).double()")
    assert code == 2
    assert "split 'train': images: float64 (40, 9)" in err


def test_a_test_split_of_another_type_is_named(
    table: dict[str, Any], given: Callable[..., Path], ganlab: Command
) -> None:
    """A score that is held against it fails; a floor that would be computed from it is left out, with a warning.

    Data of this type would do in a data set whose training split has them too.
    """
    table["metric"] = [{"name": "fid", "samples": 20, "features": "pixels"}]
    noise = "torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)"
    file = given(images=noise, test_images=f"({noise}).float()")
    code, _, err = ganlab("run", file, "--out", "plain", "--set", "train.steps=1")
    assert code == 0
    assert err.startswith(
        "warning: fid: no floor from real images: the data set 'given', split 'test': images: float32"
    )
    code, _, err = ganlab("run", file, "--out", "r", "--set", "metric.0.split=test")
    assert code == 2
    assert "split 'test': images: float32 (40, 1, 8, 8) from 0 to 255; those of the split 'train' are uint8" in err


def test_class_labels_and_images_are_taken() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    for condition in (
        torch.tensor([0, 2, 1, 0]),
        images[:, :, :4, :4],
        torch.zeros(4, 3, 16, 8, dtype=torch.uint8),
        torch.rand(4, 2),
    ):
        assert ImageDataset(images, "x", condition=condition).condition is condition


def test_floats_are_never_changed_in_place() -> None:
    pixels = torch.rand(2, 1, 4, 4)
    before = pixels.clone()
    with pytest.raises(
        TypeError, match=r"to_float converts pixels of type uint8, 0 to 255, and uint16; got torch.float32"
    ):
        to_float(pixels)
    with pytest.raises(TypeError, match=r"to_float .* got torch.int64"):
        to_float(pixels.long())
    with pytest.raises(TypeError, match=r"to_uint8 converts float pixels in \[-1, 1\]; got torch.uint8"):
        to_uint8(pixels.byte())
    with pytest.raises(TypeError, match="a grid is of images of type uint8"):
        image_grid(pixels)
    assert to_uint8(pixels.double()).dtype == torch.uint8
    assert torch.equal(pixels, before)


def test_features_are_of_bytes_only() -> None:
    class Mean:
        name, dim = "mean", 1

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean((1, 2, 3))[:, None]

    images = torch.full((2, 1, 4, 4), 200, dtype=torch.uint8)
    assert features_of(Mean(), images).tolist() == [[200], [200]]
    with pytest.raises(ComponentError, match="features are of uint8 images, 0 to 255; got "):
        features_of(Mean(), to_float(images))


def test_no_buffer_truncates() -> None:
    """Float data were once rounded to bytes where they were made resident."""
    pixels = torch.rand(8, 1, 4, 4)
    assert torch.equal(copy_to_device(pixels, CPU), pixels)
    prefetcher = Prefetcher([pixels], 4, CPU)
    assert torch.equal(prefetcher.batch(0, lambda number: torch.arange(4) + 4 * number)[0], pixels[:4])
    prefetcher.close()
    assert torch.equal(BatchLoader(pixels, 4, 0, CPU).batch(0).images, pixels[BatchLoader(pixels, 4, 0, CPU).index(0)])
