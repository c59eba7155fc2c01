"""What children do on the pretend device, which is for good in a process: nothing of it happens in a test's own."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from children import Child
from ganlab.config.load import load_experiment
from ganlab.testing.pretend import Event, install, record_events, why_missing
from ganlab.testing.pretend.events import FROM_CPU
from ganlab.training.build import build, captured_train_step
from ganlab.training.loop import Training, take_step
from ganlab.training.state import training_state
from ganlab.utils.errors import GanlabError
from ganlab.utils.paths import places
from ganlab.utils.state_tree import tensors_with_paths
from replay import ReplayRecorder

Work = Callable[..., Any]

needs_pretend = pytest.mark.skipif(bool(why_missing()), reason=f"the pretend device {why_missing()}")
"""Marks a test that is skipped where torch has no backends in Python."""


def on_pretend(work: Work, folder: Path, *arguments: Any, seconds: float = 300) -> Any:
    """Does the work in a child that has the pretend device; returns what the work returns, through JSON."""
    result = folder / "result.json"
    child = Child(partial(_work, work, arguments, str(result)), folder / "child.log")
    code = child.ended(seconds)
    assert code == 0, child.said
    return json.loads(result.read_text())


def _work(work: Work, arguments: tuple[Any, ...], result: str) -> None:
    """What is raised ends the child with its trace in the log and exit code 1, as in any process."""
    install()
    Path(result).write_text(json.dumps(work(*arguments)))


# ---------------------------------------------------------------------------------------------------------------------
# Trainings on both devices
# ---------------------------------------------------------------------------------------------------------------------

PRETEND, CPU = "pretend", "cpu"


def built(file: Path, device: str) -> Training:
    """The training of an experiment file on a device."""
    experiment, plugins = load_experiment(file)
    return build(experiment, plugins.registry, places(), torch.device(device))


def trained(file: Path, device: str, steps: int) -> tuple[dict[str, Tensor], list[Event]]:
    """Trains some steps; the tensors of the state but for random states, on the CPU, and the events of the steps.

    What moves a state to the device does so in the first step, of which there are none.
    """
    training = built(file, device)
    take_step(training, 0)
    with record_events() as events:
        for step in range(1, steps):
            take_step(training, step)
    training.loader.close()
    state = training_state(training, steps)
    found = {path: tensor.detach().cpu() for path, tensor in tensors_with_paths(state, "")}
    return {path: tensor for path, tensor in found.items() if not path.startswith("random")}, events


def compare_trainings(files: Mapping[str, str], steps: int = 4) -> dict[str, list[str]]:
    """What is wrong with each experiment: how the device's training differs from the CPU's, and events of its steps.

    The largest difference is in the text. Copies that load data are left out, and what moves a state to the device in
    the first step.
    """
    found: dict[str, list[str]] = {}
    for name, file in files.items():
        try:
            expected, _ = trained(Path(file), CPU, steps)
            there, events = trained(Path(file), PRETEND, steps)
        except (GanlabError, RuntimeError) as error:  # it is told to the test, and the others go on
            found[name] = ["".join(traceback.format_exception(error))[-2000:]]
            continue
        found[name] = [
            f"{path} differs by {_difference(expected[path], there[path])}"
            for path in expected
            # A scheduled rate is a double on the CPU.
            if path not in there or not (path.endswith(".lr") or torch.equal(expected[path], there[path]))
        ]
        found[name] += sorted({str(event) for event in events if not is_allowed(event)})
    return found


def compare_captured(files: Mapping[str, str], steps: int) -> dict[str, list[Any]]:
    """Each experiment on the device, its steps captured by a recorder that replays: how it differs from eager steps.

    With the number of replays.
    """
    found: dict[str, list[Any]] = {}
    for name, file in files.items():
        expected, there = (_state_of(Path(file), steps, recorder) for recorder in (None, ReplayRecorder()))
        wrong = [path for path, tensor in expected[0].items() if not torch.equal(tensor, there[0][path])]
        found[name] = [*wrong, *there[1:]]
    return found


def _state_of(file: Path, steps: int, recorder: ReplayRecorder | None) -> tuple[Any, ...]:
    training = built(file, PRETEND)
    if recorder is not None:
        registry = load_experiment(file)[1].registry
        captured = captured_train_step(training.game, training.train_step, registry, recorder)
        training = attrs.evolve(training, capture=captured)
    for step in range(steps):
        take_step(training, step)
    training.loader.close()
    state = {path: tensor.cpu() for path, tensor in tensors_with_paths(training_state(training, steps), "")}
    state |= {f"meters.{name}": torch.tensor(value) for name, value in training.game.meters.means().items()}
    if recorder is None or training.capture is None:
        return (state,)
    refusal = training.capture.refusal
    return state, *([refusal] if refusal else []), recorder.replays


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def is_allowed(event: Event) -> bool:
    """Whether an event in a step loads data: the order of an epoch, and batches that are streamed."""
    return event.what == FROM_CPU and f"ganlab{'/'}data" in event.file
