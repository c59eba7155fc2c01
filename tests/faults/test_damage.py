"""Damage of any kind to any file that is read again: named, or made anew, and never used.

Hypothesis chooses where a file is cut, which of its bytes change and to what.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ganlab.training.checkpoint import DamagedCheckpoint, load_checkpoint, save_checkpoint
from ganlab.utils.cache import cached_tensors
from ganlab.utils.hashing import sha256
from ganlab_plugins.datasets._decoded_cache import decode_files, decode_readable_files

Damage = Callable[[bytes], bytes]

STATE = {
    "generator": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.5, -2.5])},
    "optimizers": {"generator": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1, "on": True}]}},
    "loop": {"random": (3, [1, 2, 3], None), "name": "x", "empty": {}},
}


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """A function that damages a file's content: cut short, emptied, bytes changed, one bit flipped, or added to."""
    kind = draw(st.sampled_from(["cut", "empty", "bytes", "bit", "longer"]))
    share = draw(st.floats(0, 1, exclude_max=True))
    new = draw(st.binary(min_size=1, max_size=4))
    bit = draw(st.integers(0, 7))

    def damage(content: bytes) -> bytes:
        place = int(share * len(content))
        if kind == "bit":
            return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
        return {
            "cut": content[:place],
            "empty": b"",
            "bytes": (content[:place] + new + content[place + len(new) :])[: len(content)],
            "longer": content + new,
        }[kind]

    return damage


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


# Checkpoints ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(
    file=st.sampled_from(["manifest.json", "state.json", "generator.safetensors", "optimizers.safetensors"]),
    damage=damages(),
    parts=st.sampled_from([None, {"generator", "ema"}]),
)
def test_a_damaged_checkpoint_is_named_or_gives_what_was_saved(
    file: str, damage: Damage, parts: set[str] | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(Path(folder), 7, STATE)
        (path / file).write_bytes(damage((path / file).read_bytes()))
        try:
            loaded: Any = load_checkpoint(path, parts)
        except DamagedCheckpoint as error:
            loaded, said = None, str(error)
        else:
            said = ""
        if loaded is None:
            assert said.startswith(str(path))
            assert "\n" not in said
        else:
            assert same(loaded, {part: value for part, value in STATE.items() if parts is None or part in parts})


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format=2), "format is 2; this ganlab reads 1"),
        (lambda m: m.update(format=True), "format is True"),
        (lambda m: m.pop("format"), "'format'"),
        (lambda m: m.update(step=8), "step is 8, not the folder's"),
        (lambda m: m.pop("step"), "'step'"),
        (lambda m: m.update(sha256=[]), "not a ganlab checkpoint"),
        (lambda m: m["sha256"].update({"../outside": "0" * 64}), "../outside is not a file of this folder"),
        (lambda m: m["sha256"].update({"/etc/passwd": "0" * 64}), "/etc/passwd is not a file of this folder"),
        (lambda m: m["sha256"].update({"a\0b": "0" * 64}), "is not a file of this folder"),
        (lambda m: m["sha256"].update({"gone.safetensors": "0" * 64}), "gone.safetensors is not a file of this folder"),
    ],
)
def test_a_manifest_that_is_not_ours(change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, STATE)
    (tmp_path / "outside").write_bytes(b"")
    rewritten(path, change)
    with pytest.raises(DamagedCheckpoint) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_checkpoint_in_another_steps_folder_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, STATE)
    shutil.copytree(path, tmp_path / "step-00000009")
    with pytest.raises(DamagedCheckpoint, match="step is 7, not the folder's"):
        load_checkpoint(tmp_path / "step-00000009")


DEEP = b'{"dict": [["a", ' * 50_000
ODD = [
    b"[1, 2]",
    b"3",
    b"null",
    b'{"loop": {}}',
    b'{"loop": {"dict": 3}}',
    b'{"loop": {"dict": [[[], 1]]}}',
    b'{"loop": {"dict": [["a", 1, 2]]}}',
    b'{"loop": {"tensor": ["a"]}}',
    b'{"loop": {"tensor": "gone"}}',
    b'{"loop": {"list": 5}}',
    b'{"loop": {"set": [1]}}',
    b'{"loop": {"list": [], "tuple": []}}',
    b'{"loop": ' + b"9" * 5000 + b"}",
    b'{"loop": ' + DEEP,
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("file", ["state.json", "manifest.json", "generator.safetensors"])
def test_odd_content_with_the_right_hash_is_refused(file: str, content: bytes, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, STATE)
    (path / file).write_bytes(content)
    if file != "manifest.json":
        rewritten(path, lambda manifest: manifest["sha256"].update({file: sha256(content)}))
    with pytest.raises(DamagedCheckpoint) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, STATE)
    (path / "generator.safetensors").unlink()
    os.mkfifo(path / "generator.safetensors")
    with pytest.raises(DamagedCheckpoint, match=r"generator\.safetensors is not a file of this folder"):
        load_checkpoint(path)


# Tensors that are kept ------------------------------------------------------------------------------------------------

TENSORS = {"mean": torch.arange(5.0), "root": torch.ones(2, 3, dtype=torch.float64)}
KEY = {"features": "x", "count": 3}


def kept(folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The tensors, and how often they were computed."""
    computed = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cached_tensors(folder, "moments", KEY, lambda: computed.append(1) or dict(TENSORS))  # type: ignore[func-returns-value]
    return found, len(computed)


@settings(deadline=None, max_examples=200)
@given(file=st.sampled_from(["*.safetensors", "*.json", "*.lock"]), damage=damages())
def test_a_damaged_cache_gives_the_right_tensors(file: str, damage: Damage) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert kept(folder)[1] == 1
        (path,) = folder.glob(file)
        before = path.read_bytes()
        damaged = damage(before) if before else b"x"
        path.write_bytes(damaged)
        found, times = kept(folder)
        assert same(found, TENSORS)
        if file == "*.safetensors":
            assert times == (damaged != before)
        assert kept(folder)[1] == 0, "what was mended is kept"


@pytest.mark.parametrize("content", [b"", b"no tensors", *ODD], ids=range(2 + len(ODD)))
def test_what_is_no_safetensors_is_computed_anew_though_its_note_fits(content: bytes, tmp_path: Path) -> None:
    kept(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"key": KEY, "sha256": sha256(content)}))
    assert kept(tmp_path)[1] == 1
    assert kept(tmp_path)[1] == 0
    path.with_suffix(".json").write_bytes(content)
    assert kept(tmp_path)[1] == 1


# Decoded images -------------------------------------------------------------------------------------------------------


def folder_of_images(folder: Path) -> list[str]:
    """Four images filled with their numbers, and one file that is none."""
    names = [f"{number}.bmp" for number in range(4)]
    for number, name in enumerate(names):
        Image.fromarray(np.full((2, 2, 3), 10 * number, np.uint8)).save(folder / name)
    (folder / "2.bmp").write_bytes(b"no image")
    return names


@pytest.mark.extended
@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(file=st.sampled_from(["*.npy", "*.json", "*.lock"]), damage=damages(), skips=st.booleans())
def test_a_damaged_cache_of_images_gives_the_right_images(file: str, damage: Damage, skips: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name, "set"), Path(name, "cache")
        folder.mkdir()
        names = folder_of_images(folder)
        wanted = [0, 10, 30] if skips else [0, 10]

        def read() -> list[int]:
            with warnings.catch_warnings():
                # numpy's, on a header that looks as if Python 2 had written it
                warnings.filterwarnings("ignore", "Reading `.npy`")
                if not skips:
                    return decode_files(folder, names[:2], size=2, cache=cache)[:, 0, 0, 0].tolist()
                images, skipped = decode_readable_files(folder, names, size=2, cache=cache)
                assert skipped == [2]
                return images[:, 0, 0, 0].tolist()

        assert read() == wanted
        (path,) = (cache / "decoded").glob(file)
        good = path.read_bytes()
        path.write_bytes(damage(good) if good else b"x")
        assert read() == wanted
        assert read() == wanted


def test_a_header_of_a_negative_shape_is_not_mapped(tmp_path: Path) -> None:
    """Such a file would be shorter than nothing, so its length alone does not tell."""
    folder_of_images(tmp_path)
    decode_files(tmp_path, ["0.bmp"], size=2, cache=tmp_path)
    (path,) = (tmp_path / "decoded").glob("*.npy")
    path.write_bytes(path.read_bytes().replace(b"(1, 3, 2, 2)", b"(1,-3, 2, 2)"))
    assert decode_files(tmp_path, ["0.bmp"], size=2, cache=tmp_path).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("other", [{"skipped": [1]}, {"skipped": None}, {"skipped": []}])
def test_a_note_that_names_other_files_as_left_out_is_not_believed(other: dict[str, Any], tmp_path: Path) -> None:
    """The count alone would not tell, and the labels would be others'."""
    names = folder_of_images(tmp_path)
    decode_readable_files(tmp_path, names, size=2, cache=tmp_path)
    (note,) = (tmp_path / "decoded").glob("*.json")
    read = json.loads(note.read_text())
    note.write_text(json.dumps({**read, "found": {**read["found"], **other}}))
    assert decode_readable_files(tmp_path, names, size=2, cache=tmp_path)[1] == [2]


def test_a_note_with_a_damaged_key_is_not_believed(tmp_path: Path) -> None:
    names = folder_of_images(tmp_path)
    decode_readable_files(tmp_path, names, size=2, cache=tmp_path)
    (note,) = (tmp_path / "decoded").glob("*.json")
    note.write_text(note.read_text().replace('"skipped"', '"skippee"'))
    assert decode_readable_files(tmp_path, names, size=2, cache=tmp_path)[1] == [2]
