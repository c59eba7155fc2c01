"""Preparing images: while they are decoded, or another process decodes them, a line says so and a signal is heard."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import define

from child_work import call_main
from children import Child, Command
from ganlab import ImageDataset, Places, Progress, no_progress
from ganlab.data import memmap
from ganlab.protocols import build_dataset
from ganlab.utils.progress import FIRST, paced
from ganlab_plugins.datasets import _decoded_file
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import save
from saboteur import hold_lock, slow_decoding
from support import until
from tiers import spread

Write = Callable[..., Path]
SIGNALS = [signal.SIGTERM, signal.SIGINT]
PER_IMAGE = 0.3
"""Seconds that a slowed decoding of an image takes."""


@pytest.fixture
def file(table: dict[str, Any], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment on images whose decoding takes minutes where it is slowed."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    for number in range(64):
        for part in range(os.cpu_count() or 1):
            save(tmp_path / "set" / f"{number}-{part}.png", np.full((8, 8, 3), number, np.uint8))
    table["dataset"] = {"name": "image_folder", "path": str(tmp_path / "set"), "size": 8}
    table["metric"] = []
    return write(table)


def ended_in(child: Child, number: signal.Signals) -> float:
    """Sends the signal; the seconds until the child ended, as a command does that is stopped at once."""
    began = time.monotonic()
    os.kill(child.pid, number)
    assert child.ended() == 130, child.said
    return time.monotonic() - began


@pytest.mark.kill
@pytest.mark.parametrize("number", SIGNALS, ids=attrgetter("name"))
def test_while_images_are_decoded(number: signal.Signals, file: Path, tmp_path: Path) -> None:
    child = Child(Command("run", file, "--out", "r", before=partial(slow_decoding, PER_IMAGE)), tmp_path / "log")
    until(lambda: list((tmp_path / "cache").glob("decoded/.*")))
    began = time.monotonic()
    until(lambda: "images decoded: " in child.said)
    assert time.monotonic() - began < FIRST + 1
    assert ended_in(child, number) < PER_IMAGE + 2
    assert not Path("r").exists()
    assert list((tmp_path / "cache").glob("decoded/.*")) == [], "nothing half decoded is left"


@pytest.mark.kill
@pytest.mark.parametrize("number", spread(1, SIGNALS), ids=attrgetter("name"))
@pytest.mark.parametrize("command", ["dry run", "score"])
def test_of_a_command_that_does_not_train(command: str, number: signal.Signals, file: Path, tmp_path: Path) -> None:
    score = ["score", str(tmp_path / "set"), "--against", "digits", "--features", "pixels"]
    arguments = ["run", str(file), "--dry-run"] if command == "dry run" else score
    child = Child(partial(call_main, arguments, partial(slow_decoding, PER_IMAGE)), tmp_path / "log")
    until(lambda: "images decoded: " in child.said)
    assert ended_in(child, number) < PER_IMAGE + 2
    assert list((tmp_path / "cache").glob("decoded/.*")) == [], "nothing half decoded is left"


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.parametrize("number", SIGNALS, ids=attrgetter("name"))
def test_while_another_process_decodes_them(number: signal.Signals, file: Path, tmp_path: Path) -> None:
    before = partial(hold_lock, tmp_path / "held")
    child = Child(Command("run", file, "--out", "r", before=before), tmp_path / "log")
    until(lambda: "another process makes " in child.said)
    waited = float((tmp_path / "held").read_text())
    assert time.time() - waited < FIRST + 1
    assert ended_in(child, number) < 2
    assert list((tmp_path / "cache" / "decoded").glob("*.npy")) == []


@pytest.mark.parametrize("after", [1, 3])
def test_what_progress_raises_ends_decoding_within_an_image(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded = _decoded_file.decode_image, []

    def slow(*arguments: Any) -> object:
        decoded.append(arguments[0])
        time.sleep(0.05)
        return decode(*arguments)

    monkeypatch.setattr(_decoded_file, "decode_image", slow)
    for number in range(300):
        save(tmp_path / "set" / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
    reports: list[tuple[str, int]] = []
    workers = min(16, os.cpu_count() or 1)
    at_the_end = 0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal at_the_end
        reports.append((what, total))
        if len(reports) == after:
            at_the_end = len(decoded)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageFolder("set", size=4).build(Places(tmp_path, tmp_path / "cache"), "train", progress)
    assert reports == [("images decoded", 300)] * after
    assert len(decoded) <= at_the_end + workers
    assert list((tmp_path / "cache").glob("decoded/*.npy")) == []
    assert list((tmp_path / "cache").glob("decoded/.*")) == []


def test_the_check_of_large_cached_images_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "set" / "0.png", np.zeros((2048, 2048, 3), np.uint8))
    folder, places = ImageFolder("set", size="original"), Places(tmp_path, tmp_path / "cache")
    folder.build(places, "train")
    monkeypatch.setattr("ganlab.utils.progress.FIRST", 0.0)
    monkeypatch.setattr(memmap, "WINDOW", 2**20)

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("MiB"):
            assert total == 12
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.build(places, "train", progress)


def test_what_is_quick_reports_nothing(tmp_path: Path) -> None:
    save(tmp_path / "set" / "0.png")
    ImageFolder("set", size=8).build(
        Places(tmp_path, tmp_path / "cache"), "train", lambda what, done, total: pytest.fail(what)
    )


def test_paced_passes_on_a_few_calls_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ganlab.utils.progress.time.monotonic", lambda: now)
    calls: list[tuple[float, int]] = []
    report = paced(lambda what, done, total: calls.append((now, done)))
    for done in range(150):
        now = done / 100
        report("x", done, 150)
    assert [at for at, _ in calls] == pytest.approx([0.5, 0.7, 0.9, 1.1, 1.3], abs=0.011)


@define
class Reporting:
    """A data set with the optional parameter."""

    seen: list[str]

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        progress("loaded", 1, 2)
        return None  # type: ignore[return-value]


@define
class Silent:
    """A data set without it, as those of older plugins."""

    def build(self, places: Places, split: str) -> str:
        return split


def test_a_data_set_gets_progress_if_it_takes_it(tmp_path: Path) -> None:
    seen: list[str] = []
    places = Places(tmp_path, tmp_path)
    build_dataset(Reporting(seen), places, "train", lambda what, done, total: seen.append(f"{what} {done}/{total}"))
    assert seen == ["loaded 1/2"]
    assert build_dataset(Silent(), places, "train", no_progress) == "train"  # type: ignore[arg-type, comparison-overlap]
