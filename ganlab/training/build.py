"""Builds a training from an experiment, once, before step 0: data, networks, players, game, schedules, random streams.

What does not fit together (an image size that a network does not support, a batch larger than the data set, label
smoothing of a loss without labels) is refused here, all at once, before the run folder exists.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from ganlab.config.game_tables import game_fields, network_tables, warn_of_unused_networks
from ganlab.config.schedule_targets import EMA_HALF_LIFE
from ganlab.config.schema import Experiment, Train
from ganlab.data.dataset import image_spec
from ganlab.data.game_loader import GameLoader
from ganlab.data.load_dataset import load_dataset
from ganlab.evaluation.game_samplers import sampled_conditions
from ganlab.nn import dropout, memory_format
from ganlab.nn.freeze import freeze_parameters
from ganlab.plugin.component_errors import collect_component_errors
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.registry import Registry
from ganlab.protocols import (
    Dataset,
    DataSpec,
    GameConfig,
    ImageSpec,
    Network,
    OptimizerConfig,
    Places,
    Rules,
    batch_independent,
    build_optimizer,
    parameters_of,
)
from ganlab.protocols.rules_check import built_network_problems, rules_problems
from ganlab.training import probes, schedules
from ganlab.training.component_names import component_names
from ganlab.training.cuda_graphs import CapturedTrainStep, CudaGraphs, Recorder
from ganlab.training.ema import EMA, ema_decay
from ganlab.training.game import Game
from ganlab.training.initialise import Start, initialise_networks
from ganlab.training.loop import Training
from ganlab.training.probes import GameTrial, try_game
from ganlab.training.step_components import penalties_by_player, penalty_tables, resolve_step_components
from ganlab.training.train_step import TrainStep, build_phases
from ganlab.training.update import Player
from ganlab.utils import distributed
from ganlab.utils.capturable import make_capturable
from ganlab.utils.device import can_capture, counts_updates, set_float32_precision
from ganlab.utils.errors import ComponentError, InvalidRules, UserError, did_you_mean
from ganlab.utils.named import Named
from ganlab.utils.progress import Progress, no_progress
from ganlab.utils.rng import derived_seed, seed_everything


def build(
    experiment: Experiment,
    registry: Registry,
    places: Places,
    device: torch.device,
    progress: Progress = no_progress,
    new: bool = True,
    make_trial: Callable[[Mapping[str, str], Mapping[str, str]], GameTrial] = GameTrial,
    start: Start | None = None,
) -> Training:
    """Builds the training of an experiment. Raises UserError with a line for each thing that does not fit.

    `new` is False where the training is then restored from a checkpoint: networks are not initialised (`initialise`).
    `start` loads the weights that a new run begins with.
    `make_trial` makes the trial of its game, on copies of everything.
    While the data set loads, `progress` is called, and may raise KeyboardInterrupt to end it.
    """
    problems: list[str] = []
    train = experiment.train

    # Load the data sets, and resolve the components of the train step.
    with collect_component_errors(problems, "dataset"):
        dataset = load_dataset(experiment.dataset, places, "train", progress)
    streams = _load_streams(experiment, places, progress, problems)
    components = resolve_step_components(experiment, registry, device, problems)
    _raise(problems)
    problems += _batch_size_problems(train, {"": dataset, **streams})
    data = DataSpec(image_spec(dataset), {name: image_spec(stream) for name, stream in streams.items()})

    # Have the game say its rules, and construct its networks: a seed gives the same weights, whatever else is in the
    # experiment.
    rules = _build_rules(components.game, data, problems)
    _raise(problems)
    warn_of_unused_networks(components.experiment, registry, rules)
    seed_everything(experiment.seed)
    networks = _build_networks(rules, data.images, device, problems)
    _raise(problems)
    initialised = initialise_networks(rules, networks, start) if new else {}
    trained = {name: network for name, network in networks.items() if not rules.network(name).frozen}
    freeze_parameters(trained, train.freeze or ())

    # Construct the players, each with its optimiser and penalties, and the game between them.
    players = _build_players(components.experiment, registry, rules, networks, device, problems)
    _raise(problems)
    set_float32_precision(train.precision)
    game = Game(
        rules=rules,
        networks=Named("network of the game", networks),
        players=players,
        augmentations=components.experiment.augmentation,
        batch_size=train.batch_size,
        device=device,
        accumulate=train.accumulate,
        autocast=torch.bfloat16 if train.precision == "bfloat16" else None,
        stateful=components.stateful,
    )

    # Try everything once, on copies.
    names = component_names(components.experiment, registry, game)
    trial = partial(make_trial, names, penalty_tables(components.experiment, game))
    conditional = try_game(trial, game, components, data, (dataset, streams), problems)
    _raise(problems)

    # Construct the train step and what feeds it: batches of data, and the values of scheduled options.
    loader = GameLoader.of(dataset, streams, train.batch_size, experiment.seed, device, train.resident_gb)
    phases = build_phases(game)
    images_per_step = train.batch_size * TrainStep(game, phases, None).batches_per_step
    ema = _build_ema(experiment, rules, networks, images_per_step)
    train_step = TrainStep(game, phases, ema)
    total_steps = _total_steps(train, loader, train_step)
    for move in rules.moves:
        if move.start >= total_steps:
            late = f"begins in step {move.start:,} of a run of {total_steps:,}, and is never made"
            warnings.warn(f"game: the move {move.name!r} {late}", stacklevel=2)
    scheduled_options = schedules.build_schedules(
        experiment,
        components.targets,
        players,
        ema,
        images_per_step,
        total_steps,
        loader.batches_per_epoch / train_step.batches_per_step,
        device,
    )

    # Begin the random stream of the training here, so that it does not depend on how many numbers the weights took.
    _seed_training(experiment.seed, game, ema)

    # Collectives between processes are not captured.
    captured = train.capture and can_capture(device) and distributed.world_size() == 1
    return Training(
        game=game,
        game_config=components.game,
        train_step=train_step,
        capture=captured_train_step(game, train_step, registry, CudaGraphs(device), scheduled_options.eager_reason)
        if captured
        else None,
        loader=loader,
        dataset=dataset,
        streams=streams,
        data=data,
        conditions=sampled_conditions(rules.sampler, dataset, streams, conditional),
        conditional=conditional,
        schedules=scheduled_options,
        total_steps=total_steps,
        stateful=components.stateful | {f"game.{name}": part for name, part in rules.state.items()},
        initialised=initialised,
    )


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


def _load_streams(
    experiment: Experiment, places: Places, progress: Progress, problems: list[str]
) -> dict[str, Dataset]:
    """Part of `build`: loads the training split of the game's other data sets, by name."""
    streams: dict[str, Dataset] = {}
    for f in game_fields(experiment.game):
        if f.metadata.get(COMPONENT) == "dataset" and getattr(experiment.game, f.name) is not None:
            with collect_component_errors(problems, f.alias):
                streams[f.alias] = load_dataset(getattr(experiment.game, f.name), places, "train", progress)
    return streams


def _batch_size_problems(train: Train, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """Yields why `build` refuses `train.batch_size`: a data set, the number of processes or `train.accumulate`."""
    for name, dataset in datasets.items():
        if train.batch_size > len(dataset.images):
            of = f" of [{name}]" if name else ""
            yield (
                f"train.batch_size: {train.batch_size} is larger than the data set {dataset.name!r}{of} "
                f"({len(dataset.images)} images)"
            )
    share, left = divmod(train.batch_size, distributed.world_size())
    if left:
        yield f"train.batch_size: {train.batch_size} cannot be shared equally by {distributed.world_size()} processes"
    elif share % train.accumulate:
        nearest = max(count for count in range(1, min(train.accumulate, share + 1)) if share % count == 0)
        of = (
            f"each of {distributed.world_size()} processes' {share}"
            if distributed.world_size() > 1
            else f"a batch of {share}"
        )
        yield f"train.accumulate: {of} images cannot pass in {train.accumulate} equal parts; {nearest} would do"


def _total_steps(train: Train, loader: GameLoader, train_step: TrainStep) -> int:
    batches = train_step.batches_per_step
    total = train.steps or int(train.epochs * loader.batches_per_epoch / batches)  # type: ignore[operator]
    if total < 1:
        raise UserError(
            f"train.epochs: {train.epochs} of {loader.batches_per_epoch} batches are fewer than one step, which takes "
            f"{batches} batches"
        )
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------------------------------


def _build_rules(config: GameConfig, data: DataSpec, problems: list[str]) -> Rules:
    """Part of `build`: the rules of the game, checked; what does not fit is added to `problems`."""
    rules: Any = None
    with collect_component_errors(problems, "game"):
        rules = config.build(data)
        if invalid := list(rules_problems(rules, data.streams, network_tables(config))):
            raise InvalidRules(*problems, *invalid)
    return rules  # type: ignore[no-any-return]


def _build_networks(rules: Rules, images: ImageSpec, device: torch.device, problems: list[str]) -> dict[str, nn.Module]:
    """Part of `build`: the networks on the device, in training mode unless frozen, and in fast memory format."""
    networks: dict[str, nn.Module] = {}
    for name in rules.networks:
        with collect_component_errors(problems, name, device):
            network = build_network(rules.network(name), images, networks).to(device)
            memory_format.use_channels_last(network)
            dropout.use_quick_dropout(network, device)
            batch_independent(network)  # raises for a declaration that is not a bool
            frozen = rules.network(name).frozen
            networks[name] = network.requires_grad_(False).eval() if frozen else network.train()
    if invalid := list(built_network_problems(rules, networks)):
        raise InvalidRules(*problems, *invalid)
    return networks


def build_network(network: Network, images: ImageSpec, networks: Mapping[str, nn.Module]) -> nn.Module:
    """Part of `build`: one network of a game, for `[dataset]`'s images or its own; `networks` are those before it."""
    config: Any = network.config
    if hasattr(config, "build"):
        built = config.build(network.images or images)
    elif missing := [name for name in network.given if name not in networks]:
        raise ComponentError(f"is given {', '.join(missing)}, which could not be built")
    else:
        built = config(*(networks[name] for name in network.given))
        if not isinstance(built, nn.Module):
            raise InvalidRules(
                f"game: a network's function returned {type(built).__name__}; expected a torch.nn.Module"
            )
    if not isinstance(built, nn.Module):
        raise ComponentError(f"build returned {type(built).__name__}; expected a torch.nn.Module")
    return built


def _build_ema(
    experiment: Experiment, rules: Rules, networks: Mapping[str, nn.Module], images_per_step: int
) -> EMA | None:
    """Builds the EMA of the sampled networks, if there is one."""
    train = experiment.train
    if not (train.ema or train.ema_half_life):
        return None
    decay = train.ema or ema_decay(train.ema_half_life, images_per_step)
    changes = bool(train.ema_warmup) or any(schedule.key == EMA_HALF_LIFE for schedule in experiment.schedule)
    averaged = {name: networks[name] for name in rules.sampled}
    return EMA(averaged, {name: copy.deepcopy(network) for name, network in averaged.items()}, decay, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Players and the game
# ---------------------------------------------------------------------------------------------------------------------


def _build_players(
    experiment: Experiment,
    registry: Registry,
    rules: Rules,
    networks: Mapping[str, nn.Module],
    device: torch.device,
    problems: list[str],
) -> dict[str, Player]:
    """Part of `build`: each player with its optimiser and penalties; a refusal is added to `problems`."""
    tables = network_tables(experiment.game)
    trained = {name: rules.network(name) for name in rules.networks if not rules.network(name).frozen}
    of_table = {name: network.table or (name if name in tables else "") for name, network in trained.items()}
    bounds = {player: move for move in rules.moves if move.stop_under is not None for player in move.players}
    penalties = penalties_by_player(experiment, registry, of_table, problems)
    players: dict[str, Player] = {}
    known = {*tables, *trained}
    for key in {**experiment.optimizers, **experiment.clip_norms}:
        if key not in known:
            problems.append(f"{key}: no network that the game trains{did_you_mean(key, known)}")
    for name, own in of_table.items():
        table = name if name in experiment.optimizers else own
        config: OptimizerConfig = experiment.optimizers.get(table, experiment.optimizer)
        network = networks[name]
        with collect_component_errors(problems, f"{table or name}.optimizer"):
            make = partial(_build_optimizer, config, device, name)
            optimizer = make(network)
            if name in bounds and not probes.can_undo_updates(make, network):
                used = registry.component_of("optimizer", config).name
                problems.append(
                    f"train.stop_{bounds[name].name}_under: the optimizer {used!r} cannot take an update back: it "
                    "leaves a trace in later ones; 'adam' can"
                )
            norms = experiment.clip_norms
            norm = norms.get(name, norms.get(own, experiment.train.clip_norm))
            players[name] = Player(name, network, optimizer, table, penalties[name], norm)
    return players


def _build_optimizer(
    config: OptimizerConfig, device: torch.device, player: str, network: nn.Module
) -> torch.optim.Optimizer:
    optimizer = build_optimizer(config, parameters_of(player, network))
    if counts_updates(device):
        make_capturable(optimizer)
    return optimizer


# ---------------------------------------------------------------------------------------------------------------------
# Random streams and capture
# ---------------------------------------------------------------------------------------------------------------------


def _seed_training(seed: int, game: Game, ema: EMA | None) -> None:
    """Part of `build`: begins the random streams; on many processes, broadcasts the first one's weights."""
    training_seed = derived_seed(seed, "training")
    seed_everything(training_seed)
    if distributed.world_size() > 1:
        # All processes draw the latents of the whole batch, as a single process would, and each takes its share. Other
        # random numbers, such as those of dropout, must differ between processes.
        game.noise = torch.Generator(game.device).manual_seed(training_seed)
        seed_everything(derived_seed(seed, "training", distributed.rank()))
        networks = [*game.networks.values(), *(ema.networks.values() if ema else ())]
        distributed.broadcast_from_first(tensor for network in networks for tensor in network.state_dict().values())


def captured_train_step(
    game: Game, train_step: TrainStep, registry: Registry, recorder: Recorder, eager_reason: str | None = None
) -> CapturedTrainStep:
    """Part of `build`: wraps a train step for capture; reasons against a capture name the registry's plugins."""

    def plugin_of(file: str) -> str:
        origin = registry.origin_of(file)
        return f"plugin {origin.plugin}" if origin else ""

    return CapturedTrainStep(train_step, game.meters, recorder, game.device, plugin_of, eager_reason)
