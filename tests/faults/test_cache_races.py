"""Caches that eight processes want at once, whose writer is killed, or that cannot be written at all."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import cache_work
from cache_work import noted, value
from children import Child
from ganlab.utils.cache import cached_tensors
from ganlab.utils.hashing import tensors_sha256
from support import until

WRITERS = 8


def left(folder: Path) -> list[str]:
    """The kinds of the files in a folder, locks aside."""
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.extended
@pytest.mark.kill
@pytest.mark.parametrize("stops", ["computing", "writing"])
@pytest.mark.parametrize("work", [cache_work.want_tensors, cache_work.want_images])
def test_of_eight_writers_one_computes_though_the_first_is_killed(
    work: Callable[[Path, str], None], stops: str, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    for number in range(4):
        Image.fromarray(np.full((2, 2, 3), number, np.uint8)).save(tmp_path / "set" / f"{number}.png")
    children = [Child(partial(work, tmp_path, stops), tmp_path / f"{number}.log") for number in range(WRITERS)]
    until(lambda: len(noted(tmp_path / "started")) == WRITERS and noted(tmp_path / "stopped"))
    (first,) = noted(tmp_path / "stopped")
    folder = tmp_path / "cache" / "decoded" if work is cache_work.want_images else tmp_path / "cache"
    if stops == "writing" or work is cache_work.want_images:
        assert [path for path in folder.iterdir() if path.name.startswith(".")], "it is in the middle of a file"
    assert noted(tmp_path / "computed") == [first], "the others wait"
    os.kill(first, signal.SIGKILL)
    until(lambda: len(noted(tmp_path / "stopped")) == 2)  # another has taken its place
    (tmp_path / "go").touch()
    codes = {child.pid: child.ended() for child in children}
    assert codes.pop(first) == -signal.SIGKILL
    assert set(codes.values()) == {0}, [child.said for child in children]
    assert sorted(noted(tmp_path / "done")) == sorted(codes)
    computed = noted(tmp_path / "computed")
    assert len(computed) == 2, "the one that was killed, and one more"
    assert left(folder) == [".json", ".npy" if work is cache_work.want_images else ".safetensors"]
    if work is cache_work.want_tensors:
        (path,) = folder.glob("*.safetensors")
        assert tensors_sha256(load_file(path)) == tensors_sha256(value())
        found = cached_tensors(folder, "x", cache_work.KEY, lambda: pytest.fail("it is there"))
        assert tensors_sha256(found) == tensors_sha256(value())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, with an empty cache."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    (root / "cache").mkdir()
    yield root
    (root / "cache").chmod(0o755)
    shutil.rmtree(root)


def said(root: Path, limit: str, times: int) -> list[str]:
    child = Child(partial(cache_work.asks, root, limit, times), root / f"{limit}.log")
    assert child.ended() == 0, child.said
    return child.said.splitlines()


@pytest.mark.parametrize(
    ("limit", "cause"),
    [("no rights", "Permission denied"), ("no room", "File too large"), ("no folder", "File exists")],
)
def test_what_cannot_be_kept_is_computed_and_a_line_says_so(limit: str, cause: str, open_folder: Path) -> None:
    if limit == "no rights":
        (open_folder / "cache").chmod(0o555)
    if limit == "no folder":
        (open_folder / "cache").rmdir()
        (open_folder / "cache").write_text("a file where a folder is wanted")
    *warned, computed = said(open_folder, limit, times=2)
    assert computed == "computed 2"
    assert len(warned) == 2
    for line in warned:
        assert f"cannot be stored in {open_folder / 'cache'} (" in line
        assert cause in line
        assert line.endswith("it will be recomputed next time")
    if limit != "no folder":
        assert left(open_folder / "cache") == []


def test_a_cache_that_may_only_be_read_is_read(open_folder: Path) -> None:
    assert said(open_folder, "none", times=1) == ["computed 1"]
    for path in (open_folder / "cache").iterdir():
        path.chmod(0o444)
    (open_folder / "cache").chmod(0o555)
    assert said(open_folder, "no rights", times=2) == ["computed 0"]


def test_what_computing_raises_is_not_taken_for_the_disks(tmp_path: Path) -> None:
    def compute() -> dict[str, object]:
        raise OSError("the data set's own")

    with pytest.raises(OSError, match="the data set's own"):
        cached_tensors(tmp_path, "x", cache_work.KEY, compute)  # type: ignore[arg-type]


def test_files_of_other_keys_are_left_alone(tmp_path: Path) -> None:
    others = [".y-0123.safetensors.abc", ".x-0123.json.abc", "x-0123.safetensors"]
    for name in others:
        (tmp_path / name).write_text("")
    cached_tensors(tmp_path, "x", cache_work.KEY, value)
    assert all((tmp_path / name).exists() for name in others)
