"""`ganlab sample` held against `load_run(…).sample`: the same pixels in a folder, an array and a grid, of any count.

What is counted: flushes to disk, images that are generated again, memory. Which class an image is of is compared with
the folders of images that the run was trained on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from child_work import note_peak
from children import Child, Command
from ganlab import load_run
from ganlab.cli import main
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.run import sample_images
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.run.sample_files import ABOUT, SampleFolder, file_names_of_classes
from ganlab.utils.errors import UserError
from image_files import save

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    return Path("r")


@pytest.fixture
def named(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    """A run whose networks look at the class, on a folder of three classes."""
    for label, name in enumerate(("ant", "bee", "white horse")):
        for index in range(8):
            save(Path("set") / name / f"{index}.png", np.full((8, 8, 3), 40 + 80 * label + index, np.uint8))
    table["dataset"] = {"name": "image_folder", "path": str(Path("set").absolute()), "size": 8}
    table["generator"] = {"name": "conditional", "network": table["generator"]}
    table["discriminator"] = {"name": "conditional", "network": table["discriminator"]}
    table["train"]["batch_size"] = 8
    code, _, err = ganlab("run", write(table), "--out", "named")
    assert code == 0, err
    return Path("named")


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The flushes to disk of this process."""
    counted: list[int] = []
    monkeypatch.setattr(os, "fsync", counted.append)
    return counted


def test_three_hundred_pictures_are_not_flushed_one_by_one(run: Path, ganlab: Ganlab, flushes: list[int]) -> None:
    expected = load_run(run).sample(300, seed=3)[:, 0].numpy()
    assert ganlab("sample", run, "--count", 300, "--seed", 3, "--out", "d")[0] == 0
    assert len(flushes) <= 4, "what the samples are, its folder, and the folder of the pictures"
    found = pixels(Path("d"))
    assert [*found] == [f"{index:05}.png" for index in range(300)]
    assert np.array_equal(np.stack([*found.values()]), expected)
    flushes.clear()
    assert ganlab("sample", run, "--count", 300, "--seed", 3, "--out", "d.npz")[0] == 0
    assert len(flushes) <= 2
    with np.load("d.npz") as arrays:
        assert [*arrays] == ["images"]
        assert np.array_equal(arrays["images"][..., 0], expected)


@pytest.mark.parametrize("options", [[], ["--interpolate"]])
def test_a_larger_count_begins_with_the_same(run: Path, ganlab: Ganlab, options: list[str]) -> None:
    for count in (5, 300):
        assert ganlab("sample", run, "--count", count, "--out", f"{count}.npz", *options)[0] == 0
    with np.load("5.npz") as few, np.load("300.npz") as many:
        assert many["images"].shape == (300, 8, 8, 1)
        # A batch of another size may round a level otherwise.
        assert abs(few["images"].astype(int) - many["images"][:5]).max() <= 1


def test_a_folder_is_gone_on_with(run: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone, cut off or has a flipped bit is made again; whole batches that are there are not."""
    command = ("sample", run, "--count", 500, "--out", "d")
    assert ganlab(*command)[0] == 0
    before = {path: path.read_bytes() for path in Path("d").glob("*.png")}
    Path("d/00130.png").unlink()
    Path("d/00131.png").write_bytes(before[Path("d/00131.png")][:-9])
    Path("d/00132.png").write_bytes(b"")
    flipped = bytearray(before[Path("d/00200.png")])
    flipped[45] ^= 1
    Path("d/00200.png").write_bytes(flipped)
    made: list[int] = []
    original = sample_images._generate

    def counted(network: Any, device: Any, z: torch.Tensor, condition: Any) -> torch.Tensor:
        made.append(len(z))
        return original(network, device, z, condition)

    monkeypatch.setattr(sample_images, "_generate", counted)
    code, out, _ = ganlab(*command)
    assert code == 0
    assert out.startswith("500 images, 496 of which were there, from plain weights at step 4: d")
    assert made == [128]
    assert {path: path.read_bytes() for path in Path("d").glob("*.png")} == before
    assert sorted(path.name for path in Path("d").iterdir() if path.suffix != ".png") == [ABOUT]


def test_an_interrupted_folder_is_gone_on_with(run: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ganlab("sample", run, "--count", 300, "--out", "whole")[0] == 0
    original, calls = sample_images._generate, []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sample_images, "_generate", interrupted)
        code, out, err = ganlab("sample", run, "--count", 300, "--out", "d")
    assert (code, out) == (75, "")
    assert err.splitlines()[-1] == "d: not all of 300 images are written; the same command goes on"
    assert 0 < len(pixels(Path("d"))) < 300
    for more, difference in (
        (["--seed", 1], "seed was 0, and is 1 now"),
        (["--step", 4, "--truncation", 0.5], "truncation was None, and is 0.5 now"),
    ):
        code, _, err = ganlab("sample", run, "--count", 300, "--out", "d", *more)
        assert code == 2
        assert f"--out d: holds other samples: {difference}; choose another folder" in " ".join(err.split())
    assert ganlab("sample", run, "--count", 300, "--out", "d")[0] == 0
    assert {name: image.tobytes() for name, image in pixels(Path("d")).items()} == {
        name: image.tobytes() for name, image in pixels(Path("whole")).items()
    }


def test_samples_of_given_latents_are_other_samples(tmp_path: Path) -> None:
    """The earlier folder depends on something that these samples do not."""
    (tmp_path / ABOUT).write_text(json.dumps({"seed": 0, "latents_sha256": "a1b2"}))
    assert SampleFolder(tmp_path, {"seed": 0, "latents_sha256": "a1b2"}, 3).is_begun()
    with pytest.raises(UserError, match="holds other samples: latents_sha256 was 'a1b2', and is None now"):
        SampleFolder(tmp_path, {"seed": 0}, 3).is_begun()


def test_weights_that_have_changed_are_other_samples(run: Path, ganlab: Ganlab) -> None:
    assert ganlab("sample", run, "--count", 3, "--step", 4, "--out", "d")[0] == 0
    note = json.loads(Path("d", ABOUT).read_text())
    Path("d", ABOUT).write_text(json.dumps(note | {"weights_sha256": "0"}))
    code, _, err = ganlab("sample", run, "--count", 3, "--out", "d")
    assert code == 2
    assert "holds other samples: weights_sha256" in err
    Path("d", ABOUT).write_text("damaged")
    code, _, err = ganlab("sample", run, "--count", 3, "--out", "d")
    assert (code, err.strip()) == (2, "--out d: a folder that is not empty; choose another")


def test_a_place_below_a_file_is_refused(run: Path, ganlab: Ganlab) -> None:
    Path("file").touch()
    for out in ("file/d", "file/d.npz", "file/d.png"):
        assert ganlab("sample", run, "--out", out) == (2, "", f"--out {out}: file is not a folder\n")


@pytest.mark.parametrize("out", ["d", "d.npz", "d.png"])
def test_what_does_not_fit_is_refused_at_once(run: Path, ganlab: Ganlab, out: str) -> None:
    began = time.monotonic()
    code, said, err = ganlab("sample", run, "--count", 10**16, "--out", out)
    assert time.monotonic() - began < 20
    assert (code, said) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"--count {10**16}: ")
    assert ("too many for one picture" if out == "d.png" else "bytes are free on its disk") in err
    assert not Path(out).exists()


def test_a_disk_that_becomes_full_is_said(run: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch) -> None:
    original, renamed = os.replace, []

    def replace(source: str, target: str) -> None:
        renamed.append(target)
        if str(target).endswith("00140.png"):
            raise OSError(28, "No space left on device")
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        code, _, err = ganlab("sample", run, "--count", 200, "--out", "d")
    assert code == 1
    assert "d/00140.png: " in err
    assert "No space left on device" in err
    assert not list(Path("d").glob(".*.part"))
    code, out, _ = ganlab("sample", run, "--count", 200, "--out", "d")
    assert code == 0
    assert "of which were there" in out
    assert len(pixels(Path("d"))) == 200


@pytest.mark.parametrize(
    "counts", [(500, 3000), pytest.param((5000, 50_000), marks=[pytest.mark.extended, pytest.mark.slow])]
)
@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_memory_does_not_depend_on_the_count(run: Path, counts: tuple[int, int], suffix: str) -> None:
    peaks = []
    for count in counts:
        command = Command("sample", run, "--count", count, "--out", f"{count}{suffix}")
        child = Child(partial(note_peak, command, f"{count}.peak"), Path(f"{count}.log"))
        assert child.ended(300) == 0, child.said
        peaks.append(int(Path(f"{count}.peak").read_text()))
    assert peaks[1] - peaks[0] < 12, peaks


def test_the_names_of_classes_are_recorded(named: Path, ganlab: Ganlab) -> None:
    assert read_info(named)["classes"] == ["ant", "bee", "white horse"]
    assert load_run(named).classes == ("ant", "bee", "white horse")


def test_a_class_by_name_and_by_number(named: Path, ganlab: Ganlab) -> None:
    for label, out in ((1, "1.npz"), ("bee", "name.npz")):
        code, said, err = ganlab("sample", named, "--label", label, "--count", 9, "--out", out)
        assert code == 0, err
        assert said.startswith("9 images of class 1 ('bee') from plain weights")
    with np.load("1.npz") as one, np.load("name.npz") as other:
        assert np.array_equal(one["images"], other["images"])
        assert other["labels"].tolist() == [1] * 9
        assert other["classes"].tolist() == ["ant", "bee", "white horse"]
    assert torch.equal(load_run(named).sample(9, label="bee"), load_run(named).sample(9, label=1))
    code, _, err = ganlab("sample", named, "--label", "whitehorse", "--out", "x.png")
    assert code == 2
    assert err.strip() == (
        "--label whitehorse: no class of this run has that name; the classes are 0 to 2 (ant, bee, white horse); "
        "did you mean 'white horse'?"
    )
    code, _, err = ganlab("sample", named, "--label", "zebra", "--out", "x.png")
    assert (code, err.strip()) == (
        2,
        "--label zebra: no class of this run has that name; the classes are 0 to 2 (ant, bee, white horse)",
    )
    code, _, err = ganlab("sample", named, "--label", "3", "--out", "x.png")
    assert (code, err.strip()) == (2, "--label 3: expected one of the 3 classes, 0 to 2 (ant, bee, white horse)")


def test_a_class_of_many_is_looked_for_among_the_nearest_names() -> None:
    names = [f"{kind} {number}" for kind in ("Zebra", "okapi", "tapir") for number in range(40)]
    conditions = ConditionSampler.counted([1] * len(names), names)
    with pytest.raises(UserError) as refused:
        conditions.label_of("ZEBRA 7x")
    said = str(refused.value)
    assert said.startswith(
        "--label ZEBRA 7x: no class of this run has that name; the classes are 0 to 119; did you mean "
    )
    assert said.count("'Zebra ") == 3
    assert "'Zebra 7'" in said
    with pytest.raises(UserError, match=r"--label 1e3: no class of this run has that name; the classes are 0 to 1$"):
        ConditionSampler.counted([1, 1]).label_of("1e3")


@pytest.mark.parametrize("label", [1.5, 1.0, True, None, [1], b"bee", float("nan"), torch.tensor([0, 1])])
def test_a_label_that_is_neither_a_name_nor_a_number_is_refused(label: Any) -> None:
    with pytest.raises(UserError, match=r"--label .*: expected a whole number"):
        ConditionSampler.counted([1, 1], ["ant", "bee"]).label_of(label)


@pytest.mark.parametrize("label", [np.int64(1), np.uint8(1), torch.tensor(1)])
def test_a_label_may_be_a_number_of_another_library(label: Any) -> None:
    assert ConditionSampler.counted([1, 1]).label_of(label) == 1


def test_names_that_are_numbers_come_before_numbers() -> None:
    """The folders 1, 10 and 2, in the order of their names: `--label 2` is the folder 2, as its name says."""
    conditions = ConditionSampler.counted([1, 1, 1], ["1", "10", "2"])
    assert [conditions.label_of(text) for text in ("1", "10", "2", "0")] == [0, 1, 2, 0]
    assert [conditions.label_of(number) for number in (0, 1, 2)] == [0, 1, 2]
    twice = ConditionSampler.counted([1, 1], ["a", "a"])
    with pytest.raises(UserError, match="--label a: the classes 0, 1 have this name; give a number"):
        twice.label_of("a")


def test_files_and_folders_name_the_class(named: Path, ganlab: Ganlab) -> None:
    images, labels = load_run(named).sample_with_condition(20)
    assert labels is not None
    names = [["ant", "bee", "white horse"][label] for label in labels]
    assert ganlab("sample", named, "--count", 20, "--out", "flat")[0] == 0
    found = pixels(Path("flat"))
    assert [*found] == [f"{index:05}-{name}.png" for index, name in enumerate(names)]
    assert np.array_equal(np.stack([*found.values()]), images.permute(0, 2, 3, 1).numpy())
    assert ganlab("sample", named, "--count", 20, "--by-class", "--out", "deep")[0] == 0
    assert sorted(pixels(Path("deep"))) == sorted(f"{name}/{index:05}.png" for index, name in enumerate(names))
    assert sorted(path.name for path in Path("deep").iterdir()) == [ABOUT, "ant", "bee", "white horse"]
    code, out, _ = ganlab("sample", named, "--count", 20, "--by-class", "--out", "deep")
    assert code == 0
    assert "20 of which were there" in out
    code, _, err = ganlab("sample", named, "--by-class", "--out", "d.npz")
    assert (code, err.strip()) == (2, "--by-class: makes a folder for each class; d.npz is a file")


def test_only_classes_with_images_have_folders(named: Path, ganlab: Ganlab) -> None:
    """Also where few images are drawn, and where a folder is gone on with whose pictures are gone."""

    def folders(out: str) -> list[str]:
        return sorted(path.name for path in Path(out).iterdir() if path.is_dir())

    command = ("sample", named, "--by-class", "--label", "white horse", "--count", 3, "--out", "one")
    assert ganlab(*command)[0] == 0
    assert folders("one") == ["white horse"]
    shutil.rmtree("one/white horse")
    assert ganlab(*command)[0] == 0
    assert sorted(pixels(Path("one"))) == [f"white horse/{index:05}.png" for index in range(3)]
    labels = load_run(named).sample_with_condition(2)[1]
    assert labels is not None
    assert ganlab("sample", named, "--by-class", "--count", 2, "--out", "few")[0] == 0
    assert folders("few") == sorted({("ant", "bee", "white horse")[label] for label in labels})
    assert ganlab("sample", named, "--by-class", "--interpolate", "--count", 8, "--out", "row")[0] == 0
    assert len(folders("row")) == 1
    code, out, _ = ganlab("sample", named, "--label", "bee", "--count", 1, "--out", "flat")
    assert code == 0
    assert out.startswith("1 image of class 1 ('bee') from")


def test_a_run_without_classes_has_no_folders_of_them(run: Path, ganlab: Ganlab) -> None:
    assert read_info(run)["classes"] is None
    code, _, err = ganlab("sample", run, "--by-class", "--out", "d")
    assert (code, err.strip()) == (2, "--by-class: the networks of this run know no classes")


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["zebra", "ant"], ["zebra", "ant"]),
        (["a/b", "../c", "d\0"], ["a_b", "_c", "d_"]),
        (["A", "a"], ["0-A", "1-a"]),
        (["", "x"], ["0", "1-x"]),
        (["..", "x"], ["0", "1-x"]),
        (["\udce9", "日本"], ["_", "日本"]),
        (["x" * 300, "y"], ["x" * 150, "y"]),
        ([], ["0", "1"]),
    ],
)
def test_any_name_of_a_class_becomes_a_file_name(names: list[str], files: list[str]) -> None:
    assert file_names_of_classes(len(files), names) == files
    for name in files:
        with contextlib.suppress(FileExistsError):
            Path(name).mkdir()


def test_a_hundred_classes_without_names_sort_by_number() -> None:
    assert file_names_of_classes(100, [])[:2] == ["00", "01"]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (9, "9 images (3 of each of 3 classes) from"),
        (10, "9 images (3 of each of 3 classes; 10 cannot be shared equally) from"),
        (2, "2 images (1 of each of the first 2 of 3 classes) from"),
        (1, "1 image of class 0 ('ant') from"),
    ],
)
def test_a_grid_says_how_many_images_it_has(named: Path, ganlab: Ganlab, count: int, said: str) -> None:
    code, out, _ = ganlab("sample", named, "--count", count, "--out", "x.png")
    assert code == 0
    assert out.startswith(said)


def test_a_score_of_a_class_names_it(named: Path, ganlab: Ganlab) -> None:
    metrics = 'metric=[{name="fid",samples=6,features="pixels"}]'
    code, out, err = ganlab("eval", named, "--per-class", "--set", metrics)
    assert code == 0, err
    records = {record["name"]: record for record in read_records(named / "metrics.jsonl")}
    assert records["fid[1]"]["protocol"]["class_name"] == "bee"
    assert records["fid[mean]"]["protocol"]["class_names"] == ["ant", "bee", "white horse"]
    assert "class_name" not in records["fid[mean]"]["protocol"]
    assert "of 'white horse'" in out
    assert main.call(["compare", str(named), "--metric", "fid[1]"]) == 0
