"""Caches that eight processes want at once, whose writer is killed, or that cannot be written at all."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
from tiers import spread

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
    for folder in (root / "cache", root / "cache" / "decoded"):
        if folder.is_dir():
            folder.chmod(0o755)
    shutil.rmtree(root)


def said(root: Path, limit: str, times: int) -> list[str]:
    child = Child(partial(cache_work.asks, root, limit, times), root / f"{limit}.log")
    assert child.ended() == 0, child.said
    return child.said.splitlines()


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "cause"),
    spread(1, [("no rights", "Permission denied"), ("no room", "File too large"), ("no folder", "File exists")]),
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


@pytest.mark.extended
@pytest.mark.slow
def test_a_cache_that_may_only_be_read_is_read(open_folder: Path) -> None:
    assert said(open_folder, "none", times=1) == ["computed 1"]
    for path in (open_folder / "cache").iterdir():
        path.chmod(0o444)
    (open_folder / "cache").chmod(0o555)
    assert said(open_folder, "no rights", times=2) == ["computed 0"]


def test_a_value_that_is_there_is_read_while_another_process_holds_its_lock(tmp_path: Path) -> None:
    cached_tensors(tmp_path, "x", cache_work.KEY, value)
    with held(tmp_path.glob("*.lock")):
        found = cached_tensors(tmp_path, "x", cache_work.KEY, lambda: pytest.fail("it is there"))
    assert tensors_sha256(found) == tensors_sha256(value())


@contextmanager
def held(locks: Iterable[Path]) -> Iterator[None]:
    """Holds the locks as another process would: by descriptors that filelock does not know of."""
    descriptors = [os.open(lock, os.O_RDWR) for lock in locks]
    assert descriptors
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    for descriptor in descriptors:
        os.close(descriptor)


def test_waiting_is_reported_and_can_be_ended(tmp_path: Path) -> None:
    """Of tensors, as of decoded images: both wait by `cache_lock`."""
    cached_tensors(tmp_path, "x", cache_work.KEY, value)
    (path,) = tmp_path.glob("*.safetensors")
    path.unlink()
    reports = []

    def progress(what: str, done: int, total: int) -> None:
        reports.append((what, total))
        if len(reports) == 3:
            raise KeyboardInterrupt

    began = time.monotonic()
    with held(tmp_path.glob("*.lock")), pytest.raises(KeyboardInterrupt):
        cached_tensors(tmp_path, "x", cache_work.KEY, lambda: pytest.fail("another computes it"), progress)
    assert time.monotonic() - began < 3
    assert reports[0] == (f"waiting for 1 s: another process makes {tmp_path.name}/{path.name}", 0)
    cached_tensors(tmp_path, "x", cache_work.KEY, value)  # nothing is left locked


@pytest.mark.extended
@pytest.mark.slow
def test_without_locks_values_are_kept_nevertheless(open_folder: Path) -> None:
    assert said(open_folder, "no locks", times=2) == ["computed 1"]
    assert left(open_folder / "cache") == [".json", ".safetensors"]


# Decoded images -------------------------------------------------------------------------------------------------------


@pytest.fixture
def images(open_folder: Path) -> Path:
    """As `open_folder`, with four images."""
    (open_folder / "set").mkdir()
    for number in range(4):
        Image.fromarray(np.full((2, 2, 3), number, np.uint8)).save(open_folder / "set" / f"{number}.png")
    return open_folder


def said_of_images(root: Path, limit: str, times: int = 2) -> list[str]:
    log = root / f"images-{len(list(root.iterdir()))}.log"
    child = Child(partial(cache_work.asks_for_images, root, limit, times), log)
    assert child.ended() == 0, child.said
    return child.said.splitlines()


def test_another_users_decoded_images_are_used(images: Path) -> None:
    """Neither the folder nor the lock can be written to."""
    assert said_of_images(images, "none") == ["decoded 4"]
    assert said_of_images(images, "no rights") == ["decoded 0"]
    for path in (images / "cache" / "decoded").iterdir():
        path.chmod(0o444)
    (images / "cache" / "decoded").chmod(0o555)
    (images / "cache").chmod(0o555)
    assert said_of_images(images, "no rights") == ["decoded 0"]
    for path in (images / "cache" / "decoded").glob("*.lock"):
        path.unlink()
    assert said_of_images(images, "no rights") == ["decoded 0"]


def test_decoded_images_are_used_while_another_process_holds_their_lock(images: Path) -> None:
    said_of_images(images, "none")
    with held((images / "cache" / "decoded").glob("*.lock")):
        assert said_of_images(images, "none") == ["decoded 0"]


def test_decoded_images_are_used_where_there_is_no_room(images: Path) -> None:
    said_of_images(images, "none")
    assert said_of_images(images, "no room") == ["decoded 0"]


def test_without_locks_images_are_decoded_and_kept(images: Path) -> None:
    assert said_of_images(images, "no locks") == ["decoded 4"]
    assert left(images / "cache" / "decoded") == [".json", ".npy"]


def test_where_images_are_not_there_and_cannot_be_kept_a_line_says_so(images: Path) -> None:
    (images / "cache").chmod(0o555)
    first, second, decoded = said_of_images(images, "no rights")
    assert first == second
    assert f"cannot cache decoded images in {images / 'cache' / 'decoded'} (" in first
    assert first.endswith("; set GANLAB_CACHE to a folder with room that can be written to")
    assert decoded == "decoded 0"


@pytest.mark.extended
@pytest.mark.slow
def test_a_read_only_file_system(images: Path) -> None:
    """A bind mount in a name space of its own, which ends with the process."""
    said_of_images(images, "none")
    assert said(images, "none", times=1) == ["computed 1"]
    cache = shlex.quote(str(images / "cache"))
    mount = f"mount --bind {cache} {cache} && mount -o remount,ro,bind {cache}"
    inside = ("unshare", "--mount", "sh", "-c")
    if shutil.which("unshare") is None or subprocess.run([*inside, mount], check=False).returncode != 0:
        pytest.skip("this system lets no one mount")
    code = (
        "from pathlib import Path; from cache_work import asks, asks_for_images; "
        f"root = Path({str(images)!r}); asks(root, 'none', 1); asks_for_images(root, 'none', 1); "
        f"(root / 'cache' / 'x').touch()"
    )
    command = f"{mount} && exec {shlex.join([sys.executable, '-c', code])}"
    paths = os.pathsep.join([str(Path(cache_work.__file__).parent), *sys.path])
    done = subprocess.run(
        [*inside, command], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["computed 0", "decoded 0"], done.stderr
    assert "Read-only file system" in done.stderr  # of the last line


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
