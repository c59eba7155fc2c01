"""What both baseline loops of `ganlab bench` share: networks, optimisers, loss, penalties and the batch of real images.

The parts are built from the experiment in the order in which ganlab builds them, so that the first steps can be
compared value by value. The loops share no code with `ganlab.training`'s step and follow no schedule: an optimiser's
options stay as the experiment has them, which costs the same time. They play the default game alone, and take the names
of its networks, and how often each moves, from its rules.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.schema import Experiment
from ganlab.nn import dropout, memory_format
from ganlab.nn.initialise import initialise_network
from ganlab.protocols import Step, build_optimizer, parameters_of
from ganlab.training.loop import Training
from ganlab.training.update import Player
from ganlab.utils.errors import UserError
from ganlab.utils.rng import derived_seed, seed_everything

RealBatch = tuple[Tensor, Tensor | None]
"""Real images as floats, and their condition."""


@frozen
class BaselineParts:
    """The parts that both baseline loops of the benchmark train with: networks, optimisers, loss and penalties.

    `names` are those that the game gave: of the network that is sampled, and of the one that judges its images. In a
    step the judge has `repeats` updates, in every `every`-th step only, with `fresh` latents for the other's update.
    """

    names: tuple[str, str]
    g: nn.Module
    d: nn.Module
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    loss: Any
    penalties: Any
    repeats: int
    every: int
    fresh: bool


def build_parts(experiment: Experiment, training: Training, prepared: bool) -> BaselineParts:
    """Builds the parts of a baseline loop: its networks, with the weights of ganlab's at step 0, and its optimisers.

    prepared: use the channels-last format and the quick dropout, as ganlab does.
    """
    game, rules, device = training.game, training.game.rules, training.game.device
    judging, making = rules.moves
    names = making.players[0], judging.players[0]
    configs: list[Any] = [rules.network(name).config for name in names]
    data = training.images
    if not data.is_image or data.dtype != "uint8" or data.conditions:
        what = f"several conditions: {', '.join(data.conditions)}" if data.conditions else data.in_words
        raise UserError(f"dataset: ganlab bench has hand-written loops of uint8 images with one condition; got {what}")
    seed_everything(experiment.seed)
    g, d = (config.build(training.images).to(device).train() for config in configs)
    for config, network in zip(configs, (g, d), strict=True):
        initialise_network(config, network)
    if prepared:
        for network in (g, d):
            memory_format.use_channels_last(network)
            dropout.use_quick_dropout(network, device)
    penalties = {name: [penalty for _, penalty in player.penalties] for name, player in game.players.items()}
    g_optimizer, d_optimizer = (
        build_optimizer(experiment.optimizers.get(name, experiment.optimizer), parameters_of(name, network))
        for name, network in zip(names, (g, d), strict=True)
    )
    seed_everything(derived_seed(experiment.seed, "training"))
    loss = copy.deepcopy(rules.loss)
    fresh = not judging.unfrozen
    return BaselineParts(names, g, d, g_optimizer, d_optimizer, loss, penalties, judging.repeats, judging.every, fresh)


def clip_gradients(network: nn.Module, player: Player) -> None:
    if player.clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), player.clip_norm)


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
    making, judging = parts.names
    return Step(
        player,
        {making: parts.g, judging: parts.d},
        real=real,
        fake=fake,
        real_logits=on_real,
        fake_logits=on_fake,
        condition=condition,
        images_seen=seen,
        judged_by=judging,
        generated_by=making,
    )


def due_penalties(parts: BaselineParts, step: Step, updates: int) -> Any:
    due = [penalty for penalty in parts.penalties[step.player] if updates % penalty.every == 0]
    return sum(penalty.every * penalty.penalty(step) for penalty in due)
