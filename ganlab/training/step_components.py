"""The components that run in the train step: the game with its wrapped losses, the penalties, the augmentations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from attrs import frozen

from ganlab.config import schedule_targets
from ganlab.config.game_tables import game_fields
from ganlab.config.schedule_targets import ScheduleTarget
from ganlab.config.schema import Experiment
from ganlab.plugin.component_errors import collect_component_errors
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.registry import Registry
from ganlab.protocols import Loss, components_within, generator_uses_real
from ganlab.training.game import Game


@frozen
class StepComponents:
    """The step components of an experiment, ready for the train step.

    `experiment` has 0-dim tensors in place of the options that a schedule changes, which are `targets`. `game` is its
    game, whose losses are in all their wrappers.
    """

    experiment: Experiment
    targets: list[ScheduleTarget]
    game: Any

    @property
    def stateful(self) -> dict[str, Any]:
        """The step components that have a `state_dict`, also inside others, by their name in a checkpoint."""
        parts = {name: getattr(self.game, f.name) for name, f in _losses(self.game)}
        for kind in ("penalty", "augmentation"):
            parts |= {f"{kind}.{index}": part for index, part in enumerate(getattr(self.experiment, kind))}
        found = (one for name, part in parts.items() for one in components_within(part, name))
        return {name: part for name, part in found if hasattr(part, "state_dict")}


def resolve_step_components(
    experiment: Experiment, registry: Registry, device: torch.device, problems: list[str]
) -> StepComponents:
    """Prepares the step components: wraps the losses and places tensors; adds misfits to `problems`."""
    experiment, targets = schedule_targets.resolve_targets(experiment, device, problems)
    game = _with_wrapped_losses(experiment, registry, problems)
    for name, f in _losses(game):
        with collect_component_errors(problems, name):
            generator_uses_real(getattr(game, f.name))  # raises for a declaration that is no bool
    problems += schedule_targets.ineffective_schedules(experiment, targets, game)
    return StepComponents(experiment, targets, game)


def _losses(game: Any) -> Iterator[tuple[str, Any]]:
    """The game's fields that hold a loss, by table."""
    for f in game_fields(game):
        if f.metadata.get(COMPONENT) == "loss" and getattr(game, f.name) is not None:
            yield f.alias, f


def _with_wrapped_losses(experiment: Experiment, registry: Registry, problems: list[str]) -> Any:
    """The game of the step components, with every loss in all wrappers."""
    game: Any = experiment.game
    wrapped: dict[str, Loss] = {}
    for table, f in _losses(game):
        wrapped[table] = getattr(game, f.name)
        for index, wrapper in enumerate(experiment.loss_wrapper):
            name = registry.component_of("loss_wrapper", wrapper).name
            with collect_component_errors(problems, f"loss_wrapper[{index}] {name!r}"):
                wrapped[table] = wrapper(wrapped[table])
    if experiment.loss_wrapper and not wrapped:
        problems.append("loss_wrapper: the game has no loss of its own that could be wrapped")
    return attrs.evolve(game, **wrapped)


def penalties_by_player(
    experiment: Experiment, registry: Registry, players: Mapping[str, str], problems: list[str]
) -> dict[str, list[tuple[str, Any]]]:
    """Sorts the penalties among the step components by the player that they are for, each with its name in the log.

    `players` is the table of each player, by its name. A penalty names a player, or a table for all of its players.
    """
    penalties: dict[str, list[Any]] = {name: [] for name in players}
    known = [*dict.fromkeys([*players, *players.values()])]
    names = penalty_names(experiment, registry)
    for index, (penalty, name) in enumerate(zip(experiment.penalty, names, strict=True)):
        of = [player for player, table in players.items() if penalty.player in (player, table)]
        if not of:
            expected = " or ".join(repr(player) for player in known if player)
            problems.append(f"penalty[{index}]: player is {penalty.player!r}; expected {expected}")
        elif penalty.every < 1:
            problems.append(f"penalty[{index}]: every is {penalty.every}; expected at least 1")
        for player in of:
            penalties[player].append((name if len(of) == 1 else f"{name}_{player}", penalty))
    return penalties


def penalty_tables(experiment: Experiment, game: Game) -> dict[str, str]:
    """Returns the table in the file of each penalty among the step components, by its name in the log."""
    return {
        name: f"penalty[{index}]"
        for player in game.players.values()
        for name, penalty in player.penalties
        for index, one in enumerate(experiment.penalty)
        if one is penalty
    }


def penalty_names(experiment: Experiment, registry: Registry) -> list[str]:
    """Returns the name that each penalty among the step components is logged under, such as "penalty_r1".

    Where penalties of one name are for different players, the name says whose it is: "penalty_orthogonal_generator".
    """
    names = [f"penalty_{registry.component_of('penalty', penalty).name}" for penalty in experiment.penalty]
    players: dict[str, set[str]] = {}
    for name, penalty in zip(names, experiment.penalty, strict=True):
        players.setdefault(name, set()).add(penalty.player)
    shared = {name for name, of in players.items() if len(of) > 1}
    counts: Counter[str] = Counter()
    logged = []
    for name, penalty in zip(names, experiment.penalty, strict=True):
        own = f"{name}_{penalty.player}" if name in shared else name
        counts[own] += 1
        logged.append(own if counts[own] == 1 else f"{own}_{counts[own]}")
    return logged
