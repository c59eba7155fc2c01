"""A pickle that runs code, in the place of every file that may be untrusted: refused or recomputed, and never run."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.lib import format as npy
from PIL import Image

from ganlab import ComponentError, Places
from ganlab.utils.cache import cached_tensors
from ganlab.utils.hashing import sha256
from ganlab_plugins.datasets._decoded_cache import decode_files
from ganlab_plugins.datasets.cifar10 import CIFAR10
from image_files import noise, save
from pickles import Malicious, live_pickle
from tiers import spread

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    """The file that is made where a pickle was read."""
    return tmp_path / "touched"


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> Path:
    table["train"]["checkpoint_every"] = 0
    assert ganlab("run", write(table), "--out", tmp_path / "r")[0] == 0
    return tmp_path / "r"


def is_one_line(said: str) -> bool:
    return len(said.splitlines()) == 1 and "Traceback" not in said


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", spread(1, [0, 5]))
def test_no_file_of_a_checkpoint_is_unpickled(protocol: int, run: Path, ganlab: Command, touched: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    good = run.with_name("good")
    shutil.copytree(checkpoint, good)
    names = sorted(path.name for path in good.iterdir())
    assert "manifest.json" in names
    for name in names:
        shutil.rmtree(checkpoint)
        shutil.copytree(good, checkpoint)
        content = live_pickle(touched, protocol)
        (checkpoint / name).write_bytes(content)
        if name != "manifest.json":
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            manifest["sha256"][name] = sha256(content)
            (checkpoint / "manifest.json").write_text(json.dumps(manifest))
        used = ("generator.safetensors", "state.json", "manifest.json")
        code, _, said = ganlab("sample", run, "--count", 4, "--out", "x.png")
        assert code == (2 if name in used else 0), (name, said)
        assert is_one_line(said) or name not in used
        code, _, said = ganlab("run", run / "experiment.toml", "--out", run, "--resume", "--set", "train.steps=6")
        assert code == 2
        assert f"{checkpoint}: not a " in said
        assert "Traceback" not in said
        assert not touched.exists(), name


# Caches ---------------------------------------------------------------------------------------------------------------


def test_kept_tensors_are_not_unpickled(tmp_path: Path, touched: Path) -> None:
    def kept() -> list[float]:
        return cached_tensors(tmp_path, "x", {"a": 1}, lambda: {"t": torch.arange(3.0)})["t"].tolist()

    kept()
    (path,) = tmp_path.glob("*.safetensors")
    for content in (live_pickle(touched, 0), live_pickle(touched)):
        path.write_bytes(content)
        path.with_suffix(".json").write_text(json.dumps({"key": {"a": 1}, "sha256": sha256(content)}))
        assert kept() == [0, 1, 2]
        path.with_suffix(".json").write_bytes(content)
        assert kept() == [0, 1, 2]
    assert not touched.exists()


def test_decoded_images_are_not_unpickled(tmp_path: Path, touched: Path) -> None:
    Image.fromarray(np.full((2, 2, 3), 7, np.uint8)).save(tmp_path / "a.png")

    def read() -> list[int]:
        return decode_files(tmp_path, ["a.png"], size=2, cache=tmp_path)[:, 0, 0, 0].tolist()

    read()
    (path,) = (tmp_path / "decoded").glob("*.npy")
    objects = np.full((1, 3, 2, 2), None, dtype=object)
    objects[0, 0, 0, 0] = Malicious(touched)
    with path.open("wb") as stream:
        npy.write_array(stream, objects, (1, 0), allow_pickle=True)
    np.load(path, allow_pickle=True)
    assert touched.exists(), "the file is a live one"
    touched.unlink()
    for content in (path.read_bytes(), live_pickle(touched), b"\x93NUMPY\x01\x00" + live_pickle(touched, 0)):
        path.write_bytes(content)
        assert read() == [7]
        path.with_suffix(".json").write_bytes(content)
        assert read() == [7]
    assert not touched.exists()


# What is given to a command -------------------------------------------------------------------------------------------


def objects(touched: Path) -> np.ndarray:
    array = np.empty((3, 8, 8, 1), dtype=object)
    array[0, 0, 0, 0] = Malicious(touched)
    return array


def as_npz(path: Path, touched: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, images=objects(touched))


def as_npy(path: Path, touched: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, objects(touched), allow_pickle=True)


def as_zip_of_a_pickle(path: Path, touched: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", live_pickle(touched))


def as_pickle(path: Path, touched: Path) -> None:
    path.write_bytes(live_pickle(touched, 2))


@pytest.mark.parametrize("form", [as_npz, as_npy, as_zip_of_a_pickle, as_pickle])
@pytest.mark.parametrize("name", ["given.npz", "given.npy"])
def test_given_arrays_are_not_unpickled(
    name: str, form: Callable[[Path, Path], None], ganlab: Command, tmp_path: Path, touched: Path
) -> None:
    form(tmp_path / name, touched)
    code, _, said = ganlab("score", tmp_path / name, "--against", "digits", "--features", "classifier")
    assert code == 2
    assert is_one_line(said)
    assert name in said
    assert not touched.exists()


NETWORKS = {
    "inception": [],
    "timm": ["--set", "features.model=test_vit"],
    "dinov2": ["--set", "features.size=small"],
}


def as_state(path: Path, touched: Path) -> None:
    torch.save({"weight": Malicious(touched)}, path)


def as_old_state(path: Path, touched: Path) -> None:
    torch.save({"weight": Malicious(touched)}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("features", NETWORKS)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_are_not_unpickled(features: str, name: str, ganlab: Command, tmp_path: Path, touched: Path) -> None:
    if features != "inception":
        pytest.importorskip("timm")
    for number in range(2):
        save(tmp_path / "images" / f"{number}.png")
    for form in (as_state, as_old_state, as_pickle):
        form(tmp_path / name, touched)
        code, _, said = ganlab(
            *("score", tmp_path / "images", "--against", tmp_path / "images", "--no-floor"),
            *("--features", features, "--set", f"features.weights={tmp_path / name}", *NETWORKS[features]),
        )
        assert code == 2, said
        assert is_one_line(said)
        assert name in said
        assert not touched.exists()


# Published data -------------------------------------------------------------------------------------------------------


def test_cifar10_batches_that_are_not_the_published_ones_are_not_unpickled(
    tmp_path: Path, touched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are pickles, which torchvision reads once their MD5 is found to be right."""

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", no_network)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(live_pickle(touched, 2))
    for split in ("train", "test"):
        with pytest.raises(ComponentError, match="cifar10: could not be downloaded"):
            CIFAR10().build(Places(tmp_path / "data", tmp_path / "cache"), split)
    assert not touched.exists()


def test_an_image_that_is_a_pickle_is_refused(ganlab: Command, tmp_path: Path, touched: Path) -> None:
    save(tmp_path / "images" / "0.png", noise(8, 8, 3))
    (tmp_path / "images" / "1.png").write_bytes(live_pickle(touched))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, _, said = ganlab("score", tmp_path / "images", "--against", tmp_path / "images")
    assert code == 2
    assert "1.png: cannot be read as an image" in said
    assert not touched.exists()


def test_the_pickle_is_a_live_one(touched: Path) -> None:
    pickle.loads(live_pickle(touched))  # noqa: S301 - that is the point
    assert touched.exists()
