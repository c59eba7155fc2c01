"""Builds a training from an experiment, once, before step 0: data, networks, players, game, schedules, random streams.

What does not fit together (an image size that a network does not support, a batch larger than the data set, label
smoothing of a loss without labels) is refused here, all at once, before the run folder exists.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from ganlab.config.schema import Experiment, Train
from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.dataset import image_spec
from ganlab.data.load_dataset import load_dataset
from ganlab.data.loader import BatchLoader
from ganlab.nn import dropout, memory_format
from ganlab.plugin.registry import Registry
from ganlab.protocols import Dataset, ImageSpec, OptimizerConfig, Places, batch_independent
from ganlab.training import cuda_graphs, probes, schedule_targets, schedules
from ganlab.training.component_errors import collect_component_errors
from ganlab.training.cuda_graphs import CapturedTrainStep, CudaGraphs, Recorder
from ganlab.training.ema import EMA, ema_decay
from ganlab.training.game import Game
from ganlab.training.initialise import initialise_networks
from ganlab.training.loop import Training
from ganlab.training.step_components import PLAYERS, StepComponents, resolve_step_components
from ganlab.training.train_step import TrainStep, two_player_phases
from ganlab.training.update import Player
from ganlab.utils import distributed
from ganlab.utils.errors import UserError
from ganlab.utils.progress import Progress, no_progress
from ganlab.utils.rng import derived_seed, seed_everything


def build(
    experiment: Experiment,
    registry: Registry,
    places: Places,
    device: torch.device,
    progress: Progress = no_progress,
    new: bool = True,
) -> Training:
    """Builds the training of an experiment. Raises UserError with a line for each thing that does not fit.

    `new` is False where the training is then restored from a checkpoint: networks are not initialised (`initialise`).
    While the data set loads, `progress` is called, and may raise KeyboardInterrupt to end it.
    """
    problems: list[str] = []
    train = experiment.train

    # Load the data set, and resolve the components of the train step.
    with collect_component_errors(problems, "dataset"):
        dataset = load_dataset(experiment.dataset, places, "train", progress)
    components = resolve_step_components(experiment, registry, device, problems)
    _raise(problems)
    images = image_spec(dataset)
    problems += _batch_size_problems(train, dataset)

    # Construct the networks: a seed gives the same weights, whatever else is in the experiment.
    seed_everything(experiment.seed)
    networks = _build_networks(experiment, images, device, problems)
    _raise(problems)
    initialised = initialise_networks(experiment, networks) if new else {}
    trial = probes.TrialInputs.of(networks, dataset, images, device)
    probes.try_augmentations(components, trial, device, problems)

    # Construct the players, and the game between them.
    players = _build_players(experiment, registry, networks, components, device, problems)
    _raise(problems)
    _set_precision(train)
    game = _build_game(train, players, components, trial.latent_dim, device)
    probes.try_penalties(components, game, trial.real, problems)
    _raise(problems)

    # Construct the train step and what feeds it: batches of real images, and the values of scheduled options.
    loader = BatchLoader.for_dataset(dataset, train.batch_size, experiment.seed, device, train.resident_gb)
    phases = two_player_phases(game, train.discriminator_steps, train.discriminator_every)
    images_per_step = train.batch_size * TrainStep(phases, None).batches_per_step
    ema = _build_ema(experiment, networks["generator"], images_per_step)
    train_step = TrainStep(phases, ema)
    total_steps = _total_steps(train, loader)
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
    _seed_training(experiment.seed, game, networks)

    # Collectives between processes are not captured.
    captured = train.capture and device.type == "cuda" and distributed.world_size() == 1
    return Training(
        game=game,
        train_step=train_step,
        capture=captured_train_step(game, train_step, registry, CudaGraphs(device), scheduled_options.eager_reason)
        if captured
        else None,
        loader=loader,
        dataset=dataset,
        images=images,
        conditions=ConditionSampler.of(dataset) if trial.conditional else UNCONDITIONAL,
        schedules=scheduled_options,
        total_steps=total_steps,
        stateful=components.stateful,
        initialised=initialised,
    )


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


def _batch_size_problems(train: Train, dataset: Dataset) -> Iterator[str]:
    """Yields why `build` refuses `train.batch_size`: the data set, the number of processes or `train.accumulate`."""
    if train.batch_size > len(dataset.images):
        yield (
            f"train.batch_size: {train.batch_size} is larger than the data set {dataset.name!r} "
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


def _total_steps(train: Train, loader: BatchLoader) -> int:
    total = train.steps or int(train.epochs * loader.batches_per_epoch / train.discriminator_steps)  # type: ignore[operator]
    if total < 1:
        raise UserError(
            f"train.epochs: {train.epochs} of {loader.batches_per_epoch} batches are fewer than one step of "
            f"{train.discriminator_steps} discriminator updates"
        )
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------------------------------


def _build_networks(
    experiment: Experiment, images: ImageSpec, device: torch.device, problems: list[str]
) -> dict[str, nn.Module]:
    """Part of `build`: the generator and the discriminator on the device, in training mode and fast memory format."""
    networks: dict[str, nn.Module] = {}
    for name in PLAYERS:
        with collect_component_errors(problems, name, device):
            network: nn.Module = getattr(experiment, name).build(images).to(device)
            memory_format.use_channels_last(network)
            dropout.use_quick_dropout(network, device)
            if name == "discriminator":
                batch_independent(network)  # raises for a declaration that is no bool
            networks[name] = network.train()
    return networks


def _build_ema(experiment: Experiment, generator: nn.Module, images_per_step: int) -> EMA | None:
    """Builds the EMA, if there is one."""
    train = experiment.train
    if not (train.ema or train.ema_half_life):
        return None
    decay = train.ema or ema_decay(train.ema_half_life, images_per_step)
    changes = bool(train.ema_warmup) or any(
        schedule.key == schedule_targets.EMA_HALF_LIFE for schedule in experiment.schedule
    )
    return EMA(generator, copy.deepcopy(generator), decay, changes)


# ---------------------------------------------------------------------------------------------------------------------
# Players and the game
# ---------------------------------------------------------------------------------------------------------------------


def _build_players(
    experiment: Experiment,
    registry: Registry,
    networks: Mapping[str, nn.Module],
    components: StepComponents,
    device: torch.device,
    problems: list[str],
) -> dict[str, Player]:
    """Part of `build`: each player with its optimiser and penalties; a refusal is added to `problems`."""
    players: dict[str, Player] = {}
    for name in PLAYERS:
        config: OptimizerConfig = getattr(experiment, f"{name}_optimizer") or experiment.optimizer
        stop_under: float | None = getattr(experiment.train, f"stop_{name}_under")
        network = networks[name]
        with collect_component_errors(problems, f"{name}.optimizer"):
            optimizer = _build_optimizer(config, device, network.parameters())
            if stop_under is not None and not probes.can_undo_updates(
                partial(_build_optimizer, config, device), network
            ):
                used = registry.component_of("optimizer", config).name
                problems.append(
                    f"train.stop_{name}_under: the optimizer {used!r} cannot take an update back: it leaves a trace in "
                    "later ones; 'adam' can"
                )
            penalties = components.penalties[name]
            players[name] = Player(name, network, optimizer, penalties, experiment.train.clip_norm, stop_under)
    return players


def _build_optimizer(
    config: OptimizerConfig, device: torch.device, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    optimizer = config.build(parameters)
    if device.type == "cuda":
        cuda_graphs.make_capturable(optimizer)
    return optimizer


def _set_precision(train: Train) -> None:
    """Part of `build`: sets torch's float32 products on CUDA to TF32 or IEEE, as `train.precision` says."""
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision = "tf32" if train.precision == "tf32" else "ieee"
    # By its older name, which also sets that of recurrent layers: torch.export fails in a process where they differ.
    backends.cudnn.allow_tf32 = train.precision == "tf32"


def _build_game(
    train: Train, players: Mapping[str, Player], components: StepComponents, latent_dim: int, device: torch.device
) -> Game:
    return Game(
        generator=players["generator"],
        discriminator=players["discriminator"],
        loss=components.loss,
        augmentations=components.experiment.augmentation,
        latent_dim=latent_dim,
        batch_size=train.batch_size,
        device=device,
        uses_real=components.uses_real,
        accumulate=train.accumulate,
        joint_pass=batch_independent(players["discriminator"].network),
        fresh_noise=train.fresh_noise,
        autocast=torch.bfloat16 if train.precision == "bfloat16" else None,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Random streams and capture
# ---------------------------------------------------------------------------------------------------------------------


def _seed_training(seed: int, game: Game, networks: Mapping[str, nn.Module]) -> None:
    """Part of `build`: begins the random streams; on many processes, broadcasts the first one's weights."""
    training_seed = derived_seed(seed, "training")
    seed_everything(training_seed)
    if distributed.world_size() > 1:
        # All processes draw the latents of the whole batch, as a single process would, and each takes its share. Other
        # random numbers, such as those of dropout, must differ between processes.
        game.noise = torch.Generator(game.device).manual_seed(training_seed)
        seed_everything(derived_seed(seed, "training", distributed.rank()))
        distributed.broadcast_from_first(
            tensor for network in networks.values() for tensor in network.state_dict().values()
        )


def captured_train_step(
    game: Game, train_step: TrainStep, registry: Registry, recorder: Recorder, eager_reason: str | None = None
) -> CapturedTrainStep:
    """Part of `build`: wraps a train step for capture; reasons against a capture name the registry's plugins."""

    def plugin_of(file: str) -> str:
        origin = registry.origin_of(file)
        return f"plugin {origin.plugin}" if origin else ""

    return CapturedTrainStep(train_step, game.meters, recorder, game.device, plugin_of, eager_reason)
