"""Names of an experiment's components in messages: the component and plugin behind each term and network."""

from __future__ import annotations

from typing import Any

from ganlab.config.game_tables import component_fields
from ganlab.config.schema import Experiment
from ganlab.plugin.registry import Registry
from ganlab.training.game import Game


def component_names(experiment: Experiment, registry: Registry, game: Game) -> dict[str, str]:
    """Names the component and plugin behind each term, network, optimizer and augmentation, for messages.

    The terms of a move are those of the game's loss, or of the game itself where it has none.
    """

    def words(kind: str, part: Any) -> str:
        component = registry.component_of(kind, part)
        return f"{kind} {component.name!r} of plugin {component.origin}"

    fields = component_fields(experiment.game)
    its_own = words("game", experiment.game)
    losses = [words("loss", getattr(experiment.game, name)) for name, kind in fields.items() if kind == "loss"]
    wrappers = [words("loss_wrapper", wrapper) for wrapper in experiment.loss_wrapper]
    loss = ", in ".join([*losses, *wrappers]) or its_own
    names = {"game": its_own, "loss": loss, **{f"loss_{move.name}": loss for move in game.rules.moves}}
    for index, augmentation in enumerate(experiment.augmentation):
        names[f"augmentation[{index}]"] = words("augmentation", augmentation)
    configs = {id(getattr(experiment.game, name)): kind for name, kind in fields.items()}
    for name in game.networks:
        config = game.rules.network(name).config
        names[name] = words(configs[id(config)], config) if id(config) in configs else its_own
    for player in game.players.values():
        names |= {name: words("penalty", penalty) for name, penalty in player.penalties}
        optimizer = experiment.optimizers.get(player.table, experiment.optimizer)
        names[f"{player.name}.optimizer"] = words("optimizer", optimizer)
    return names
