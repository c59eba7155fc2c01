"""Reading weights, held against files that run code, that are damaged, and that hold something else."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from ganlab import ComponentError, read_weights
from ganlab_plugins.features.inception import Inception
from ganlab_plugins.features.timm import DINOv2, Timm
from stubs import an_evaluation

READERS: list[Callable[[str], Any]] = [Inception, partial(DINOv2, "small"), partial(Timm, "test_vit")]


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_a_pickle_that_runs_code_is_refused(
    write: Callable[[Any, Path], None], reader: Callable[[str], Any], tmp_path: Path
) -> None:
    path, touched = tmp_path / "weights.pth", tmp_path / "touched"
    write({"weight": Malicious(touched)}, path)
    with pytest.raises(ComponentError, match=r"weights\.pth was refused"):
        reader(str(path)).build(an_evaluation(tmp_path))
    assert not touched.exists()
    # What was refused would have run: the test's own pickle is a live one. (It runs before torch finds that a plain
    # pickle is not a file of torch's.)
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert touched.exists()


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


TENSORS = {"weight": torch.arange(4.0), "bias": torch.ones(2)}
FILES = {
    "empty.pth": b"",
    "text.pth": b"not weights at all\n",
    "page.pth": b"<!DOCTYPE html><html></html>",
    "cut.pth": saved(TENSORS)[:-400],
    "legacy.pth": saved(TENSORS, _use_new_zipfile_serialization=False)[:-10],
    "list.pth": saved([torch.ones(1)]),
    "numbers.pth": saved({"weight": 1.0}),
    "nested.pth": saved({"model": TENSORS}),
    "nothing.pth": saved({}),
    "text.safetensors": b"not weights at all\n",
    "cut.safetensors": save(TENSORS)[:-4],
    "nothing.safetensors": save({}),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_weights_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    with pytest.raises(ComponentError, match=name.replace(".", r"\.")) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_both_formats_are_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")
    save_file(TENSORS, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        found = read_weights(tmp_path / name)
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in TENSORS.items())


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_not_there(
    reader: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The home folder can be written as a tilde."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ComponentError, match=f"there is no weights file {tmp_path}/gone.pth"):
        reader("~/gone.pth").build(an_evaluation(tmp_path))
    with pytest.raises(ComponentError, match=r"there is no weights file ~of-no-user/gone\.pth"):
        reader("~of-no-user/gone.pth").build(an_evaluation(tmp_path))
