"""Stale caches: content that changes under equal names, lengths and modification times; labels that change alone."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import define

from ganlab import ComponentError, ImageDataset, MappedImages, Places, Scores
from ganlab.evaluation.evaluator import Evaluator
from ganlab.plugin.loader import load_plugins
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import save

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def fill(path: Path, value: int) -> None:
    """An image filled with a value, written at time 0; BMP, so that equal sizes are equal lengths."""
    save(path, np.full((4, 4, 3), value, np.uint8))
    os.utime(path, ns=(0, 0))


def written_over(folder: Path, root: Path) -> None:
    fill(folder / "1.bmp", 9)


def renamed_into_place(folder: Path, root: Path) -> None:
    fill(root / "other.bmp", 9)
    (root / "other.bmp").replace(folder / "1.bmp")


def unpacked(folder: Path, root: Path) -> None:
    fill(root / "1.bmp", 9)
    with tarfile.open(root / "images.tar", "w") as archive:
        archive.add(root / "1.bmp", "1.bmp")
    with tarfile.open(root / "images.tar") as archive:
        archive.extractall(folder, filter="data")


def swapped(folder: Path, root: Path) -> None:
    """Two files, neither of which was written to."""
    fill(root / "1.bmp", 9)
    folder.rename(root / "first")
    folder.mkdir()
    (root / "first" / "0.bmp").rename(folder / "0.bmp")
    (root / "1.bmp").rename(folder / "1.bmp")


@pytest.mark.parametrize("replace", [written_over, renamed_into_place, unpacked, swapped])
def test_an_image_replaced_by_another_of_equal_name_length_and_time(
    replace: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    folder, places = tmp_path / "set", Places(tmp_path, tmp_path / "cache")
    for number in range(2):
        fill(folder / f"{number}.bmp", number)
    before = ImageFolder("set", size=4).build(places, "train")
    old = (folder / "1.bmp").stat()
    replace(folder, tmp_path)
    new = (folder / "1.bmp").stat()
    assert (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
    after = ImageFolder("set", size=4).build(places, "train")
    assert after.images[:, 0, 0, 0].tolist() == [0, 9]
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("files", ["parquet", "images"])
def test_files_of_the_hubs_formats(files: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from ganlab_plugins.datasets.huggingface import HuggingFace

    places = Places(tmp_path, tmp_path / "cache")
    lengths = set()
    for value in (3, 9):
        file = tmp_path / "set" / "train" / "0.bmp"
        fill(file, value)
        if files == "parquet":
            content = {"image": [{"bytes": file.read_bytes(), "path": None}] * 2}
            table = datasets.Dataset.from_dict(content, datasets.Features(image=datasets.Image()))
            file = tmp_path / "tables" / "train.parquet"
            table.to_parquet(str(file))
            os.utime(file, ns=(0, 0))
        lengths.add(file.stat().st_size)
        found = HuggingFace("tables" if files == "parquet" else "set", size=4).build(places, "train")
        assert found.images[:, 0, 0, 0].unique().tolist() == [value]
    assert len(lengths) == 1
    (kept,) = (tmp_path / "huggingface" / "local").iterdir()
    assert len(list(kept.iterdir())) == 1, "what was prepared from earlier files is removed"


def labelled(root: Path) -> Path:
    folder = root / "set"
    for number, name in enumerate(["a/0", "a/1", "b/2", "b/3"]):
        fill(folder / f"{name}.bmp", number)
    return folder


def test_a_file_moved_to_another_class_has_its_label(tmp_path: Path) -> None:
    """The pixels and their order are as before, and so is their fingerprint."""
    folder, places = labelled(tmp_path), Places(tmp_path, tmp_path / "cache")
    before = ImageFolder("set", size=4).build(places, "train")
    (folder / "a" / "1.bmp").rename(folder / "b" / "1.bmp")
    after = ImageFolder("set", size=4).build(places, "train")
    assert before.fingerprint == after.fingerprint
    assert before.condition is not None
    assert after.condition is not None
    assert (before.condition.tolist(), after.condition.tolist()) == ([0, 0, 1, 1], [0, 1, 1, 1])


def test_a_run_is_not_resumed_on_other_labels(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    folder = labelled(tmp_path)
    table["dataset"] = {"name": "image_folder", "path": str(folder), "size": 4}
    table["train"]["batch_size"] = 4
    assert ganlab("run", write(table), "--out", tmp_path / "r")[0] == 0
    (folder / "a" / "1.bmp").rename(folder / "b" / "1.bmp")
    more = ("--out", tmp_path / "r", "--resume", "--set", f"train.steps={table['train']['steps'] + 1}")
    code, _, said = ganlab("run", write(table), *more)
    assert code == 2
    assert f"{tmp_path / 'r'}: dataset.condition_sha256: was " in said.splitlines()[0]
    info = json.loads((tmp_path / "r" / "run.json").read_text())
    del info["dataset"]["condition_sha256"]  # as a run has it that began before this was recorded
    (tmp_path / "r" / "run.json").write_text(json.dumps(info))
    assert ganlab("run", write(table), *more)[0] == 0


@define(eq=False)
class Labels:
    """The mean label of the images that are scored."""

    every: int = 0

    def evaluate(self, evaluation: Any) -> Scores:
        labels = [label for _, label in evaluation.conditioned(4, 0) if label is not None]
        value = float(torch.cat(labels).double().mean()) if labels else 0.0
        return Scores({"label": value}, {"metric": "label", "reference": {"split": "train"}}, {"label": "lower"}, {})


@define
class Labelled:
    """Images of which only the labels of the test split differ."""

    label: int

    def build(self, places: Places, split: str) -> ImageDataset:
        if split not in ("train", "test"):
            raise ComponentError("no such split")
        value = self.label if split == "test" else 0
        return ImageDataset(torch.zeros(4, 3, 4, 4, dtype=torch.uint8), "labelled", split, torch.full((4,), value))


def test_a_floor_is_one_of_the_labels_too(tmp_path: Path) -> None:
    for label in (1, 2, 1):
        evaluator = Evaluator(Labelled(label), None, Places(tmp_path, tmp_path / "cache"), torch.device("cpu"))
        (score,) = evaluator.for_images(torch.zeros(4, 3, 4, 4, dtype=torch.uint8)).score(Labels())
        assert score["floor"]["value"] == label
    assert len(list((tmp_path / "cache" / "floor").glob("*.safetensors"))) == 2


def test_a_plugin_file_replaced_by_another_of_equal_length_and_time(tmp_path: Path) -> None:
    """Python's bytecode cache would give the old code."""
    file = tmp_path / "plugin.py"
    for name in ("one", "two"):
        file.write_text(
            "import attrs\nimport ganlab\nfrom ganlab_plugins.datasets.digits import Digits\n\n"
            "@ganlab.hookimpl\ndef register_datasets(register):\n"
            f"    register('own_{name}', attrs.make_class('Own', [], bases=(Digits,), frozen=True))\n"
        )
        os.utime(file, (1_000_000_000, 1_000_000_000))
        known = [component.name for component in load_plugins([file]).registry.of_kind("dataset")]
        assert [found for found in known if found.startswith("own_")] == [f"own_{name}"]


def test_images_in_the_cache_are_hashed_each_time(tmp_path: Path) -> None:
    """What lies in the cache itself may have changed too."""
    folder, places = tmp_path / "set", Places(tmp_path, tmp_path / "cache")
    fill(folder / "0.bmp", 7)
    ImageFolder("set", size=4).build(places, "train")
    (stored,) = (tmp_path / "cache" / "decoded").glob("*.npy")
    times, content = stored.stat(), bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))
    images = ImageFolder("set", size=4).build(places, "train").images
    assert isinstance(images, MappedImages)
    assert images.unique().tolist() == [7]
