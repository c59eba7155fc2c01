"""The state of a training: all that the following steps depend on, for a checkpoint, and its restoration on resume.

Decisions:
- What is not part of the state must be a function of the experiment and the step, as the position in the data is.
- A state comes from a file, perhaps somebody else's: one that does not fit the training is refused with one line.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from ganlab.training.checkpoint import from_bytes, sizes, to_bytes
from ganlab.training.game import Game
from ganlab.training.loop import Training
from ganlab.utils import distributed
from ganlab.utils.errors import UserError, one_line
from ganlab.utils.optimizer_state import load_optimizer_state, load_state_that_fits
from ganlab.utils.rng import global_state, set_global_state


def training_state(training: Training, step: int) -> dict[str, Any]:
    """The state of a training: all that the steps after `step` depend on, in the parts of a checkpoint."""
    game = training.game
    state: dict[str, Any] = {name: network.state_dict() for name, network in game.networks.items()}
    state |= {name: network.state_dict() for name, network in ema_parts(training).items()}
    state |= {
        "optimizers": {name: player.optimizer.state_dict() for name, player in game.players.items()},
        "meters": {"sums": distributed.all_gather_scalars(game.meters.sums), "counts": game.meters.counts},
        "random": _random_state(game),
        "components": {name: part.state_dict() for name, part in training.stateful.items()},
        "progress": {"step": step, "images_seen": game.images_seen},
    }
    return state


def ema_part(name: str, sampled: Collection[str]) -> str:
    """Names the part of a training's state that holds a network's EMA: "ema" where one network alone is sampled."""
    return "ema" if len(sampled) == 1 else f"ema.{name}"


def ema_parts(training: Training) -> dict[str, nn.Module]:
    """The EMAs in the state of a training, by the name of their part."""
    averages = training.ema.networks if training.ema else {}
    return {ema_part(name, averages): average for name, average in averages.items()}


def expected_sizes(training: Training) -> dict[str, int]:
    """Estimates the size of the training state in bytes, by its large parts, before the first step.

    An optimiser has no state yet then; Adam's will be twice the size of the weights.
    """
    players = training.game.players
    weights = sum(p.nbytes for player in players.values() for p in player.network.parameters())
    networks = {**training.game.networks, **ema_parts(training)}
    parts: dict[str, Any] = {name: network.state_dict() for name, network in networks.items()}
    optimizer_sizes = sizes({name: player.optimizer.state_dict() for name, player in players.items()})
    return {**sizes(parts), "optimizers": max(2 * weights, sum(optimizer_sizes.values()))}


def restore_training(training: Training, state: dict[str, Any], new_options: bool = False) -> list[str]:
    """Restores the state of a training that `training_state` returned; returns what begins anew.

    An optimiser's state includes its options, such as the learning rate. With `new_options` those of the present
    experiment are kept, and optimisers (by player) and components of which no saved state fits begin anew; otherwise
    the saved ones are restored. Raises UserError for a state that does not fit.
    """
    try:
        return _restore(training, state, new_options)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise UserError(f"the checkpoint does not fit the experiment: {kind}: {one_line(error)}") from error


def _restore(training: Training, state: dict[str, Any], new_options: bool) -> list[str]:
    game, begin_anew = training.game, []
    if new_options and training.ema:  # an average that is new begins with the saved weights
        parts = zip(ema_parts(training), training.ema.networks, strict=True)
        state = {**{part: state[name] for part, name in parts}, **state}
    for name, network in {**game.networks, **ema_parts(training)}.items():
        network.load_state_dict(state[name])
    for player in game.players.values():
        saved = state["optimizers"][player.name]
        if not new_options:
            load_optimizer_state(player.optimizer, saved)
        elif not load_state_that_fits(player.optimizer, saved):
            begin_anew.append(player.name)
    sums = {name: distributed.own_scalar(value) for name, value in state["meters"]["sums"].items()}
    game.meters.sums = {name: value.to(game.device) for name, value in sums.items()}
    game.meters.counts = dict(state["meters"]["counts"])
    game.images_seen.copy_(state["progress"]["images_seen"])
    for name, part in training.stateful.items():
        if new_options and name not in state["components"]:
            begin_anew.append(name)
        else:
            part.load_state_dict(state["components"][name])
    _set_random_state(game, state["random"])
    return begin_anew


def _random_state(game: Game) -> dict[str, Any]:
    """The random part of a training's state: of all processes, and of the generator of latents in common."""
    if game.noise is None:
        return global_state(game.device)
    states = [from_bytes(data) for data in distributed.all_gather_bytes(to_bytes(global_state(game.device)))]
    return {"noise": game.noise.get_state(), "ranks": states}


def _set_random_state(game: Game, state: dict[str, Any]) -> None:
    if game.noise is None and "ranks" not in state:
        set_global_state(state, game.device)
    elif game.noise is not None and len(state.get("ranks", ())) == distributed.world_size():
        game.noise.set_state(state["noise"])
        set_global_state(state["ranks"][distributed.rank()], game.device)
    # With another number of processes (--anyway) the random streams begin anew.
