"""The EMA of the generator's weights, against the recursion written out in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganlab.config.load import convert_experiment
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Places
from ganlab.run.run_folder import read_info
from ganlab.training.build import build
from ganlab.training.loop import Training, take_step

STEPS, BATCH = 12, 16
IMAGES = 2 * BATCH  # a step, with two updates of the discriminator


def built(table: dict[str, Any], tmp_path: Path, **options: Any) -> Training:
    changed = copy.deepcopy(table)
    schedule = options.pop("schedule", [])
    changed["train"] |= {"steps": STEPS, "batch_size": BATCH, "discriminator_steps": 2, **options}
    changed |= {"schedule": schedule, "optimizer": {"name": "sgd", "lr": 0.5}}
    plugins = load_plugins()
    return build(
        convert_experiment(changed, plugins), plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu")
    )


def trained(training: Training) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """The generator's weights before and after each step, and the average in the end."""

    def flat(network: torch.nn.Module) -> np.ndarray[Any, Any]:
        return torch.cat([p.detach().flatten() for p in network.parameters()]).double().numpy()

    weights = [flat(training.game.players["generator"].network)]
    for step in range(STEPS):
        take_step(training, step)
        weights.append(flat(training.game.players["generator"].network))
    assert training.ema is not None
    return weights, flat(training.ema.networks["generator"])


HALF, WARMUP = 200.0, 0.25
SCHEDULE = [{"name": "linear", "key": "train.ema_half_life", "to": 1000.0}]
LINE = np.linspace(HALF, 1000, STEPS + 1)[:-1]
SEEN = np.arange(STEPS) * IMAGES
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "half-life": ({}, np.full(STEPS, HALF)),
    "warm-up": ({"ema_warmup": WARMUP}, np.minimum(HALF, WARMUP * SEEN)),
    "schedule": ({"schedule": SCHEDULE}, LINE),
    "schedule and warm-up": ({"schedule": SCHEDULE, "ema_warmup": 1.0}, np.minimum(LINE, SEEN)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_average_is_the_recursion(case: str, table: dict[str, Any], tmp_path: Path) -> None:
    """Karras et al. 2020: half-life at most a share of the images seen, and a decay of 0.5 to images over half-life."""
    options, half_lives = CASES[case]
    weights, average = trained(built(table, tmp_path, ema_half_life=HALF, **options))
    expected = weights[0]
    for half_life, now in zip(half_lives, weights[1:], strict=True):
        decay = 0.5 ** (IMAGES / half_life) if half_life else 0.0
        expected = decay * expected + (1 - decay) * now
    np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(average - weights[-1]).max() > 1e-3, "an average that is not just the last weights"


def test_a_half_life_is_the_decay_that_belongs_to_it(table: dict[str, Any], tmp_path: Path) -> None:
    _, by_images = trained(built(table, tmp_path, ema_half_life=HALF))
    _, by_steps = trained(built(table, tmp_path, ema=0.5 ** (IMAGES / HALF)))
    assert np.array_equal(by_images, by_steps)


def test_after_a_half_life_the_old_weights_are_halved(table: dict[str, Any], tmp_path: Path) -> None:
    """Of a generator that stands still at 0 after the start at 1."""
    training = built(table, tmp_path, ema_half_life=4.0 * IMAGES)
    assert training.ema is not None
    with torch.no_grad():
        for average, weight in zip(
            training.ema.networks["generator"].parameters(),
            training.game.players["generator"].network.parameters(),
            strict=True,
        ):
            average.fill_(1)
            weight.fill_(0)
    for _ in range(4):
        training.ema.update()
    assert all(p.allclose(torch.tensor(0.5)) for p in training.ema.networks["generator"].parameters())


def test_running_statistics_are_copied(table: dict[str, Any], tmp_path: Path) -> None:
    table["dataset"]["size"] = 16
    table["generator"] = {"name": "dcgan", "latent_dim": 8, "channels": 4}
    training = built(table, tmp_path, ema=0.9)
    assert training.ema is not None
    average, network = training.ema.networks["generator"], training.game.players["generator"].network
    before = [buffer.clone() for buffer in average.buffers()]
    take_step(training, 0)
    pairs = list(zip(before, average.buffers(), network.buffers(), strict=True))
    assert pairs
    assert all(torch.equal(copied, its) and not torch.equal(copied, old) for old, copied, its in pairs)


def test_it_is_said_whose_weights_are_scored(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    said = "of the running average of the weights"
    for name, options, weights in (("plain", {}, "plain"), ("ema", {"ema_half_life": 100.0}, "ema")):
        table["train"] |= options
        code, out, err = ganlab("run", write(table), "--out", name)
        assert code == 0, out + err
        assert read_info(Path(name))["weights"] == weights
        assert (said in out) == (weights == "ema")
        assert ganlab("report", name, "--html", f"{name}.html")[0] == 0
        assert (said in Path(f"{name}.html").read_text()) == (weights == "ema")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"ema": 0.9, "ema_half_life": 10.0}, "train.ema_half_life: give one of 'ema' and 'ema_half_life', not both"),
        ({"ema_warmup": 0.05}, "train.ema_warmup: needs 'ema_half_life', which it shortens at first"),
        ({"ema_half_life": -1.0}, "train.ema_half_life: must be >= 0, got -1.0"),
    ],
)
def test_what_does_not_go_together(
    options: dict[str, Any],
    line: str,
    table: dict[str, Any],
    write: Callable[..., Path],
    ganlab: Callable[..., tuple[int, str, str]],
) -> None:
    table["train"] |= options
    file = write(table)
    assert ganlab("run", file, "--dry-run") == (2, "", f"{file}: {line}\n")


REPLACING = """
import ganlab, torch
from attrs import frozen
from torch import nn

class Network(nn.Module):
    latent_dim = 4

    def __init__(self, images):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, images.size), nn.Unflatten(1, images.shape))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z, condition=None):
        self.calls = self.calls + 1
        return self.layers(z).tanh()

@frozen
class Replacing:
    def build(self, images):
        return Network(images)

@ganlab.hookimpl
def register_generators(register):
    register("replacing", Replacing)
"""


def test_a_replaced_buffer_is_refused_where_there_is_an_average(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    """The average holds the first tensor, which never changes again."""
    Path("replacing.py").write_text(REPLACING)
    path = write(table | {"plugins": ["replacing.py"], "generator": {"name": "replacing"}})
    code, _, err = ganlab("run", path, "--set", "train.ema=0.9", "--out", "r")
    assert code == 2
    assert "generator: replaces its buffer 'calls', of which a running average (train.ema) would keep" in err
    assert ganlab("run", path, "--out", "r")[0] == 0
