"""Probes: small trials that find, before the run folder exists, what networks, penalties and optimisers do.

Decisions:
- A probe works on copies: no state, statistic or weight of the training changes. The random numbers that it draws do
  not matter, since the random stream of the training begins afterwards.
- What a component can declare in one line is declared (`generator_uses_real`, `batch_independent`). A probe finds what
  depends on a combination of components: whether a penalty fits the networks and the data, whether a network uses the
  conditions of a data set, whether the updates of an optimiser can be undone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.data.batch import Batch
from ganlab.data.pixels import condition_as_input, to_float
from ganlab.nn.discriminator_output import logits
from ganlab.nn.modes import eval_mode, frozen_parameters
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.protocols import Dataset, ImageSpec, Step, batch_independent
from ganlab.training.component_errors import collect_component_errors
from ganlab.training.game import Game
from ganlab.training.step_components import PLAYERS, StepComponents
from ganlab.training.update import optimizer_tensors, step_unless_stopped
from ganlab.utils import distributed
from ganlab.utils.errors import ComponentError, UserError


def first_penalty_steps(game: Game, real: Batch) -> Iterator[Step]:
    """Probe of penalties: yields what they are given in the discriminator's and the generator's first update.

    `real` has a few images. Players without penalties are skipped. A step must be used before the next is requested.
    """
    if not any(player.penalties for player in game.players):
        return
    trial = copy.deepcopy(game)
    trial.batch_size = len(real.images) * distributed.world_size()
    condition = real.condition

    def step(player: str, images: Tensor | None, fake: Tensor) -> Step:
        real_output = None if images is None else trial.discriminate(images, condition)
        fake_output = trial.discriminate(fake, condition)
        networks = trial.generator.network, trial.discriminator.network
        return Step(player, *networks, images, fake, real_output, fake_output, condition, trial.images_seen)

    if game.discriminator.penalties:
        with torch.no_grad():
            fake = next(trial.generate_fakes([real]))
        yield step("discriminator", real.images, fake)
    if game.generator.penalties:
        with frozen_parameters(trial.discriminator.network):
            fake = next(trial.generate_fakes([real]))
            yield step("generator", real.images if game.uses_real else None, fake)


class _ConditionUsed(Exception):
    """Raised by the condition probe's tensor when a network uses it."""


class _ProbeTensor(Tensor):
    """The condition probe's tensor: it raises on any operation."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> Any:
        raise _ConditionUsed


def uses_condition(network: nn.Module, inputs: Tensor, condition: Tensor) -> bool:
    """Probe of a network: whether it uses its condition at all, even if its output does not depend on it at first.

    `inputs` are latents or images. A network that cannot be copied or called is taken to use it.
    """
    with CatchPluginErrors() as caught, torch.no_grad():
        copy.deepcopy(network)(inputs, condition.as_subclass(_ProbeTensor))
    return caught.error is not None


def can_undo_updates(build: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], network: nn.Module) -> bool:
    """Probe of an optimiser: whether the updates of one that `build` makes can be undone, as `stop_*_under` does.

    A copy of the network with stopped updates, the first one among them, must end with the same bits as one without.
    This finds optimisers that count their updates in Python, or whose state does not begin with zeros.
    """
    results = []
    for stops in ((True, False, True, True, False), (False, False)):
        trial = copy.deepcopy(network)
        optimizer = build(trial.parameters())
        for stop in stops:
            for parameter in trial.parameters():
                parameter.grad = torch.full_like(parameter, 0.5 if stop else 0.25)
            device = next(trial.parameters()).device
            step_unless_stopped(torch.full((), stop, device=device), optimizer)
        results.append(optimizer_tensors(optimizer))
    one, other = results
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def check_output_type(player: str, output: Any, names: Mapping[str, str]) -> None:
    """Probe of a network's output: raises UserError where it is no tensor, nor an object with a tensor of logits."""
    wanted = "a tensor of images"
    if player == "discriminator":
        wanted = "a tensor of logits, or an object that has them as 'logits'"
        output = output if isinstance(output, Tensor) else getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise UserError(f"{player}: returns {type(output).__name__}; expected {wanted} ({names[player]})")


def check_network_shapes(
    networks: Mapping[str, nn.Module],
    z: Tensor,
    images: ImageSpec,
    condition: Tensor | None,
    names: Mapping[str, str],
) -> Tensor:
    """Probe of shapes: passes a few latents through both networks; returns the images, or raises UserError."""
    wanted = (len(z), images.channels, images.height, images.width)
    generator, discriminator = (networks[name] for name in PLAYERS)
    with eval_mode(generator), eval_mode(discriminator):
        fake: Tensor = generator(z, condition)
        check_output_type("generator", fake, names)
        if tuple(fake.shape) != wanted:
            raise UserError(f"generator: makes images of shape {tuple(fake.shape)}; the data set's are {wanted}")
        output = discriminator(fake, condition)
        if batch_independent(discriminator) and not isinstance(output, Tensor):
            raise UserError(
                f"discriminator: batch_independent is True, and it returns {type(output).__name__}; expected a tensor "
                "of logits"
            )
        check_output_type("discriminator", output, names)
        logits_ = logits(output)
        if logits_.shape != (len(z),):
            raise UserError(
                f"discriminator: gives logits of shape {tuple(logits_.shape)} for {len(z)} images; expected ({len(z)},)"
            )
    return fake


@frozen
class TrialInputs:
    """Inputs of probes: two real images with their conditions, and what one pass of both networks showed.

    `conditional` says whether any network uses its condition.
    """

    real: Batch
    latent_dim: int
    conditional: bool

    @classmethod
    def of(
        cls,
        networks: Mapping[str, nn.Module],
        dataset: Dataset,
        images: ImageSpec,
        device: torch.device,
        names: Mapping[str, str],
    ) -> TrialInputs:
        """Probe of the networks: passes zeros as latents through them; raises UserError for wrong shapes.

        `names` are the components behind the networks, for messages.
        """
        generator, discriminator = (networks[name] for name in PLAYERS)
        latent_dim = getattr(generator, "latent_dim", None)
        if not isinstance(latent_dim, int):
            raise UserError(f"generator: {type(generator).__name__} has no whole number 'latent_dim'")
        condition: Tensor | None = None
        if dataset.condition is not None:
            condition = condition_as_input(dataset.condition[:2].to(device))
        z = torch.zeros(2, latent_dim, device=device)
        fake = check_network_shapes(networks, z, images, condition, names)
        conditional = condition is not None and any(
            uses_condition(network, inputs, condition) for network, inputs in ((generator, z), (discriminator, fake))
        )
        return cls(Batch(to_float(dataset.images[:2].to(device)), condition), latent_dim, conditional)


def try_augmentations(
    components: StepComponents, trial: TrialInputs, device: torch.device, problems: list[str]
) -> None:
    """Probes augmentations: calls each once, and adds those that refuse the data set's images to `problems`."""
    for index, augmentation in enumerate(components.experiment.augmentation):
        with collect_component_errors(problems, f"augmentation[{index}]", device):
            copy.deepcopy(augmentation).augment(trial.real.images)


def try_penalties(components: StepComponents, game: Game, real: Batch, problems: list[str]) -> None:
    """Probes penalties: calls each once, and adds those that refuse networks or data to `problems`.

    All other errors, also of what comes before the penalties, are found where a first update is tried or made.
    """
    with CatchPluginErrors():
        for step in first_penalty_steps(game, real):
            for index, penalty in enumerate(components.experiment.penalty):
                if penalty.player == step.player:
                    with CatchPluginErrors() as caught:
                        copy.deepcopy(penalty).penalty(step)
                    if isinstance(caught.error, ComponentError):
                        problems += [f"penalty[{index}]: {line}" for line in str(caught.error).splitlines()]
