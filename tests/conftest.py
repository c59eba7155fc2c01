"""What every test stands on: folders of its own, no stray plugins, and experiments that take a second."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded: with more threads than cores they keep waiting for each other.
    os.environ["OMP_NUM_THREADS"] = "1"

import torch

import quick_plots
from ganlab.cli import main
from ganlab.testing import step_timing
from ganlab.viz import plots
from support import WEDGE

_find_entry_points = importlib.metadata.entry_points


@functools.cache
def _entry_points(path: tuple[str, ...], **parameters: str) -> Any:
    return _find_entry_points(**parameters)


# What is installed does not change while the tests run. Looking for it takes half of the time of loading plugins, which
# every command does.
importlib.metadata.entry_points = lambda **parameters: _entry_points(tuple(sys.path), **parameters)

COLLECTED = pytest.StashKey[list[pytest.Item]]()


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = list(items)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def pytest_collection_finish() -> None:
    # What was imported until now is never garbage. Without this each full collection looks through a million objects,
    # which takes longer than what many tests test.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def collected(pytestconfig: pytest.Config) -> list[pytest.Item]:
    """Every test that this session collected, those included that a mark deselects."""
    return pytestconfig.stash[COLLECTED]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole session: under pytest-xdist all workers share it, so what is written needs a lock."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, shared_folder: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """Runs each test in its own folder, with the session's one cache and without drawing plots.

    Real data are there for tests that ask for `real_data`, real plots for those that ask for `real_plots`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANLAB_PLUGINS", raising=False)
    monkeypatch.setenv("GANLAB_CACHE", str(shared_folder / "cache"))
    monkeypatch.setenv("TRACKIO_DIR", str(shared_folder / "trackio"))
    if "real_data" not in request.fixturenames:
        monkeypatch.setenv("GANLAB_DATA", str(tmp_path / "data"))
    if "real_plots" not in request.fixturenames:
        for name, stand_in in quick_plots.STAND_INS.items():
            monkeypatch.setattr(plots, name, stand_in)


@pytest.fixture
def real_plots() -> None:
    """The plots of runs in this process are drawn; those of commands in processes of their own always are."""


@pytest.fixture
def real_data() -> Path:
    """The folder with real images; the test is skipped where GANLAB_DATA names none."""
    folder = os.environ.get("GANLAB_DATA")
    if not folder:
        pytest.skip("GANLAB_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conformance suite times two calls of a step and not forty, for tests that do not look at the time."""
    monkeypatch.setattr(step_timing, "ROUNDS", 1)
    monkeypatch.setattr(step_timing, "CALLS_PER_ROUND", 1)


@pytest.fixture
def table() -> dict[str, Any]:
    """A small experiment as a table: two tiny networks on the offline digits, four steps."""
    return {
        "name": "tiny",
        "dataset": {"name": "digits"},
        "generator": {"name": "mlp", "latent_dim": 8, "hidden": [16]},
        "discriminator": {"name": "mlp", "hidden": [16], "dropout": 0.2},
        "loss": {"name": "bce"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"steps": 4, "batch_size": 16, "log_every": 2, "sample_count": 4},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table as an experiment file and returns its path."""

    def write(table: dict[str, Any], name: str = "tiny.toml") -> Path:
        path = tmp_path / name
        path.write_text(tomli_w.dumps(table))
        return path

    return write


@pytest.fixture
def ganlab(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; returns its exit code, what it printed and what it said on stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main.call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def wedge(tmp_path: Path) -> Path:
    """A loss in a file of its own: ten lines of code."""
    path = tmp_path / "wedge.py"
    path.write_text(WEDGE)
    return path
