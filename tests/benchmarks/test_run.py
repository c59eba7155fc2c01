"""What a run costs besides its steps: the start, plugins that are only there, trackers.

GANLAB_DATA=FOLDER pytest tests/benchmarks/test_run.py
"""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ganlab.bench.benchmark import median_ratio, time_in_turns
from ganlab.config.load import load_experiment
from ganlab.evaluation.evaluator import Evaluator
from ganlab.run.callbacks.callback_list import CallbackList
from ganlab.run.events import EventDispatcher
from ganlab.run.opened_run import OpenedRun
from ganlab.run.run_folder import RunFolder
from ganlab.training.build import build
from ganlab.training.loop import take_step
from ganlab.utils.paths import places
from ganlab.utils.signals import StopRequest
from ganlab.viz.progress import make_progress_view

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "mnist_mlp.toml"
CPU = torch.device("cpu")

PLUGIN = """
from attrs import frozen
from ganlab import hookimpl

@frozen
class Loss{number}:
    def discriminator(self, real, fake): return fake.mean() - real.mean()
    def generator(self, real, fake): return -fake.mean()

@frozen
class Tracker{number}:
    def build(self, run): return self
    def log(self, record): dict(record)
    def samples(self, step, path): pass
    def close(self): pass

@hookimpl
def register_losses(register): register("loss{number}", Loss{number})

@hookimpl
def register_trackers(register): register("tracker{number}", Tracker{number})

@hookimpl
def tick_finished(run, record): dict(record)

@hookimpl
def checkpoint_saved(run, path): pass
"""


def running(folder: Path, plugins: list[Path], trackers: int) -> Callable[[], None]:
    """A step and the boundary after it, with a tick at every tenth."""
    names = ", ".join(f'{{name = "tracker{number}"}}' for number in range(trackers))
    overrides = ("metric=[]", "train.log_every=10", "train.sample_every=0", "train.checkpoint_every=0")
    experiment, loaded = load_experiment(EXPERIMENT, (*overrides, f"tracker=[{names}]"), plugins)
    training = build(experiment, loaded.registry, places(), CPU)
    folder.mkdir()
    run = RunFolder(folder)
    evaluator = Evaluator(experiment.dataset, training.dataset, places(), CPU, False)
    quiet = make_progress_view(Console(file=io.StringIO()))
    events = EventDispatcher(loaded, run, quiet)
    opened = OpenedRun(
        experiment, loaded, training, evaluator, run, {}, 0, quiet, StopRequest(), events, time.monotonic()
    )
    callbacks = CallbackList(opened)
    callbacks.started(0)
    events.started(experiment.tracker)
    numbers = itertools.count()

    def step() -> None:
        number = next(numbers)
        take_step(training, number)
        callbacks(number + 1)

    return step


def test_ten_more_plugins_and_three_trackers(
    tmp_path: Path, benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for number in range(10):
        files.append(tmp_path / f"plugin{number}.py")
        files[-1].write_text(PLUGIN.format(number=number))
    contest = {
        "alone": running(tmp_path / "alone", [], 0),
        "with ten plugins and three trackers": running(tmp_path / "with", files, 3),
    }
    rates: dict[str, list[float]] = {}

    def compare() -> None:
        rates.update(time_in_turns(contest, 30, CPU, lambda done, total: None))

    benchmark.pedantic(compare, rounds=1)
    slower = median_ratio(*rates.values()) - 1
    with capsys.disabled():
        Console().print(
            f"\n{len(rates['alone'])} rounds: ten more plugins and three trackers add {slower:+.2%} to a step"
        )


@pytest.mark.parametrize("scored", [False, True], ids=["without a metric", "FID of 10,000 first"])
def test_from_the_command_to_step_1(scored: bool, tmp_path: Path, benchmark: Any) -> None:
    """Warm caches: an earlier run has read the data and trained the classifier that FID uses."""
    numbers = itertools.count()

    def start() -> None:
        folder = tmp_path / str(next(numbers))
        options = ["--set", "train.log_every=1", *([] if scored else ["--set", "metric=[]"])]
        command = [sys.executable, "-m", "ganlab", "run", str(EXPERIMENT), "--out", str(folder), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not (folder / "log.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait()

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)
