"""What made a training diverge: its last steps are taken again, and everything in them is looked at.

Decisions:
- The steps of a run look at nothing, since that would cost time in all of them. A tick finds that something is not
  finite any more; what was so first is found afterwards, because a run repeats to the bit.
- It starts from the latest checkpoint, in objects built anew, and goes on until something is not finite: images,
  logits, a term, the gradient of that term alone, the weights and moments after an update, the average.
- Looking is done from outside, by stand-ins for the loss, the penalties and the augmentations and by torch's own hooks
  on networks and optimisers. The game knows nothing of it.
- It is left out on several processes, which would have to stop looking together, and ends after `SECONDS`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab import ranks
from ganlab.build import PLAYERS, Training, build, penalty_names, places
from ganlab.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint, not_finite
from ganlab.config import Experiment, structured, to_table
from ganlab.errors import GanlabError
from ganlab.loop import take_step
from ganlab.phases import Player, logits
from ganlab.plugins import Guard, Plugins
from ganlab.protocols import Augmentation, Loss, Penalty, Step
from ganlab.registry import Registry
from ganlab.state import restore_training

SECONDS = 600
"""How long the steps may take again."""


class Found(GanlabError):
    """Something is not finite."""


def owners(experiment: Experiment, registry: Registry) -> dict[str, str]:
    """What each term, network, optimiser and augmentation is and which plugin it comes from, in words."""

    def words(kind: str, part: Any) -> str:
        component = registry.component_of(kind, part)
        return f"{kind} {component.name!r} of plugin {component.origin}"

    loss = ", in ".join(
        [words("loss", experiment.loss), *(words("loss_wrapper", wrapper) for wrapper in experiment.loss_wrapper)]
    )
    names = {f"loss_{player}": loss for player in PLAYERS}
    for name, penalty in zip(penalty_names(experiment, registry), experiment.penalty, strict=True):
        names[name] = words("penalty", penalty)
    for index, augmentation in enumerate(experiment.augmentation):
        names[f"augmentation[{index}]"] = words("augmentation", augmentation)
    for player in PLAYERS:
        names[player] = words(player, getattr(experiment, player))
        optimizer = getattr(experiment, f"{player}_optimizer") or experiment.optimizer
        names[f"{player}.optimizer"] = words("optimizer", optimizer)
    return names | {"d_real": names["discriminator"], "d_fake": names["discriminator"]}


def cause(
    experiment: Experiment,
    plugins: Plugins,
    device: torch.device,
    checkpoints: Any,
    until: int,
    progress: Callable[[str, int, int], None],
) -> str | None:
    """What became not finite first in the steps up to `until`, in one line; None where that is not found.

    `progress` may raise to end the search.
    """
    if ranks.world() > 1:
        return None
    with Guard() as guard, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever the data set has to say it said before
        # Components anew, too: a loss or a penalty may have kept something of the steps that went wrong.
        fresh = structured(to_table(experiment, plugins), plugins)
        training = build(fresh, plugins.registry, places(), device)
        try:
            _search(training, owners(fresh, plugins.registry), _latest(training, checkpoints), until, progress)
        finally:
            training.feeder.close()
    return str(guard.error) if isinstance(guard.error, Found) else None


def _latest(training: Training, checkpoints: Any) -> int:
    """Puts the training where the latest whole checkpoint left it; its step, or 0 where there is none."""
    for step, path in reversed(list_checkpoints(checkpoints).items()):
        try:
            state = load_checkpoint(path)
        except DamagedCheckpoint:
            continue
        restore_training(training, state)
        return step
    return 0


def _search(
    training: Training, names: Mapping[str, str], start: int, until: int, progress: Callable[[str, int, int], None]
) -> None:
    training = attrs.evolve(training, capture=None)
    _look_at(training, names)
    began = time.monotonic()
    for step in range(start, until):
        progress("looking for what diverged, from the latest checkpoint on", step - start, until - start)
        try:
            take_step(training, step)
            if training.average is not None:
                where = not_finite(dict(training.average.network.named_parameters()))
                _refuse(where, f"the running average of the generator's weights ({where}) is not finite", "")
        except Found as error:
            raise Found(f"diverged in step {step + 1:,}: {error}") from None
        if time.monotonic() - began > SECONDS:
            return


def _refuse(wrong: object, what: str, owner: str) -> None:
    if wrong:
        raise Found(f"{what} ({owner})" if owner else what)


def _look_at(training: Training, names: Mapping[str, str]) -> None:
    """Has every part of a step raise `Found` where what it makes is not finite."""
    game = training.game
    game.augmentations = [
        _Augmentation(part, names[f"augmentation[{index}]"]) for index, part in enumerate(game.augmentations)
    ]
    terms = {player.name: _Terms(player, names) for player in game.players}
    for player, makes in ((game.generator, "images"), (game.discriminator, "logits")):
        _look_at_output(player.network, f"what the {player.name} makes, {makes}, is", names[player.name])
        _look_at_updates(player, terms[player.name], names[f"{player.name}.optimizer"])
    game.loss = _Loss(game.loss, terms)
    game.generator, game.discriminator = (
        attrs.evolve(
            player,
            penalties=[(name, _Penalty(part, name, terms[player.name])) for name, part in player.penalties],
        )
        for player in game.players
    )


def _look_at_output(network: nn.Module, what: str, owner: str) -> None:
    def look(module: nn.Module, inputs: object, output: object) -> None:
        made = output if isinstance(output, Tensor) else logits(output)
        _refuse(not_finite({"output": made}), f"{what} not finite", owner)

    network.register_forward_hook(look)


def _look_at_updates(player: Player, terms: _Terms, owner: str) -> None:
    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        made = {"": dict(player.network.named_parameters())}
        where = not_finite(made) or not_finite(_moments(player))
        _refuse(where, f"an update of the {player.name} left {where} not finite, after {terms.largest()}", owner)
        terms.sizes.clear()

    player.optimizer.register_step_post_hook(look)


def _moments(player: Player) -> dict[str, Any]:
    """What the optimiser keeps of each parameter, under the parameter's name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in player.network.named_parameters()}
    return {names[parameter]: kept for parameter, kept in player.optimizer.state.items()}


@define
class _Terms:
    """The terms of one player's updates, each looked at as it is computed."""

    player: Player
    names: Mapping[str, str]
    sizes: dict[str, float] = field(factory=dict)

    def look(self, name: str, value: Tensor) -> Tensor:
        _refuse(not value.isfinite().all(), f"{name} is {value.detach().float().mean():g}", self.names[name])
        if value.requires_grad:
            gradients = [g for g in self._gradients(value) if g is not None]
            _refuse(not_finite(gradients), f"the gradient of {name} is not finite", self.names[name])
            self.sizes[name] = max((float(g.abs().max()) for g in gradients if g.numel()), default=0.0)
        return value

    def _gradients(self, value: Tensor) -> Iterator[Tensor | None]:
        yield from torch.autograd.grad(
            value,
            [p for p in self.player.network.parameters() if p.requires_grad],
            retain_graph=True,
            allow_unused=True,
        )

    def largest(self) -> str:
        name = max(self.sizes, key=self.sizes.__getitem__, default="")
        return f"a gradient of {name} of up to {self.sizes[name]:.3g} ({self.names[name]})" if name else "no gradient"


@define
class _Loss:
    loss: Loss
    terms: Mapping[str, _Terms]

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.terms["discriminator"].look("loss_discriminator", self.loss.discriminator(real, fake))

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.terms["generator"].look("loss_generator", self.loss.generator(real, fake))


@define
class _Penalty:
    part: Penalty
    name: str
    terms: _Terms

    @property
    def player(self) -> str:
        return self.part.player

    @property
    def every(self) -> int:
        return self.part.every

    def penalty(self, step: Step) -> Tensor:
        return self.terms.look(self.name, self.part.penalty(step))


@define
class _Augmentation:
    part: Augmentation
    owner: str

    def augment(self, images: Tensor) -> Tensor:
        made = self.part.augment(images)
        _refuse(not made.isfinite().all(), "what an augmentation makes of images is not finite", self.owner)
        return made
