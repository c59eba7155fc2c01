"""Names of an experiment's components in messages: the component and plugin behind each term and network."""

from __future__ import annotations

from typing import Any

from ganlab.config.schema import Experiment
from ganlab.plugin.registry import Registry
from ganlab.training.step_components import PLAYERS, penalty_names


def component_names(experiment: Experiment, registry: Registry) -> dict[str, str]:
    """Names the component and plugin behind each term, network, optimizer and augmentation, for messages."""

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
