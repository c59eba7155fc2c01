"""The cache folder: what `ganlab cache` lists and removes, and the bound GANLAB_CACHE_GB, held against the files."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from ganlab import UserError
from ganlab.cli.completion import complete_cache_kinds
from ganlab.utils import cache_folder
from ganlab.utils.cache import cached_tensors
from ganlab.utils.cache_folder import cache_entries
from ganlab.utils.paths import cache_bound
from ganlab_plugins.datasets._decoded_cache import decode_files

Ganlab = Callable[..., tuple[int, str, str]]
SIZE = 4 * 25_000
"""Bytes of the values that the tests cache, beside their headers and notes."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder without a bound, of which this process has used nothing."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GANLAB_CACHE_GB", raising=False)
    another_command(monkeypatch)
    return tmp_path / "cache"


def another_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on as in a new process, which has used nothing of the cache."""
    monkeypatch.setattr(cache_folder, "_used", set())
    monkeypatch.setattr(cache_folder, "_warned_of", set())


def keep(cache: Path, kind: str, number: int) -> bool:
    """Asks the cache for a value; whether it had to be computed."""
    computed = []

    def compute() -> dict[str, torch.Tensor]:
        computed.append(number)
        return {"t": torch.full((SIZE // 4,), float(number))}

    found = cached_tensors(cache / kind, kind, {"number": number}, compute)
    assert found["t"].unique().tolist() == [number]
    return bool(computed)


def keep_images(cache: Path, number: int) -> torch.Tensor:
    folder = cache.parent / f"set{number}"
    if not folder.exists():
        folder.mkdir()
        for name in ("a", "b"):
            Image.fromarray(np.full((100, 100, 3), number, np.uint8)).save(folder / f"{name}.png")
    images = decode_files(folder, ["a.png", "b.png"], size=100, cache=cache)
    assert images.unique().tolist() == [number]
    return images


def download(cache: Path, size: int) -> Path:
    """A file that cannot be computed again."""
    path = cache / "weights" / "hub" / "inception.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(size))
    return path


def age(cache: Path, days: float) -> None:
    """Lets everything in the cache be unused for `days` more."""
    for path in cache.rglob("*"):
        changed = path.stat().st_mtime - days * 86400
        os.utime(path, (changed, changed))


def taken(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


def listed(ganlab: Ganlab, *options: object) -> list[str]:
    """The kinds that `ganlab cache` lists, or removes."""
    code, out, err = ganlab("cache", *map(str, options), "--json")
    assert code == 0, err
    found = json.loads(out)
    return sorted(entry["kind"] for entry in found.get("entries", found.get("removed")))


def test_everything_is_listed(cache: Path, ganlab: Ganlab) -> None:
    assert ganlab("cache")[1].startswith("listed 0 entries, 0 B")
    keep(cache, "floor", 1)
    age(cache, 3)
    keep_images(cache, 2)
    download(cache, 2_000_000)
    code, out, _ = ganlab("cache")
    assert code == 0
    *lines, total = out.splitlines()
    assert [line.split()[0] for line in lines] == ["floor", "decoded", "weights"]
    assert "3 days ago" in lines[0]
    assert "2 MB" in lines[2]
    assert total.startswith("listed 3 entries, ")
    assert "no bound (GANLAB_CACHE_GB)" in total
    entries = json.loads(ganlab("cache", "--json")[1])["entries"]
    assert sum(entry["bytes"] for entry in entries) == taken(cache)
    assert complete_cache_kinds(None) == dict.fromkeys(["decoded", "floor", "weights"], "in the cache")  # type: ignore[arg-type]


def test_entries_are_chosen_by_kind_age_and_size(cache: Path, ganlab: Ganlab) -> None:
    keep(cache, "floor", 1)
    keep(cache, "reference", 1)
    age(cache, 10)
    keep(cache, "floor", 2)
    keep_images(cache, 3)
    assert listed(ganlab, "--kind", "floor") == ["floor", "floor"]
    assert listed(ganlab, "--kind", "floor", "--kind", "decoded") == ["decoded", "floor", "floor"]
    assert listed(ganlab, "--unused-days", 9) == ["floor", "reference"]
    assert listed(ganlab, "--unused-days", 11) == []
    assert listed(ganlab, "--larger-gb", 1e-4 + 1e-5) == []
    assert listed(ganlab, "--larger-gb", 5e-5) == ["decoded", "floor", "floor", "reference"]
    assert not keep(cache, "reference", 1)  # a use
    assert listed(ganlab, "--unused-days", 9) == ["floor"]
    assert listed(ganlab, "--unused-days", 9, "--clear") == ["floor"]
    assert listed(ganlab) == ["decoded", "floor", "reference"]
    assert keep(cache, "floor", 1)
    assert not keep(cache, "floor", 2)


def test_downloads_are_removed_only_by_their_name(cache: Path, ganlab: Ganlab) -> None:
    keep(cache, "floor", 1)
    file = download(cache, 2_000_000)
    code, out, err = ganlab("cache", "--clear")
    assert (code, out.startswith("floor ")) == (0, True)
    assert err.strip() == "not removed: 2 MB that cannot be recomputed; add --kind weights"
    assert file.exists()
    assert taken(cache) == 2_000_000
    assert listed(ganlab, "--clear", "--kind", "weights") == ["weights"]
    assert taken(cache) == 0
    assert ganlab("cache", "--clear", "--kind", "weights")[0] == 0


def test_what_is_locked_stays(cache: Path, ganlab: Ganlab) -> None:
    keep(cache, "floor", 1)
    keep(cache, "floor", 2)
    first = cache_entries(cache)[0]
    with FileLock(str(first.folder / f"{first.name}.lock")):
        assert listed(ganlab, "--clear") == ["floor"]
        (left,) = cache_entries(cache)
        assert (left.name, left.size) == (first.name, first.size)
        assert "not removed: 1 in use" in ganlab("cache", "--clear")[2]


def test_links_are_not_followed(cache: Path, tmp_path: Path, ganlab: Ganlab) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    (cache / "floor").mkdir(parents=True)
    (cache / "floor" / "link").symlink_to(tmp_path / "elsewhere")
    (cache / "linked").symlink_to(tmp_path / "elsewhere")
    assert listed(ganlab, "--clear", "--kind", "floor", "--kind", "other") == ["floor", "other"]
    assert (tmp_path / "elsewhere" / "precious").exists()
    assert not (cache / "linked").is_symlink()


def test_wrong_options_are_refused(cache: Path, ganlab: Ganlab) -> None:
    keep(cache, "floor", 1)
    code, out, err = ganlab("cache", "--kind", "flor", "--clear")
    assert (code, out) == (2, "")
    assert err.strip() == "--kind flor: the cache has no such kind; it has floor; did you mean 'floor'?"
    assert ganlab("cache", "--unused-days=-1") == (2, "", "--unused-days -1: expected 0 or more\n")
    assert ganlab("cache", "--larger-gb=nan") == (2, "", "--larger-gb nan: expected 0 or more\n")


@pytest.mark.parametrize("value", ["lots", "0", "-1", "inf", "nan"])
def test_a_wrong_bound_is_refused_before_anything_is_computed(
    value: str,
    cache: Path,
    ganlab: Ganlab,
    monkeypatch: pytest.MonkeyPatch,
    table: dict[str, Any],
    write: Callable[..., Path],
) -> None:
    monkeypatch.setenv("GANLAB_CACHE_GB", value)
    for command in (("cache",), ("run", write(table), "--out", "r")):
        code, _, err = ganlab(*command)
        assert (code, err.strip()) == (2, f"GANLAB_CACHE_GB = '{value}': expected a number of GB above 0")
    assert not Path("r").exists()


def test_the_bound_is_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_CACHE_GB", "2.5")
    assert cache_bound() == 2_500_000_000
    monkeypatch.setenv("GANLAB_CACHE_GB", "")
    assert cache_bound() is None
    monkeypatch.setenv("GANLAB_CACHE_GB", "2,5")
    with pytest.raises(UserError, match="'2,5'"):
        cache_bound()


def test_the_least_recently_used_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_CACHE_GB", str(3.5 * SIZE / 1e9))
    for number in range(3):
        keep(cache, "floor", number)
        age(cache, 1)
    assert not keep(cache, "floor", 0)
    another_command(monkeypatch)
    assert keep(cache, "reference", 3)
    assert taken(cache) < 3.5 * SIZE
    another_command(monkeypatch)
    assert [keep(cache, kind, number) for kind, number in (("floor", 0), ("floor", 2), ("reference", 3))] == [False] * 3
    another_command(monkeypatch)
    assert keep(cache, "floor", 1)
    assert taken(cache) < 3.5 * SIZE


def test_a_bound_that_is_set_later_is_kept_at_the_next_use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        keep(cache, "floor", number)
        age(cache, 1)
    another_command(monkeypatch)
    monkeypatch.setenv("GANLAB_CACHE_GB", str(2.5 * SIZE / 1e9))
    assert not keep(cache, "floor", 1)
    another_command(monkeypatch)
    assert taken(cache) < 2.5 * SIZE
    assert not keep(cache, "floor", 3)


def test_one_file_touched_four_times(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other copies go; what a run has mapped stays readable."""
    monkeypatch.setenv("GANLAB_CACHE_GB", str(90_000 / 1e9))
    kept = []
    for touched in range(4):
        another_command(monkeypatch)
        kept.append(keep_images(cache, 7))
        os.utime(cache.parent / "set7" / "a.png", (touched, touched))
        age(cache, 1)
        assert taken(cache) < 90_000
    (entry,) = cache_entries(cache)
    assert entry.size > 60_000
    assert [images.unique().tolist() for images in kept] == [[7]] * 4


def test_what_this_command_uses_and_what_is_locked_stays_and_a_line_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cache, "floor", 0)
    age(cache, 1)
    locked = cache_entries(cache)[0]
    file = download(cache, SIZE)
    another_command(monkeypatch)
    monkeypatch.setenv("GANLAB_CACHE_GB", str(1.5 * SIZE / 1e9))
    with FileLock(str(locked.folder / f"{locked.name}.lock")), warnings.catch_warnings(record=True) as warned:
        for number in range(1, 4):
            keep(cache, "floor", number)
    assert len(warned) == 1
    assert "over GANLAB_CACHE_GB = 0.00015: " in str(warned[0].message)
    assert "nor 100 kB that cannot be recomputed; `ganlab cache` lists it" in str(warned[0].message)
    assert [keep(cache, "floor", number) for number in range(4)] == [False] * 4
    assert file.exists()


def test_leftovers_of_killed_processes_are_counted_and_removed(cache: Path, ganlab: Ganlab) -> None:
    keep(cache, "floor", 1)
    (entry,) = cache_entries(cache)
    leftover = entry.folder / f".{entry.name}.safetensors.k2j3"
    leftover.write_bytes(bytes(1000))
    assert cache_entries(cache)[0].size == entry.size + 1000
    assert listed(ganlab, "--clear") == ["floor"]
    assert not leftover.exists()


def test_a_use_is_now(cache: Path) -> None:
    keep_images(cache, 1)
    keep(cache, "floor", 1)
    age(cache, 5)
    keep_images(cache, 1)
    keep(cache, "floor", 1)
    assert all(time.time() - entry.used < 60 for entry in cache_entries(cache))
