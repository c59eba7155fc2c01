"""Benchmark of an experiment's training step: timed in turns with two baseline loops that do the same arithmetic.

Decisions:
- Another game than the default one has one baseline loop, which it brings itself (`game_loop`).
- The loops take turns of a fraction of a second, and a ratio is the median over rounds: other load on the machine slows
  all of them.
- ganlab's steps are those of `ganlab run`, with its meters, which are read once a tick.
- The parts of a step are timed in a separate pass, because on CUDA each measurement synchronizes with the device.
- Whether the step could be captured as a CUDA graph is found on any device, by the watch that training uses.
- The cost of a plugin in the step is the difference to the same experiment without it, also timed in turns.
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

from ganlab.bench import game_loop, hand_written_loop, tutorial_loop
from ganlab.config.load import load_experiment
from ganlab.config.schema import DEFAULT_GAME, Experiment
from ganlab.plugin.loader import Plugins
from ganlab.training.build import build, captured_train_step
from ganlab.training.cuda_graphs import WARM, WATCHED, EagerRecorder, dry_run_capture
from ganlab.training.loop import Training, take_step
from ganlab.utils.device import can_capture, device_name, pick_device, synchronize
from ganlab.utils.errors import UserError, quote
from ganlab.utils.paths import places

TURN_SECONDS = 0.4
"""How many seconds one loop runs before the next has its turn, at least."""

MIN_ROUNDS = 5

CAPTURED_AT = WARM + WATCHED + 1
"""The step of a kind that is captured as a graph; the first ones allocate memory and choose kernels."""

STEP_KINDS = ("loss_wrapper", "penalty", "augmentation")
"""The kinds of component whose cost in the step is measured by leaving them out."""

StepFunction = Callable[[], None]
Progress = Callable[[str, int, int], None]


def run_benchmark(
    path: Path,
    overrides: tuple[str, ...],
    device: str,
    seconds: float,
    plugin_files: tuple[Path, ...],
    progress: Progress,
) -> dict[str, Any]:
    """Runs the whole benchmark of an experiment and returns its results as JSON.

    seconds: how long the three loops are timed in turns, with `MIN_ROUNDS` rounds at least.
    """
    experiment, plugins = load_experiment(path, overrides, plugin_files)
    game = plugins.registry.component_of("game", experiment.game).name
    if game != DEFAULT_GAME:
        game_loop.check_game(game, experiment.game)
    on = pick_device(device)
    training = _build_training(path, experiment, plugins, on)
    _check_options(path, experiment, training)
    if game != DEFAULT_GAME:
        game_loop.check_plain_options(experiment, training)
    loops = timed_loops(experiment, training, game == DEFAULT_GAME)
    rounds = time_in_turns(loops, seconds, on, partial(progress, "loops"), warm_up_steps(training))
    result: dict[str, Any] = {
        "experiment": experiment.name,
        "device": device_name(on),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_size": experiment.train.batch_size,
        "precision": experiment.train.precision,
        "rounds": len(rounds["ganlab"]),
        "steps_per_second": {name: statistics.median(rates) for name, rates in rounds.items()},
        "ratios": {name: median_ratio(rounds["ganlab"], rounds[name]) for name in loops if name != "ganlab"},
        "levers": training.step_optimizations,
    }
    progress("parts of a step", 0, 1)
    turns = captured_train_step(
        training.game, training.train_step, plugins.registry, EagerRecorder(), training.schedules.eager_reason
    )
    result["unfit_for_capture"] = dry_run_capture(turns, training.loader.batch)
    result["milliseconds"] = time_step_parts(experiment, training)
    result["ceilings"] = measure_machine_limits(training, result["steps_per_second"]["ganlab"])
    result["plugins"] = time_plugins(path, experiment, plugins, on, seconds / 2, progress)
    penalties = [part["time"] for part in result["plugins"] if part["kind"] == "penalty"]
    if penalties:
        # The mean cost of a lazy penalty per step, which no single step shows; included in the updates above.
        step = 1000 / result["steps_per_second"]["ganlab"]
        result["milliseconds"]["penalties"] = sum(step * (1 - 1 / time) for time in penalties)
    return result


def _build_training(path: Path, experiment: Experiment, plugins: Plugins, device: torch.device) -> Training:
    try:
        return build(experiment, plugins.registry, places(), device)
    except UserError as error:
        raise UserError(*(f"{path}: {line}" for line in error.problems)) from None


def _check_options(path: Path, experiment: Experiment, training: Training) -> None:
    """Raises UserError for the options of `[train]` that the benchmark's baseline loops do not implement."""
    without = "the plain loops of bench do without it, got"
    if training.game.accumulate != 1:
        raise UserError(f"{path}: train.accumulate: {without} {training.game.accumulate}; use 1")
    if frozen := experiment.train.freeze:
        raise UserError(f"{path}: train.freeze: {without} {quote(frozen)}; leave it out")
    for move in training.game.rules.moves:
        if move.stop_under is not None:
            raise UserError(f"{path}: train.stop_{move.name}_under: {without} {move.stop_under}; leave it out")


def timed_loops(experiment: Experiment, training: Training, default_game: bool = True) -> dict[str, StepFunction]:
    """The loops that the benchmark times: ganlab and both baselines, or the one of a game that is not the default."""
    if not default_game:
        by_hand = game_loop.plain_game_step(experiment, training)[0]
        return {"ganlab": ganlab_step(experiment, training), "by hand": by_hand}
    return {
        "ganlab": ganlab_step(experiment, training),
        "tutorial": tutorial_loop.tutorial_step(experiment, training)[0],
        "by hand": hand_written_loop.hand_written_step(experiment, training)[0],
    }


def ganlab_step(experiment: Experiment, training: Training) -> StepFunction:
    """ganlab's loop in the benchmark: returns a function that takes one step; it reads the meters once a tick."""
    steps = itertools.count()
    every = max(1, experiment.train.log_every.in_steps(training.steps_per_epoch))

    def step() -> None:
        number = next(steps)
        take_step(training, number)
        if (number + 1) % every == 0:
            training.game.meters.means()
            training.game.meters.reset()

    return step


def warm_up_steps(training: Training) -> int:
    """How many steps the loops of a benchmark take until each kind of step is captured, where steps are captured."""
    if not can_capture(training.game.device):
        return CAPTURED_AT
    signature, steps = training.train_step.signature, 0
    left = dict.fromkeys(map(signature, range(1000)), CAPTURED_AT)
    while max(left.values()) > 0:
        left[signature(steps)] -= 1
        steps += 1
    return steps


def time_in_turns(
    loops: Mapping[str, StepFunction],
    seconds: float,
    device: torch.device,
    progress: Callable[[int, int], None],
    warm_up: int = CAPTURED_AT,
) -> dict[str, list[float]]:
    """Benchmarks loops in turns, after `warm_up` steps; returns the steps per second of each in each round."""
    lengths = {}
    for name, step in loops.items():
        for _ in range(warm_up):
            step()
        once = _timed(step, 1, device)
        lengths[name] = max(1, round(TURN_SECONDS / max(once, 1e-9)))
    rates: dict[str, list[float]] = {name: [] for name in loops}
    began = time.perf_counter()
    while len(rates[next(iter(loops))]) < MIN_ROUNDS or time.perf_counter() - began < seconds:
        for name, step in loops.items():
            rates[name].append(lengths[name] / _timed(step, lengths[name], device))
        progress(min(round(time.perf_counter() - began), round(seconds)), round(seconds))
    return rates


def _timed(step: Callable[[], Any], count: int, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    return time.perf_counter() - began


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The benchmark's ratio of two loops' speeds, ours to theirs: the median over rounds."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def time_step_parts(experiment: Experiment, training: Training, steps: int = 15) -> dict[str, float]:
    """Benchmarks each part of a training step; returns the median milliseconds of each."""
    device = training.game.device
    times: dict[str, list[float]] = {}

    def took(name: str, work: Callable[[], Any]) -> Any:
        synchronize(device)
        began = time.perf_counter()
        result = work()
        synchronize(device)
        times.setdefault(name, []).append(time.perf_counter() - began)
        return result

    for step in range(steps):
        batch = step * training.train_step.batches_per_step
        for phase in training.train_step.phases:
            for updates in phase.updates_before(step):
                if phase.new_batch:
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


def measure_machine_limits(training: Training, steps_per_second: float) -> dict[str, Any]:
    """Benchmarks the machine: its peak rate of matrix products, memory bandwidth, and a step's share of the rate."""
    device = training.game.device
    dtype = training.game.autocast or torch.float32  # "tf32" is set for the process
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = min(_timed(lambda: torch.mm(a, b), 3, device) for _ in range(4)) / 3
    numbers = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)
    other = torch.empty_like(numbers)
    copy = min(_timed(lambda: other.copy_(numbers), 3, device) for _ in range(4)) / 3
    operations = 0.0
    for phase in training.train_step.phases:
        # Not a captured step, which has no operations to count.
        with _FlopCounter() as counter:
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


class _FlopCounter(TorchDispatchMode):
    """The benchmark's counter of floating-point operations; torch's own counter misses those of gradient penalties."""

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


def time_plugins(
    path: Path, experiment: Experiment, plugins: Plugins, device: torch.device, seconds: float, progress: Progress
) -> list[dict[str, Any]]:
    """Part of the benchmark: times the step with and without each plugin; returns the ratio of step times for each."""
    found = []
    experiment = attrs.evolve(experiment, schedule=())  # a schedule may target what is left out
    for kind in STEP_KINDS:
        components = getattr(experiment, kind)
        for index, component in enumerate(components):
            name = plugins.registry.component_of(kind, component).name
            without: Any = attrs.evolve(experiment, **{kind: components[:index] + components[index + 1 :]})
            variants = {"with": experiment, "without": without}
            built = {label: _build_training(path, variant, plugins, device) for label, variant in variants.items()}
            loops = {label: ganlab_step(variants[label], training) for label, training in built.items()}
            warm_up = max(map(warm_up_steps, built.values()))
            rates = time_in_turns(loops, seconds, device, partial(progress, name), warm_up)
            found.append({"kind": kind, "name": name, "time": median_ratio(rates["without"], rates["with"])})
    return found
