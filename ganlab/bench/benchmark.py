"""`ganlab bench`: how fast an experiment's step is, held in one run against plain loops of the same arithmetic.

Decisions:
- Contestants take turns, a fraction of a second each, and a ratio is the median of the ratios of each round: what else
  the machine does meanwhile hits them all.
- ganlab's steps are those of `ganlab run`, with the records' sums and their reading once a tick.
- Where the time goes is measured in a pass of its own, because on CUDA its clock makes the host wait for the device.
- Whether the step could be captured as a CUDA graph is found on any device, by the watch that training uses.
- What a plugin in the step costs is the difference to the same experiment without it, again in turns.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ganlab.bench import baselines
from ganlab.config.load import load_experiment
from ganlab.config.schema import Experiment
from ganlab.plugin.loader import Plugins
from ganlab.training.build import build, captured_train_step
from ganlab.training.cuda_graphs import EagerRecorder, dry_run_capture
from ganlab.training.loop import Training, take_step
from ganlab.utils.device import device_name, pick_device
from ganlab.utils.errors import UserError
from ganlab.utils.paths import places

TURN = 0.4
"""Seconds of a contestant's turn, at least."""

LEAST_ROUNDS = 5
IN_STEP = ("loss_wrapper", "penalty", "augmentation")
"""The kinds of plugin whose cost in the step is measured by leaving them out."""

NOT_IN_THE_RIVALS: dict[str, int | None] = {
    "accumulate": 1,
    "stop_discriminator_under": None,
    "stop_generator_under": None,
}
"""What `[train]` must say, since the loops that ganlab is held against have nothing of the kind."""

Contestant = Callable[[], None]
Progress = Callable[[str, int, int], None]


def bench(
    path: Path, overrides: tuple[str, ...], device: str, seconds: float, plugin_files: tuple[Path, ...], shown: Progress
) -> dict[str, Any]:
    """Everything that is measured, as JSON; `seconds` is how long the main contest lasts."""
    experiment, plugins = load_experiment(path, overrides, plugin_files)
    for key, wanted in NOT_IN_THE_RIVALS.items():
        if (value := getattr(experiment.train, key)) != wanted:
            how = "leave it out" if wanted is None else f"use {wanted}"
            raise UserError(f"{path}: train.{key}: the plain loops of bench do without it, got {value}; {how}")
    on = pick_device(device)
    training = _built(path, experiment, plugins, on)
    rounds = in_turns(contestants(experiment, training), seconds, on, partial(shown, "contest"))
    names = ("tutorial", "by hand")
    result: dict[str, Any] = {
        "experiment": experiment.name,
        "device": device_name(on),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_size": experiment.train.batch_size,
        "precision": experiment.train.precision,
        "rounds": len(rounds["ganlab"]),
        "steps_per_second": {name: statistics.median(rates) for name, rates in rounds.items()},
        "ratios": {name: median_ratio(rounds["ganlab"], rounds[name]) for name in names},
        "levers": training.step_optimizations,
    }
    shown("parts of a step", 0, 1)
    turns = captured_train_step(training.game, training.train_step, plugins.registry, EagerRecorder(), training.schedules.eager_reason)
    result["unfit_for_capture"] = dry_run_capture(turns, training.loader.batch)
    result["milliseconds"] = parts_of_a_step(experiment, training)
    result["ceilings"] = ceilings(training, result["steps_per_second"]["ganlab"])
    result["plugins"] = plugin_costs(path, experiment, plugins, on, seconds / 2, shown)
    penalties = [part["time"] for part in result["plugins"] if part["kind"] == "penalty"]
    if penalties:
        # What a lazy penalty costs a step in the mean, which no single step shows. A part of the phases above.
        step = 1000 / result["steps_per_second"]["ganlab"]
        result["milliseconds"]["penalties"] = sum(step * (1 - 1 / time) for time in penalties)
    return result


def _built(path: Path, experiment: Experiment, plugins: Plugins, device: torch.device) -> Training:
    try:
        return build(experiment, plugins.registry, places(), device)
    except UserError as error:
        raise UserError(*(f"{path}: {line}" for line in error.problems)) from None


def contestants(experiment: Experiment, training: Training) -> dict[str, Contestant]:
    """A step of each loop."""
    return {
        "ganlab": stepping(experiment, training),
        "tutorial": baselines.tutorial(experiment, training)[0],
        "by hand": baselines.by_hand(experiment, training)[0],
    }


def stepping(experiment: Experiment, training: Training) -> Contestant:
    """ganlab's own steps, one a call, with the reading of the meters once a tick."""
    steps = itertools.count()
    every = max(1, experiment.train.log_every.in_steps(training.steps_per_epoch))

    def step() -> None:
        number = next(steps)
        take_step(training, number)
        if (number + 1) % every == 0:
            training.game.meters.means()
            training.game.meters.reset()

    return step


def in_turns(
    contest: Mapping[str, Contestant], seconds: float, device: torch.device, shown: Callable[[int, int], None]
) -> dict[str, list[float]]:
    """Steps a second of each contestant in each round."""
    lengths = {}
    for name, step in contest.items():
        for _ in range(4):  # memory, kernels and caches are found in the first steps, and a capture is the fourth
            step()
        once = _timed(step, 1, device)
        lengths[name] = max(1, round(TURN / max(once, 1e-9)))
    rates: dict[str, list[float]] = {name: [] for name in contest}
    began = time.perf_counter()
    while len(rates[next(iter(contest))]) < LEAST_ROUNDS or time.perf_counter() - began < seconds:
        for name, step in contest.items():
            rates[name].append(lengths[name] / _timed(step, lengths[name], device))
        shown(min(round(time.perf_counter() - began), round(seconds)), round(seconds))
    return rates


def _timed(step: Callable[[], Any], count: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of how many times as fast we are."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def parts_of_a_step(experiment: Experiment, training: Training, steps: int = 15) -> dict[str, float]:
    """Median milliseconds of each part of a step."""
    device = training.game.device
    times: dict[str, list[float]] = {}

    def took(name: str, work: Callable[[], Any]) -> Any:
        _wait(device)
        began = time.perf_counter()
        result = work()
        _wait(device)
        times.setdefault(name, []).append(time.perf_counter() - began)
        return result

    for step in range(steps):
        batch = step * training.train_step.batches_per_step
        for phase in training.train_step.phases:
            for updates in phase.updates_before(step):
                if phase.new_images:
                    real = took("data", partial(training.loader.batch, batch))
                    batch += 1
                if updates is not None:
                    took(phase.name, partial(phase.update, real, updates))
        if training.ema is not None:
            took("average", training.ema.update)
        took("logging", training.game.meters.means)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    for phase in training.train_step.phases:
        medians[phase.name] *= phase.repeats / phase.every
    medians["data"] *= training.train_step.batches_per_step
    medians["logging"] /= max(1, experiment.train.log_every.in_steps(training.steps_per_epoch))
    return medians


def ceilings(training: Training, steps_per_second: float) -> dict[str, Any]:
    """The machine's measured ceilings for products and for memory, and the share of the first that a step reaches."""
    device = training.game.device
    dtype = torch.bfloat16 if device.type == "cuda" or training.game.autocast else torch.float32
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = min(_timed(lambda: torch.mm(a, b), 3, device) for _ in range(4)) / 3
    numbers = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)
    other = torch.empty_like(numbers)
    copy = min(_timed(lambda: other.copy_(numbers), 3, device) for _ in range(4)) / 3
    operations = 0.0
    for phase in training.train_step.phases:
        # Not a captured step, which has no operations to count.
        with _Flops() as counter:
            for updates in range(phase.repeats):
                phase.update(training.loader.batch(updates), updates)
        operations += counter.total / phase.every
    flops = 2 * size**3 / product
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "gflop_per_step": operations / 1e9,
        "gflops": flops / 1e9,
        "gigabytes_per_second": 2 * numbers.nbytes / copy / 1e9,
        "share": operations * steps_per_second / flops,
    }


class _Flops(TorchDispatchMode):
    """Counts by torch's formulas. torch's own counter also follows modules, and so cannot see a gradient penalty."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def plugin_costs(
    path: Path, experiment: Experiment, plugins: Plugins, device: torch.device, seconds: float, shown: Progress
) -> list[dict[str, Any]]:
    """For each plugin in the step, how many times as long a step takes with it as without."""
    found = []
    experiment = attrs.evolve(experiment, schedule=())  # which may move an option of what is left out
    for kind in IN_STEP:
        components = getattr(experiment, kind)
        for index, component in enumerate(components):
            name = plugins.registry.component_of(kind, component).name
            without: Any = attrs.evolve(experiment, **{kind: components[:index] + components[index + 1 :]})
            contest = {
                label: stepping(variant, _built(path, variant, plugins, device))
                for label, variant in (("with", experiment), ("without", without))
            }
            rates = in_turns(contest, seconds, device, partial(shown, name))
            found.append({"kind": kind, "name": name, "time": median_ratio(rates["without"], rates["with"])})
    return found
