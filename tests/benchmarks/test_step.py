"""A step of ganlab beside one of a tutorial's loop and one by hand, on real images.

    GANLAB_DATA=FOLDER pytest tests/benchmarks/test_step.py

The loops run one after another here; `ganlab bench` lets them take turns, and its ratios are the ones to quote.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ganlab.bench.benchmark import StepFunction, timed_loops
from ganlab.config.load import load_experiment
from ganlab.training.build import build
from ganlab.utils.device import pick_device
from ganlab.utils.paths import places

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "MNIST MLP": ("mnist_mlp.toml", ()),
    "DCGAN 32x32": ("cifar_dcgan.toml", ()),
    "DCGAN 64x64": ("cifar_dcgan.toml", ("dataset.size=64",)),
}


@cache
def loops(case: str) -> dict[str, StepFunction]:
    file, overrides = CASES[case]
    experiment, plugins = load_experiment(EXPERIMENTS / file, overrides)
    return timed_loops(experiment, build(experiment, plugins.registry, places(), pick_device("auto")))


@pytest.mark.parametrize("loop", ["ganlab", "tutorial", "by hand"])
@pytest.mark.parametrize("case", CASES)
def test_step(case: str, loop: str, benchmark: Any) -> None:
    benchmark.group = f"{case}, batch 128"
    benchmark.pedantic(loops(case)[loop], rounds=100 if case == "MNIST MLP" else 10, warmup_rounds=4)
