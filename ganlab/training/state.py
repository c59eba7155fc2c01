"""All that the steps to come depend on, as parts that a checkpoint writes, and putting it back.

Decisions:
- What is not here must be a function of the experiment and the step, as the position in the data is.
- A state comes from a file, perhaps a stranger's: one that does not fit the training is refused in a line.
"""

from __future__ import annotations

from typing import Any

import torch

from ganlab.training.checkpoint import from_bytes, sizes, to_bytes
from ganlab.training.game import Game
from ganlab.training.loop import Training
from ganlab.utils import distributed
from ganlab.utils.errors import UserError, one_line
from ganlab.utils.rng import global_state, set_global_state


def training_state(training: Training, step: int) -> dict[str, Any]:
    """Everything that the steps after `step` depend on, in the parts that a checkpoint writes."""
    game = training.game
    state: dict[str, Any] = {player.name: player.network.state_dict() for player in game.players}
    if training.average is not None:
        state["ema"] = training.average.network.state_dict()
    state |= {
        "optimizers": {player.name: player.optimizer.state_dict() for player in game.players},
        "meters": {"sums": game.meters.sums, "counts": game.meters.counts},
        "random": _random_state(game),
        "components": {name: part.state_dict() for name, part in training.stateful.items()},
        "progress": {"step": step, "images_seen": game.images_seen},
    }
    return state


def expected_sizes(training: Training) -> dict[str, int]:
    """About how many bytes the parts of a checkpoint will take that are not small. Before the first step an optimiser
    keeps nothing yet; Adam will keep twice its weights."""
    game, networks = training.game, {player.name: player.network for player in training.game.players}
    weights = sum(parameter.nbytes for network in networks.values() for parameter in network.parameters())
    if training.average is not None:
        networks["ema"] = training.average.network
    parts: dict[str, Any] = {name: network.state_dict() for name, network in networks.items()}
    kept = sizes({player.name: player.optimizer.state_dict() for player in game.players})
    return {**sizes(parts), "optimizers": max(2 * weights, sum(kept.values()))}


def restore_training(training: Training, state: dict[str, Any], new_options: bool = False) -> None:
    """Puts back what `training_state` gave.

    An optimiser's state holds its options too, such as the learning rate. With `new_options` those of the experiment as
    it is now are kept; otherwise all is put back as it was. Raises UserError for a state that does not fit.
    """
    try:
        _restore(training, state, new_options)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise UserError(f"the checkpoint does not fit the experiment: {kind}: {one_line(error)}") from error


def _restore(training: Training, state: dict[str, Any], new_options: bool) -> None:
    game = training.game
    for player in game.players:
        player.network.load_state_dict(state[player.name])
        saved = state["optimizers"][player.name]
        options = {"param_groups": player.optimizer.state_dict()["param_groups"]} if new_options else {}
        player.optimizer.load_state_dict({**saved, **options})
        for parameter, values in player.optimizer.state.items():
            # A fused optimiser walks over memory: what it keeps must lie as the weights do, in channels-last order too.
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if training.average is not None:
        training.average.network.load_state_dict(state["ema"])
    game.meters.sums = {name: value.to(game.device) for name, value in state["meters"]["sums"].items()}
    game.meters.counts = dict(state["meters"]["counts"])
    game.images_seen.copy_(state["progress"]["images_seen"])
    for name, part in training.stateful.items():
        part.load_state_dict(state["components"][name])
    _set_random_state(game, state["random"])


def _random_state(game: Game) -> dict[str, Any]:
    """The random state of every process, and of the latents that they share."""
    if game.noise is None:
        return global_state()
    states = [from_bytes(data) for data in distributed.all_gather_bytes(to_bytes(global_state()))]
    return {"noise": game.noise.get_state(), "ranks": states}


def _set_random_state(game: Game, state: dict[str, Any]) -> None:
    if game.noise is None and "ranks" not in state:
        set_global_state(state)
    elif game.noise is not None and len(state.get("ranks", ())) == distributed.world_size():
        game.noise.set_state(state["noise"])
        set_global_state(state["ranks"][distributed.rank()])
    # With another number of processes (--anyway) the streams begin anew.
