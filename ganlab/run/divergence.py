"""What made a training diverge: its last steps are taken again, and everything in them is looked at.

Decisions:
- The steps of a run look at nothing, since that would cost time in all of them. A tick finds that something is not
  finite any more; what was so first is found afterwards, because a run repeats to the bit.
- It starts from the latest checkpoint, in objects built anew, and goes on until something is not finite: images,
  logits, a term, the gradient of that term alone, the weights and moments after an update, the average.
- Looking is done from outside, by stand-ins for the loss, the penalties, the augmentations and the phases, and by
  torch's own hooks on networks. The game knows nothing of it.
- It is left out on several processes, which would have to stop looking together, and ends after `SECONDS`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab.config.load import structured, to_table
from ganlab.config.schema import Experiment
from ganlab.data.batch import Batch
from ganlab.nn.outputs import logits
from ganlab.plugin.failures import Guard
from ganlab.plugin.loader import Plugins
from ganlab.plugin.registry import Registry
from ganlab.protocols import Augmentation, Loss, Penalty, Step
from ganlab.training.build import PLAYERS, build, penalty_names
from ganlab.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.training.loop import Training, take_step
from ganlab.training.state import restore_training
from ganlab.training.state_tree import not_finite
from ganlab.training.turns import Phase
from ganlab.training.update import Player
from ganlab.utils import distributed
from ganlab.utils.errors import GanlabError
from ganlab.utils.paths import places

SECONDS = 600
"""How long the steps may take again."""


NOT_AGAIN = (
    "taken again from step {:,}, the steps did not diverge, so they depend on something that no checkpoint holds: a "
    "component may keep a state without a state_dict, or CUDA needs train.deterministic"
)


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
    seen: str,
    experiment: Experiment,
    plugins: Plugins,
    device: torch.device,
    checkpoints: Path,
    until: int,
    progress: Callable[[str, int, int], None],
) -> str:
    """What became not finite first in the steps up to `until`, in one line; what was `seen` where that is not found.

    `progress` may raise to end the search.
    """
    if distributed.world_size() > 1:
        return seen
    with Guard() as guard, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever the data set has to say it said before
        # Components anew, too: a loss or a penalty may have kept something of the steps that went wrong.
        fresh = structured(to_table(experiment, plugins), plugins)
        training = build(fresh, plugins.registry, places(), device)
        try:
            start = _latest(training, checkpoints)
            _search(training, owners(fresh, plugins.registry), start, until, progress)
        finally:
            training.loader.close()
        return f"{seen}; {NOT_AGAIN.format(start)}"
    return str(guard.error) if isinstance(guard.error, Found) else seen


def _latest(training: Training, checkpoints: Path) -> int:
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
    training = _looked_at(training, names)
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
            raise TimeoutError


def _refuse(wrong: object, what: str, owner: str) -> None:
    if wrong:
        raise Found(f"{what} ({owner})" if owner else what)


def _looked_at(training: Training, names: Mapping[str, str]) -> Training:
    """The training with eager steps, of which every part raises `Found` where what it makes is not finite."""
    game = training.game
    way = _Way(names)
    terms = {player.name: _Terms(player, names, way) for player in game.players}
    game.augmentations = [_Augmentation(part, f"augmentation[{n}]", way) for n, part in enumerate(game.augmentations)]
    way.passes(game.discriminator.network)
    for player, makes in ((game.generator, "images"), (game.discriminator, "logits")):
        _look_at_output(player.network, f"what the {player.name} makes, {makes}, is", names[player.name])
    game.loss = _Loss(game.loss, terms)
    game.generator, game.discriminator = (
        attrs.evolve(
            player,
            penalties=[(name, _Penalty(part, name, terms[player.name])) for name, part in player.penalties],
        )
        for player in game.players
    )
    phases = [_looking(phase, terms[phase.name], names[f"{phase.name}.optimizer"]) for phase in training.turns.phases]
    return attrs.evolve(training, capture=None, turns=attrs.evolve(training.turns, phases=phases))


def _look_at_output(network: nn.Module, what: str, owner: str) -> None:
    def look(module: nn.Module, inputs: object, output: object) -> None:
        made = output if isinstance(output, Tensor) else logits(output)
        _refuse(not_finite({"output": made}), f"{what} not finite", owner)

    network.register_forward_hook(look)


def _looking(phase: Phase, terms: _Terms, owner: str) -> Phase:
    """The phase, which looks at each update when that is over: one that is stopped is taken back after the step."""
    player = terms.player

    def update(real: Batch, updates: int) -> None:
        phase.update(real, updates)
        made = {"": dict(player.network.named_parameters())}
        where = not_finite(made) or not_finite(_moments(player))
        if where and terms.suspect is not None:
            raise terms.suspect
        _refuse(where, f"an update of the {player.name} left {where} not finite, after {terms.largest()}", owner)
        terms.sizes.clear()
        terms.suspect = None

    return attrs.evolve(phase, update=update)


def _moments(player: Player) -> dict[str, Any]:
    """What the optimiser keeps of each parameter, under the parameter's name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in player.network.named_parameters()}
    return {names[parameter]: kept for parameter, kept in player.optimizer.state.items()}


@define
class _Way:
    """What a gradient passes on its way back, looked at where it leaves each part: the first to spoil it is found."""

    names: Mapping[str, str]
    left: list[tuple[str, bool]] = field(factory=list)

    def leaves(self, name: str, tensor: Tensor) -> None:
        """Notes whether the gradient by a tensor that part `name` was given, or a term, is finite."""
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self.left.append((name, not_finite([gradient]) is None)))

    def passes(self, discriminator: nn.Module) -> None:
        discriminator.register_forward_pre_hook(lambda module, inputs: self.leaves("discriminator", inputs[0]))
        discriminator.register_forward_hook(lambda module, inputs, output: self.leaves("", logits(output)))

    def spoilt_by(self, player: str) -> str:
        """The part that made a gradient not finite which is so in the end; empty for the term itself."""
        if not self.left:
            return ""
        return next((name for name, sound in self.left if not sound), player)


@define
class _Terms:
    """The terms of one player's updates, each looked at as it is computed.

    Where updates may be stopped, a gradient that is not finite is a `suspect` until the update has left its mark.
    """

    player: Player
    names: Mapping[str, str]
    way: _Way
    sizes: dict[str, float] = field(factory=dict)
    suspect: Found | None = None

    def look(self, name: str, value: Tensor) -> Tensor:
        _refuse(not value.isfinite().all(), f"{name} is {value.detach().float().mean():g}", self.names[name])
        if value.requires_grad:
            self.way.left.clear()
            gradients = [g for g in self._gradients(value) if g is not None]
            if not_finite(gradients):
                part = self.way.spoilt_by(self.player.name)
                through = f", from its way back through the {part} on" if part else ""
                found = Found(f"the gradient of {name} is not finite{through} ({self.names[part or name]})")
                if self.player.stop_under is None:
                    raise found
                self.suspect = self.suspect or found
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
    name: str
    way: _Way

    def augment(self, images: Tensor) -> Tensor:
        self.way.leaves(self.name, images)
        made = self.part.augment(images)
        what = "what an augmentation makes of images is not finite"
        _refuse(not made.isfinite().all(), what, self.way.names[self.name])
        return made
