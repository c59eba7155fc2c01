"""What every test stands on: folders of its own, no stray plugins, and experiments that take a second."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded: with more threads than cores they keep waiting for each other.
    os.environ["OMP_NUM_THREADS"] = "1"

import torch

import children
import forked_python
import quick_disk  # noqa: F401 - it changes os.fsync
import quick_loading
import quick_plots
import quick_runs  # noqa: F401 - it changes what a run computes before its first step
import quick_timing as quick_timing_of
from ganlab.bench import benchmark
from ganlab.cli import main
from ganlab.testing import step_timing
from ganlab.viz import plots
from support import WEDGE, until

COLLECTED = pytest.StashKey[list[pytest.Item]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors, which else are idle for a third of the extended tests' time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = list(items)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def pytest_collection_finish() -> None:
    quick_loading.keep_what_is_imported()


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
    """The conformance suite times two calls of a step and not forty; the turns of the benchmark are short too."""
    monkeypatch.setattr(step_timing, "ROUNDS", quick_timing_of.ROUNDS)
    monkeypatch.setattr(step_timing, "CALLS_PER_ROUND", quick_timing_of.CALLS_PER_ROUND)
    monkeypatch.setattr(benchmark, "TURN_SECONDS", quick_timing_of.TURN_SECONDS)


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


@pytest.fixture(scope="session")
def command_server() -> Iterator[Path]:
    """The executable file that forks what a `python -m ganlab` would do."""
    with tempfile.TemporaryDirectory(prefix="ganlab-") as folder:  # a socket's path must be short
        server = children.Child(functools.partial(children.serve_commands, Path(folder)), Path(folder) / "log")
        file = forked_python.executable(Path(folder))
        until(file.exists)
        yield file
        server.process.kill()
        server.process.join()


@pytest.fixture
def forked_processes(command_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test or its command starts by `sys.executable -m ganlab`, such as a sweep's runs, is forked."""
    monkeypatch.setattr(sys, "executable", str(command_server))
    monkeypatch.setenv("PYTHON_EXEC", str(command_server))  # which torchrun starts


@pytest.fixture
def wedge(tmp_path: Path) -> Path:
    """A loss in a file of its own: ten lines of code."""
    path = tmp_path / "wedge.py"
    path.write_text(WEDGE)
    return path
