"""Data sets in the hub's formats, which the tests write by the package `datasets` itself, held against the same images
as files of an `image_folder`.

The hub is a local server that speaks as much of its protocol as the package needs, or there is none.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from ganlab import ComponentError, ImageDataset, Places
from ganlab_plugins.datasets import huggingface as plugin
from ganlab_plugins.datasets.huggingface import HuggingFace
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import RNG, noise
from pickles import live_pickle

datasets = pytest.importorskip("datasets")

CLASSES = ["cat", "dog", "eel"]


def pngs(count: int, height: int = 9, width: int = 8) -> list[bytes]:
    found = []
    for _ in range(count):
        stream = io.BytesIO()
        Image.fromarray(noise(height, width, 3)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def rows(files: list[bytes], labels: list[int] | None = None, **columns: Any) -> Any:
    features = {"picture": datasets.Image()}
    content: dict[str, Any] = {"picture": [{"bytes": file, "path": None} for file in files]}
    if labels is not None:
        features["kind"], content["kind"] = datasets.ClassLabel(names=CLASSES), labels
    for name, (feature, values) in columns.items():
        features[name], content[name] = feature, values
    return datasets.Dataset.from_dict(content, datasets.Features(features))


def write(folder: Path, how: str, **splits: Any) -> None:
    if how == "save_to_disk":
        datasets.DatasetDict(splits).save_to_disk(folder)
        return
    for name, part in splits.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def built(places: Places, split: str = "train", **options: Any) -> ImageDataset:
    return HuggingFace(**{"path": "set", "size": 8, **options}).build(places, split)


def as_files(places: Places, files: list[bytes], **options: Any) -> ImageDataset:
    folder = places.data / f"files-{RNG.integers(2**60)}"
    folder.mkdir()
    for index, file in enumerate(files):
        (folder / f"{index:04}.png").write_bytes(file)
    return ImageFolder(str(folder), **{"size": 8, **options}).build(places, "train")


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "uint16", "channels": 1, "range": [0.0, 60000.0], "clip": True, "size": (6, 8)},
        {"channels": 4, "size": (9, 6)},
        {"background": "#204080", "size": "original"},
    ],
    ids=str,
)
def test_values_are_those_of_an_image_folder(options: dict[str, Any], places: Places, folder: Path) -> None:
    """16 bits in a range, opacity kept, or laid on a colour; sizes of two numbers."""
    files = []
    for _ in range(3):
        stream = io.BytesIO()
        deep = Image.fromarray(RNG.integers(0, 65536, (9, 8), dtype=np.uint16))
        (deep if "dtype" in options else Image.fromarray(noise(9, 8, 4))).save(stream, "PNG")
        files.append(stream.getvalue())
    write(folder, "parquet", train=rows(files))
    found, wanted = built(places, **options).images, as_files(places, files, **options).images
    assert found.dtype == wanted.dtype
    assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_the_files_of_a_column_are_a_sequence_with_an_end() -> None:
    files = plugin._Files([{"picture": {"bytes": bytes([value])}} for value in range(3)], "picture", "set")
    assert [file.read() for file in itertools.islice(files, 9)] == [b"\0", b"\1", b"\2"]
    assert [files[index].read() for index in (-1, -3)] == [b"\2", b"\0"]
    for index in (3, -4):
        with pytest.raises(IndexError):
            files[index]


@pytest.mark.parametrize("how", ["save_to_disk", "parquet"])
def test_images_are_those_of_an_image_folder(how: str, places: Places, folder: Path) -> None:
    train, test = pngs(150), pngs(4)
    labels = [index % 3 for index in range(150)]
    write(folder, how, train=rows(train, labels), test=rows(test, [2, 2, 0, 1]))
    for options in ({"size": 8}, {"size": 5, "channels": 1}, {"size": "original"}):
        found = built(places, **options)
        assert np.array_equal(found.images.numpy(), as_files(places, train, **options).images.numpy())
    assert found.condition is not None
    assert found.condition.tolist() == labels
    assert found.classes == tuple(CLASSES)
    assert (found.name, found.split) == ("huggingface:set", "train")
    held_out = built(places, "test")
    assert np.array_equal(held_out.images.numpy(), as_files(places, test).images.numpy())
    assert held_out.condition is not None
    assert held_out.condition.tolist() == [2, 2, 0, 1]
    again = built(places)
    assert again.fingerprint == built(Places(places.data, places.data / "other cache")).fingerprint


@pytest.mark.parametrize("how", ["save_to_disk", "parquet"])
def test_a_folder_that_was_written_anew_is_read_anew(how: str, places: Places, folder: Path) -> None:
    for _ in range(2):
        files = pngs(5)
        write(folder, how, train=rows(files))
        assert np.array_equal(built(places).images.numpy(), as_files(places, files).images.numpy())


def test_image_files_in_folders_of_classes(places: Places, folder: Path) -> None:
    """Read by the package, and by an image folder."""
    for _ in range(2):  # the second time other pixels under the same names
        for split, name in (("train", "b/1"), ("train", "a/2"), ("train", "b/0"), ("test", "b/1")):
            path = folder / split / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pngs(1)[0])
        own = ImageFolder(str(folder / "train"), size=8).build(places, "train")
        found = built(places)
        assert np.array_equal(found.images.numpy(), own.images.numpy())
        assert found.condition is not None
        assert own.condition is not None
        assert found.condition.tolist() == own.condition.tolist()
        assert built(places, "test").classes == own.classes == ("a", "b")


def test_parts_of_a_split(places: Places, folder: Path) -> None:
    files = pngs(10)
    write(folder, "parquet", train=rows(files, [0] * 9 + [1]))
    parts = [built(places, split, train="train[:70%]", test="train[70%:]") for split in ("train", "test")]
    for part, wanted in zip(parts, (files[:7], files[7:]), strict=True):
        assert np.array_equal(part.images.numpy(), as_files(places, wanted).images.numpy())
    assert parts[1].condition is not None
    assert parts[1].condition.tolist() == [0, 0, 1]
    with pytest.raises(ComponentError, match='Unknown split "test"'):
        built(places, "test")
    with pytest.raises(ComponentError, match="no split 'valid'"):
        built(places, "valid")


def test_columns_are_found_or_named(places: Places, folder: Path) -> None:
    files, other = pngs(3), pngs(3)
    more = {
        "mask": (datasets.Image(), [{"bytes": file, "path": None} for file in other]),
        "fine": (datasets.ClassLabel(num_classes=9), [7, 8, 0]),
        "number": (datasets.Value("int32"), [3, 1, 2]),
        "text": (datasets.Value("string"), ["a", "b", "c"]),
    }
    write(folder, "save_to_disk", train=rows(files, [0, 1, -1], **more))
    with pytest.raises(ComponentError, match="image: there are several such columns, picture, mask; name one"):
        built(places)
    with pytest.raises(ComponentError, match="label: there are several such columns, kind, fine; name one"):
        built(places, image="mask")
    with pytest.raises(ComponentError, match=r"label: no column 'kinds'; there are picture \(Image\), kind"):
        built(places, image="mask", label="kinds")
    for name in ("text", "picture"):
        with pytest.raises(ComponentError, match=f"label: the column '{name}' has the wrong type"):
            built(places, image="mask", label=name)
    found = built(places, image="mask", label="fine")
    assert np.array_equal(found.images.numpy(), as_files(places, other).images.numpy())
    for label, wanted in (("fine", [7, 8, 0]), ("number", [3, 1, 2]), ("kind", None)):
        condition = built(places, image="picture", label=label).condition
        assert (None if condition is None else condition.tolist()) == wanted


def images_of(files: list[bytes]) -> tuple[Any, list[dict[str, Any]]]:
    return datasets.Image(), [{"bytes": file, "path": None} for file in files]


def test_two_columns_or_two_halves_are_pairs(places: Places, folder: Path) -> None:
    files, partners = pngs(3), pngs(3, 18, 16)
    write(folder, "parquet", train=rows(files, [0, 1, 2], edges=images_of(partners)))
    found = built(places, condition="edges", condition_channels=1)
    assert np.array_equal(found.images.numpy(), as_files(places, files).images.numpy())
    assert found.condition is not None
    assert np.array_equal(found.condition.numpy(), as_files(places, partners, channels=1).images.numpy())
    domains = [built(places, image=name).images for name in ("picture", "edges")]  # unpaired, for two data sets
    assert all(
        np.array_equal(np.asarray(domain), as_files(places, of).images.numpy())
        for domain, of in zip(domains, (files, partners), strict=True)
    )
    wide = pngs(2, 8, 16)
    write(places.data / "wide", "parquet", train=rows(wide))
    for half, other in (("left", "right"), ("right", "left")):
        pair = built(places, path="wide", half=half)
        assert pair.condition is not None
        assert torch.equal(pair.condition, built(places, path="wide", half=other).images[:])
        both = np.stack([np.array(Image.open(io.BytesIO(file))).transpose(2, 0, 1) for file in wide])
        assert np.array_equal(pair.images.numpy(), both[..., :8] if half == "left" else both[..., 8:])


def test_what_is_no_pair_is_refused(places: Places, folder: Path) -> None:
    write(folder, "parquet", train=rows(pngs(3), edges=images_of([*pngs(2), *pngs(1, 8, 16)])))
    line = r"set \(train\), picture: row 2 has 8x9 pixels and its condition set \(train\), edges: row 2 16x8; wanted"
    with pytest.raises(ComponentError, match=line):
        built(places, condition="edges")
    with pytest.raises(ComponentError, match="condition: the column 'edges' has the images"):
        built(places, image="edges", condition="edges")
    with pytest.raises(ComponentError, match="condition: no column 'edge'; there are picture"):
        built(places, condition="edge")
    with pytest.raises(ComponentError, match="8x9 pixels; wanted a picture of two images side by side"):
        built(places, image="picture", half="left")
    with pytest.raises(ValueError, match="half: is set, and condition too; set one of them"):
        built(places, half="left", condition="edges")
    missing = rows(pngs(2), edges=(datasets.Image(), [{"bytes": pngs(1)[0], "path": None}, None]))
    write(places.data / "missing", "parquet", train=missing)
    with pytest.raises(ComponentError, match=r"missing \(train\), edges: row 1: .*there is no image"):
        built(places, path="missing", condition="edges")


def test_what_cannot_be_read_is_named(places: Places, folder: Path) -> None:
    files = pngs(4)
    write(folder, "save_to_disk", train=rows([*files[:2], b"no image", files[3]]))
    with pytest.raises(ComponentError, match=r"^set \(train\): row 2: cannot be read as an image"):
        built(places)
    write(places.data / "sizes", "save_to_disk", train=rows([*files, *pngs(1, 7, 7)]))
    with pytest.raises(ComponentError, match=r"row 4: 7x7 pixels, but sizes \(train\): row 0 has 8x9"):
        built(places, path="sizes", size="original")
    write(places.data / "none", "save_to_disk", train=datasets.Dataset.from_dict({"x": [1]}))
    with pytest.raises(ComponentError, match=r"has no column of images; there are x \(Value\)"):
        built(places, path="none")
    with pytest.raises(ComponentError, match=r"there is no split 'test'; there are train"):
        built(places, "test")
    (places.data / "empty").mkdir()
    with pytest.raises(ComponentError, match="huggingface: empty: "):
        built(places, path="empty")
    with pytest.raises(ComponentError, match="path: 'nowhere': no such folder"):
        built(places, path="nowhere")


def test_nothing_of_a_data_set_is_run(places: Places, folder: Path, tmp_path: Path) -> None:
    """Neither a script, which older versions of the package ran, nor a pickle, nor what other builders read."""
    bomb = live_pickle(tmp_path / "executed")
    write(folder, "parquet", train=rows(pngs(3)))
    (folder / "set.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    with pytest.raises(ComponentError, match="scripts are no longer supported"):
        built(places)
    for name, suffix in (("frames", "pkl"), ("lines", "csv")):
        (places.data / name).mkdir()
        (places.data / name / f"train.{suffix}").write_bytes(bomb if suffix == "pkl" else b"image,label\na.png,0\n")
        with pytest.raises(ComponentError, match=f"huggingface: {name}: "):
            built(places, path=name)
    assert not (tmp_path / "executed").exists()


# The hub --------------------------------------------------------------------------------------------------------------


NAME, COMMIT = "owner/some", "c0ffee" * 6 + "cafe"


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one data set of two Parquet files, as much of its protocol as the package needs."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        data = f"/api/datasets/{NAME}"
        if path in (data, f"{data}/revision/{COMMIT}"):
            self.reply({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        elif path.startswith(f"{data}/tree/{COMMIT}"):
            below = path.removeprefix(f"{data}/tree/{COMMIT}").lstrip("/")
            found = [
                {"type": "file", "path": name, "size": len(file), "oid": hashlib.sha1(file).hexdigest()}
                for name, file in self.files.items()
                if name.startswith(below)
            ]
            self.reply(found if below else [*found, {"type": "directory", "path": "data", "size": 0, "oid": COMMIT}])
        elif (name := path.removeprefix(f"/datasets/{NAME}/resolve/{COMMIT}/")) in self.files:
            self.reply(self.files[name], ETag=f'"{hashlib.sha1(self.files[name]).hexdigest()}"', X_Repo_Commit=COMMIT)
        elif path.startswith(f"/datasets/{NAME}/resolve/"):
            self.reply(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        elif path.startswith(f"{data}/revision/"):
            self.reply(b"", 404, X_Error_Code="RevisionNotFound")
        else:
            self.reply(b"", 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def reply(self, content: Any, code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hub(places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "*")
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for module, name in ((constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(module, name, address)
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_data_set_of_the_hub(hub: type[Hub], places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pngs(12)
    write(places.data / "source", "parquet", train=rows(files, [0, 1, 2] * 4), test=rows(files[:2]))
    source = places.data / "source"
    hub.files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*.parquet")}
    wanted = as_files(places, files).images.numpy()
    found = built(places, path=NAME)
    assert np.array_equal(found.images.numpy(), wanted)
    assert found.name == f"huggingface:{NAME}"
    assert found.classes == tuple(CLASSES)
    with pytest.raises(ComponentError, match=f"revision: 'gone': {NAME} has no such commit, branch or tag"):
        built(places, path=NAME, revision="gone")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    other_cache = Places(places.data, places.data / "other cache")
    assert np.array_equal(built(other_cache, path=NAME).images.numpy(), wanted), "what was downloaded is still there"


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({}, "neither a folder nor a readable data set of the hub ("),
        ({"ENDPOINT": "http://127.0.0.1:9"}, "no such folder, and the hub is unreachable ("),
        ({"HF_HUB_OFFLINE": True}, "no such folder, and the hub is unreachable ("),
    ],
)
def test_a_hub_that_has_no_such_data_or_is_out_of_reach_is_told_at_once(
    constants: dict[str, Any], said: str, hub: type[Hub], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    start = time.monotonic()
    with pytest.raises(ComponentError) as caught:
        built(places, path="ylecun/mnist")
    assert time.monotonic() - start < 5
    assert str(caught.value).startswith(f"path: 'ylecun/mnist': {said}")
    assert "\n" not in str(caught.value)


def test_without_the_package_a_line_says_what_to_install(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ComponentError, match=r"it needs another package .*: pip install 'ganlab\[huggingface\]'"):
        built(places)
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(ComponentError, match=r"it needs datasets 4 or newer, here is 3\.6\.0"):
        plugin._package()
