"""Each part of the state, left out of a checkpoint: the exactness test must see it, or it would see no forgotten one.

The parts are read from the state itself, so a new one that nothing depends on, or that is not restored, fails here.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import field, frozen
from torch import Tensor

from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.protocols import Places, Step
from ganlab.training.build import build
from ganlab.training.checkpoint import load_checkpoint, save_checkpoint
from ganlab.training.loop import Training, take_step
from ganlab.training.state import restore_training, training_state

STEPS, STOP = 9, 6


@frozen
class Dice:
    """An augmentation that draws from Python's and from NumPy's generators."""

    def augment(self, images: Tensor) -> Tensor:
        return images + 0.01 * random.random() + 0.01 * np.random.rand()


@frozen
class Remembering:
    """A penalty with a memory of its own, which also depends on how many images were seen."""

    player: str = "generator"
    every: int = 2
    memory: Tensor = field(factory=lambda: torch.zeros(()), init=False, eq=False)

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.copy_(state["memory"])

    def penalty(self, step: Step) -> Tensor:
        size = step.fake.square().mean()
        self.memory.lerp_(size.detach(), 0.1)
        return (size - self.memory).square() * (1 + 1e-3 * step.images_seen)


@pytest.fixture
def plugins() -> Plugins:
    loaded = load_plugins()
    loaded.registry._frozen = False
    origin = Origin("test", "file", "", "", None)
    loaded.registry.register("augmentation", "dice", Dice, origin)
    loaded.registry.register("penalty", "remembering", Remembering, origin)
    return loaded


@pytest.fixture
def start(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> Any:
    """Builds the training anew, from the experiment on."""
    table["train"] |= {"steps": STEPS, "ema": 0.9}
    table |= {"augmentation": [{"name": "dice"}], "penalty": [{"name": "remembering"}]}

    def start() -> Training:
        return build(
            convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu")
        )

    return start


def steps(training: Training, first: int, end: int) -> dict[str, Any]:
    for step in range(first, end):
        take_step(training, step)
    return copy.deepcopy(training_state(training, end))


def parts(state: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The places of a state that could be forgotten one by one; a network's weights are one."""
    for part, value in state.items():
        if part in ("generator", "discriminator", "ema"):
            yield (part,)
        else:
            yield from ((part, str(key)) for key in value)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_run_goes_on_exactly_with_all_parts_and_with_none_left_out(start: Any, tmp_path: Path) -> None:
    whole = steps(start(), 0, STEPS)
    path = save_checkpoint(tmp_path / "checkpoints", STOP, steps(start(), 0, STOP))
    saved = load_checkpoint(path)

    resumed = start()
    random.seed(77)  # whatever another process would begin with
    np.random.seed(77)
    torch.manual_seed(77)
    restore_training(resumed, copy.deepcopy(saved))
    assert same(steps(resumed, STOP, STEPS), whole)

    for place in parts(saved):
        other = start()
        random.seed(77)
        np.random.seed(77)
        torch.manual_seed(77)
        lacking = copy.deepcopy(saved)
        initial = copy.deepcopy(training_state(other, 0))
        if len(place) == 1:
            lacking[place[0]] = initial[place[0]]
        else:
            lacking[place[0]][place[1]] = initial[place[0]][place[1]]
        if same(lacking, saved):
            pytest.fail(f"{place}: nothing had changed in it, so nothing is tested")
        restore_training(other, lacking)
        equal = same(steps(other, STOP, STEPS), whole)
        # The loop is given the step by the checkpoint's name; this one is there to be read.
        assert equal == (place == ("progress", "step")), place
