"""The loop, held against a plain hand-written loop of the same arithmetic: same seed, same parameters after 20 steps.

The plain loop below shares with ganlab only torch, the networks' layers and the definition of the streams (the seed of
the data's order, the start of the training noise); order of operations, freezing, penalties, averaging are its own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ganlab.config.load import convert_experiment
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Places
from ganlab.training.build import build
from ganlab.training.loop import train
from ganlab.utils.rng import derived_seed
from tiers import spread

STEPS, BATCH = 20, 16


def generator() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 64), nn.Tanh())


class Dropout(nn.Module):
    """Keeps a value where 16 random bits, a whole number from -32768 to 32767, are below the share that is kept."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.kept = round((1 - p) * 65536)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).numpy().view(np.int16)
        keep = bits[: x.numel()].astype(int) + 32768 < self.kept
        return x * torch.from_numpy(keep).reshape(x.shape) * (65536 / self.kept)


def discriminator(dropout: float) -> nn.Sequential:
    layers = [nn.Linear(64, 16), nn.LeakyReLU(0.2), Dropout(dropout), nn.Linear(16, 1)]
    return nn.Sequential(*(layer for layer in layers if dropout or not isinstance(layer, Dropout)))


def plain_loop(
    images: torch.Tensor,
    *,
    seed: int = 0,
    dropout: float = 0.2,
    critic_steps: int = 1,
    real_target: float = 1.0,
    l2: float = 0.0,
    ema: float = 0.0,
    fresh_noise: bool = True,
    critic_every: int = 1,
    clip: float | None = None,
    stop: tuple[float, float] = (-math.inf, -math.inf),
    stops: list[str] | None = None,
) -> dict[str, torch.Tensor]:
    """The vanilla GAN as one would write it by hand. `stops` takes the name of the player of each update left out."""

    def update(name: str, loss: torch.Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            norm = sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5
            for gradient in gradients:
                gradient.mul_(min(1.0, clip / norm))
        if loss_alone[name] >= stop["dg".index(name)]:
            optimizer.step()
        elif stops is not None:
            stops.append(name)

    torch.manual_seed(seed)
    g, d = generator(), discriminator(dropout)
    average = {name: value.clone() for name, value in g.state_dict().items()}
    g_optimizer = torch.optim.Adam(g.parameters(), 1e-3, (0.5, 0.999), fused=True)
    d_optimizer = torch.optim.Adam(d.parameters(), 1e-3, (0.5, 0.999), fused=True)
    per_epoch = len(images) // BATCH
    torch.manual_seed(derived_seed(seed, "training"))
    number = 0
    loss_alone = {}
    for step in range(STEPS):
        for _ in range(critic_steps):
            epoch, position = divmod(number, per_epoch)
            order = torch.randperm(
                len(images), generator=torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
            )
            real = images[order[position * BATCH : (position + 1) * BATCH]].float() / 127.5 - 1
            number += 1
            if step % critic_every:
                continue
            fake = g(torch.randn(BATCH, 8))
            on_real, on_fake = d(real.flatten(1)), d(fake.detach())
            loss = binary_cross_entropy_with_logits(on_real, torch.full_like(on_real, real_target))
            loss = loss + binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
            loss_alone["d"] = loss.item()
            update("d", loss, d, d_optimizer)
        if fresh_noise or step % critic_every:
            fake = g(torch.randn(BATCH, 8))
        on_fake = d(fake)
        loss = binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        loss_alone["g"] = loss.item()
        if l2:
            loss = loss + l2 * torch.cat([p.flatten() for p in g.parameters()]).norm()
        update("g", loss, g, g_optimizer)
        with torch.no_grad():
            for name, value in g.state_dict().items():
                average[name].mul_(ema).add_(value, alpha=1 - ema)
    result = {f"g.{name}": value for name, value in g.state_dict().items()}
    result |= {f"d.{name}": value for name, value in d.state_dict().items()}
    return result | {f"average.{name}": value for name, value in average.items()}


def with_ganlab(table: dict[str, Any], tmp_path: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    plugins = load_plugins()
    experiment = convert_experiment(table, plugins)
    training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))
    train(training, 0, lambda step: None)
    names = {"g": training.game.players["generator"].network, "d": training.game.players["discriminator"].network}
    if training.ema:
        names["average"] = training.ema.networks["generator"]
    parameters = {f"{name}.{key}": v for name, net in names.items() for key, v in net.layers.state_dict().items()}  # type: ignore[union-attr]
    return parameters, training.dataset.images


STOP = (1.25, 0.76)
PLAIN: dict[str, Any] = {"discriminator": {"name": "mlp", "hidden": [16]}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vanilla": ({}, {}),
    "seed": ({"seed": 7}, {"seed": 7}),
    "shared noise": ({"train": {"fresh_noise": False}}, {"fresh_noise": False}),
    "discriminator steps": ({"train": {"discriminator_steps": 3}}, {"critic_steps": 3}),
    "shared noise and discriminator steps": (
        {"train": {"fresh_noise": False, "discriminator_steps": 2}},
        {"fresh_noise": False, "critic_steps": 2},
    ),
    "label smoothing": ({"loss_wrapper": [{"name": "label_smoothing"}]}, {"real_target": 0.9}),
    "l2 penalty": ({"penalty": [{"name": "l2_generator", "weight": 0.1}]}, {"l2": 0.1}),
    "average": ({"train": {"ema": 0.9}}, {"ema": 0.9}),
    "discriminator every third step": ({"train": {"discriminator_every": 3}}, {"critic_every": 3}),
    "shared noise, where there is some": (
        {"train": {"fresh_noise": False, "discriminator_every": 2}},
        {"fresh_noise": False, "critic_every": 2},
    ),
    "clipped": (
        {"train": {"clip_norm": 0.05}, "penalty": [{"name": "l2_generator", "weight": 0.1}]},
        {"clip": 0.05, "l2": 0.1},
    ),
    "stopped": (
        {"train": {"stop_discriminator_under": STOP[0], "stop_generator_under": STOP[1]}},
        {"stop": STOP},
    ),
    "in parts": (
        {**PLAIN, "train": {"accumulate": 4}, "penalty": [{"name": "l2_generator", "weight": 0.1}]},
        {"dropout": 0.0, "l2": 0.1},
    ),
    "in parts, shared noise, stopped, clipped": (
        {
            **PLAIN,
            "train": {
                "accumulate": 2,
                "discriminator_steps": 2,
                "fresh_noise": False,
                "clip_norm": 0.3,
                "stop_discriminator_under": STOP[0],
            },
        },
        {"dropout": 0.0, "critic_steps": 2, "fresh_noise": False, "clip": 0.3, "stop": (STOP[0], -math.inf)},
    ),
}


@pytest.mark.parametrize("case", spread(8, CASES))
def test_twenty_steps_equal_the_plain_loop(case: str, table: dict[str, Any], tmp_path: Path) -> None:
    changes, plain = CASES[case]
    table["train"] |= {"steps": STEPS, "batch_size": BATCH, **changes.get("train", {})}
    table |= {key: value for key, value in changes.items() if key != "train"}
    ours, images = with_ganlab(table, tmp_path)
    theirs = plain_loop(images, **plain)
    assert len(ours) >= 8
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6, msg=f"{case}: {name}")


def test_the_bounds_above_stop_some_updates_and_not_all(table: dict[str, Any], tmp_path: Path) -> None:
    """The generator's first among them, before which Adam has no moments yet."""
    stops: list[str] = []
    plain_loop(with_ganlab(table, tmp_path)[1], stop=STOP, stops=stops)
    assert all(0 < stops.count(name) < STEPS for name in "dg")
    assert stops[0] == "g"


def test_the_plain_loop_can_tell(table: dict[str, Any], tmp_path: Path) -> None:
    """The comparison above fails where the arithmetic is another: one seed off, and no parameter agrees."""
    table["train"] |= {"steps": STEPS, "batch_size": BATCH}
    ours, images = with_ganlab(table, tmp_path)
    theirs = plain_loop(images, seed=1)
    assert not any(torch.allclose(value, theirs[name], rtol=1e-5, atol=1e-6) for name, value in ours.items())


def test_several_epochs_see_every_image_once_an_epoch(table: dict[str, Any], tmp_path: Path) -> None:
    plugins = load_plugins()
    training = build(
        convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu")
    )
    loader = training.loader.main
    for epoch in range(3):
        order = loader.order(epoch)
        assert sorted(order.tolist()) == list(range(len(training.dataset.images)))
    assert not torch.equal(loader.order(0), loader.order(1))
    assert torch.equal(loader.batch(0).images, loader.batch(0).images)
    first_of_second = loader.batch(loader.batches_per_epoch).images
    expected = training.dataset.images[loader.order(1)[:16]].float() / 127.5 - 1
    torch.testing.assert_close(first_of_second, expected)
