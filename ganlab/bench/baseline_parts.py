"""What both baseline loops of `ganlab bench` share: networks, optimisers, loss, penalties and the batch of real images.

The parts are built from the experiment in the order in which ganlab builds them, so that the first steps can be
compared value by value. The loops share no code with `ganlab.training`'s step and follow no schedule: an optimiser's
options stay as the experiment has them, which costs the same time.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.schema import DEFAULT_GAME, Experiment
from ganlab.nn import dropout, memory_format
from ganlab.nn.initialise import initialise_network
from ganlab.protocols import Step
from ganlab.training.loop import Training
from ganlab.utils.errors import UserError
from ganlab.utils.rng import derived_seed, seed_everything

RealBatch = tuple[Tensor, Tensor | None]
"""Real images as floats, and their condition."""


@frozen
class BaselineParts:
    """The parts that both baseline loops of the benchmark train with: networks, optimisers, loss and penalties."""

    g: nn.Module
    d: nn.Module
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    loss: Any
    penalties: Any


def build_parts(experiment: Experiment, training: Training, prepared: bool) -> BaselineParts:
    """Builds the parts of a baseline loop: its networks, with the weights of ganlab's at step 0, and its optimisers.

    prepared: use the channels-last format and the quick dropout, as ganlab does.
    """
    device, own = training.game.device, two_network_game(experiment)
    data = training.images
    if not data.is_image or data.dtype != "uint8" or data.conditions:
        what = f"several conditions: {', '.join(data.conditions)}" if data.conditions else data.in_words
        raise UserError(f"dataset: ganlab bench has hand-written loops of uint8 images with one condition; got {what}")
    seed_everything(experiment.seed)
    g = own.generator.build(training.images).to(device).train()
    d = own.discriminator.build(training.images).to(device).train()
    for config, network in ((own.generator, g), (own.discriminator, d)):
        initialise_network(config, network)
    if prepared:
        for network in (g, d):
            memory_format.use_channels_last(network)
            dropout.use_quick_dropout(network, device)
    g_config, d_config = (experiment.optimizers.get(name, experiment.optimizer) for name in training.game.players)
    game = training.game
    penalties = {name: [penalty for _, penalty in player.penalties] for name, player in game.players.items()}
    optimizers = g_config.build(g.parameters()), d_config.build(d.parameters())
    seed_everything(derived_seed(experiment.seed, "training"))
    return BaselineParts(g, d, *optimizers, copy.deepcopy(game.rules.loss), penalties)


def two_network_game(experiment: Experiment) -> Any:
    """Returns the game of an experiment for the baseline loops; raises UserError for one that they do not play."""
    wanted = ("generator", "discriminator", "loss", "discriminator_steps", "discriminator_every", "fresh_noise")
    if not all(hasattr(experiment.game, name) for name in wanted):
        raise UserError(f"game: ganlab bench has hand-written loops of the game {DEFAULT_GAME!r} alone")
    return experiment.game


def clip_gradients(network: nn.Module, experiment: Experiment) -> None:
    if experiment.train.clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), experiment.train.clip_norm)


def logits_of(output: Any) -> Tensor:
    tensor: Tensor = output if isinstance(output, Tensor) else output.logits
    return tensor.float()


def penalty_step(
    player: str,
    parts: BaselineParts,
    real: Tensor,
    fake: Tensor,
    on_real: Any,
    on_fake: Any,
    condition: Tensor | None,
    seen: Tensor,
) -> Step:
    networks = {"generator": parts.g, "discriminator": parts.d}
    return Step(
        player,
        networks,
        real=real,
        fake=fake,
        real_logits=on_real,
        fake_logits=on_fake,
        condition=condition,
        images_seen=seen,
        judged_by="discriminator",
        generated_by="generator",
    )


def due_penalties(parts: BaselineParts, step: Step, updates: int) -> Any:
    due = [penalty for penalty in parts.penalties[step.player] if updates % penalty.every == 0]
    return sum(penalty.every * penalty.penalty(step) for penalty in due)
