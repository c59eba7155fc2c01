"""What tests of bundled games share that hold a step against the papers' equations, written as a plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganlab.config.converter import InvalidTable
from ganlab.config.load import convert_experiment
from ganlab.plugin.loader import load_plugins
from ganlab.training.build import build
from ganlab.training.loop import Training
from ganlab.utils.errors import UserError
from ganlab.utils.paths import places

LR = 0.002
STEPS = 2

COMMON: dict[str, Any] = {
    "name": "by_hand",
    "optimizer": {"name": "sgd", "lr": LR},
    "train": {"steps": STEPS, "batch_size": 8},
}


def training_of(**table: Any) -> Training:
    plugins = load_plugins()
    return build(convert_experiment({**COMMON, **table}, plugins), plugins.registry, places(), torch.device("cpu"))


def problem(**table: Any) -> str:
    """What is said of an experiment that is refused."""
    with pytest.raises((UserError, InvalidTable)) as caught:
        training_of(**table)
    return str(caught.value)


def descend(loss: Tensor, *networks: nn.Module) -> None:
    """A step of gradient descent of these networks."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= LR * gradient


def assert_same(training: Training, by_hand: dict[str, nn.Module]) -> None:
    for name, network in by_hand.items():
        for (key, wanted), found in zip(
            network.state_dict().items(), training.game.networks[name].state_dict().values(), strict=True
        ):
            torch.testing.assert_close(
                found, wanted, rtol=1e-4, atol=1e-6, msg=lambda text, at=f"{name}.{key}": at + text
            )
