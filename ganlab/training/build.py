"""From an experiment to the objects that train: every component resolved, once, before step 0.

What does not fit together (an image size that a network cannot make, a batch larger than the data, label smoothing on a
loss without labels) is refused here, all of it at once, before a run folder exists.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ganlab.config.schema import Experiment, Train
from ganlab.data.batch import Batch
from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.dataset import image_spec
from ganlab.data.loader import BatchLoader
from ganlab.data.pixels import condition_as_input, to_float
from ganlab.nn import memory_format
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.plugin.registry import Registry
from ganlab.protocols import (
    Dataset,
    Loss,
    OptimizerConfig,
    Penalty,
    Places,
    batch_independent,
    generator_uses_real,
)
from ganlab.training import cuda_graphs, probes, schedule_targets, schedules
from ganlab.training.cuda_graphs import CapturedTurns, CudaGraphs, Recorder
from ganlab.training.ema import EMA, decay_of
from ganlab.training.game import Game
from ganlab.training.loop import Training
from ganlab.training.probes import _check_shapes, leaves_no_trace
from ganlab.training.turns import Turns, two_player_phases
from ganlab.training.update import Player
from ganlab.utils import distributed
from ganlab.utils.errors import ComponentError, UserError, one_line
from ganlab.utils.memory import is_out_of_memory
from ganlab.utils.rng import derived_seed, seed_everything

PLAYERS = ("generator", "discriminator")


def build(experiment: Experiment, registry: Registry, where: Places, device: torch.device) -> Training:
    """Resolves every component. Raises UserError with a line for each thing that does not fit."""
    problems: list[str] = []
    train = experiment.train

    # The data comes first: its shape decides what the networks must make.
    with _refusals(problems, "dataset"):
        dataset = experiment.dataset.build(where, "train")
    # What a schedule moves is a tensor in the step from here on.
    parts, targets = schedule_targets.placed(experiment, device, problems)
    loss = _wrapped_loss(parts, registry, problems)
    with _refusals(problems, "loss"):
        uses_real = generator_uses_real(loss)
    problems += schedule_targets.without_effect(parts, targets, loss)
    penalties = _named_penalties(parts, registry, problems)
    if problems:
        raise UserError(*problems)
    images = image_spec(dataset)
    problems += _batch_problems(train, dataset)

    # Construct the networks: the same seed gives the same weights, whatever else is in the experiment.
    seed_everything(experiment.seed)
    networks: dict[str, nn.Module] = {}
    for name in PLAYERS:
        with _refusals(problems, name, device):
            networks[name] = getattr(experiment, name).build(images).to(device)
            memory_format.prepare(networks[name], device)
    if "discriminator" in networks:
        with _refusals(problems, "discriminator"):
            joined = batch_independent(networks["discriminator"])
    if problems:
        raise UserError(*problems)
    generator, discriminator = (networks[name].train() for name in PLAYERS)
    latent_dim = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int):
        raise UserError(f"generator: {type(generator).__name__} has no whole number 'latent_dim'")
    two = dataset.condition[:2].to(device) if dataset.condition is not None else None
    two = None if two is None else condition_as_input(two)
    z = torch.zeros(2, latent_dim, device=device)
    made = _check_shapes(generator, discriminator, z, images, two)
    conditional = two is not None and any(
        probes.looks_at_condition(network, given, two) for network, given in ((generator, z), (discriminator, made))
    )

    pair = Batch(to_float(dataset.images[:2].to(device)), two)
    for index, augmentation in enumerate(parts.augmentation):
        with _refusals(problems, f"augmentation[{index}]", device):
            copy.deepcopy(augmentation).augment(pair.images)

    players = {
        name: player
        for name in PLAYERS
        if (player := _player(name, networks[name], penalties[name], experiment, registry, device, problems))
    }
    if problems:
        raise UserError(*problems)

    backends: Any = torch.backends
    for backend in (backends.cuda.matmul, backends.cudnn.conv):
        backend.fp32_precision = "tf32" if train.precision == "tf32" else "ieee"
    game = Game(
        generator=players["generator"],
        discriminator=players["discriminator"],
        loss=loss,
        augmentations=parts.augmentation,
        latent_dim=latent_dim,
        batch_size=train.batch_size,
        device=device,
        uses_real=uses_real,
        accumulate=train.accumulate,
        joined=joined,
        fresh_noise=train.fresh_noise,
        autocast=torch.bfloat16 if train.precision == "bfloat16" else None,
    )
    _try_penalties(parts.penalty, game, pair, problems)
    if problems:
        raise UserError(*problems)
    loader = BatchLoader.for_dataset(dataset, train.batch_size, experiment.seed, device, train.resident_gb)
    phases = two_player_phases(game, train.discriminator_steps, train.discriminator_every)
    images_a_step = train.batch_size * Turns(phases, None).batches
    average = _average(experiment, generator, images_a_step)
    turns = Turns(phases, average)
    total = train.steps or int(train.epochs * loader.batches_per_epoch / train.discriminator_steps)  # type: ignore[operator]
    if total < 1:
        raise UserError(
            f"train.epochs: {train.epochs} of {loader.batches_per_epoch} batches are fewer than one step of "
            f"{train.discriminator_steps} discriminator updates"
        )
    moving = schedules.scheduled(
        experiment,
        targets,
        players,
        average,
        images_a_step,
        total,
        loader.batches_per_epoch / turns.batches,
        device,
    )

    # The training stream starts here, so that it does not depend on how many numbers the networks' weights took.
    stream = derived_seed(experiment.seed, "training")
    seed_everything(stream)
    if distributed.world_size() > 1:
        # All processes draw the latents of the whole batch, as one process would, and each takes its share; what else
        # is random, such as dropout, must not be the same in each.
        game.noise = torch.Generator(device).manual_seed(stream)
        seed_everything(derived_seed(experiment.seed, "training", distributed.rank()))
        distributed.broadcast_from_first(
            tensor for network in networks.values() for tensor in network.state_dict().values()
        )
    # What several processes tell each other in a step is not captured.
    captured = train.capture and device.type == "cuda" and distributed.world_size() == 1
    return Training(
        game=game,
        turns=turns,
        capture=capturing(game, turns, registry, CudaGraphs(device), moving.unfit) if captured else None,
        loader=loader,
        dataset=dataset,
        images=images,
        conditions=ConditionSampler.of(dataset) if conditional else UNCONDITIONAL,
        schedules=moving,
        total_steps=total,
        stateful=_stateful(parts, loss),
    )


def _player(
    name: str,
    network: nn.Module,
    penalties: Sequence[tuple[str, Penalty]],
    experiment: Experiment,
    registry: Registry,
    device: torch.device,
    problems: list[str],
) -> Player | None:
    """A player with its optimiser; None where that is refused, which is added to `problems`."""
    config: OptimizerConfig = getattr(experiment, f"{name}_optimizer") or experiment.optimizer
    under: float | None = getattr(experiment.train, f"stop_{name}_under")
    with _refusals(problems, f"{name}.optimizer"):
        optimizer = _optimizer(config, device, network.parameters())
        if under is not None and not leaves_no_trace(partial(_optimizer, config, device), network):
            called = registry.component_of("optimizer", config).name
            problems.append(
                f"train.stop_{name}_under: the optimizer {called!r} cannot take an update back: it leaves a trace in "
                "later ones; 'adam' can"
            )
        return Player(name, network, optimizer, penalties, experiment.train.clip_norm, under)
    return None


def _optimizer(
    config: OptimizerConfig, device: torch.device, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    optimizer = config.build(parameters)
    if device.type == "cuda":
        cuda_graphs.make_capturable(optimizer)
    return optimizer


def _average(experiment: Experiment, generator: nn.Module, images_a_step: int) -> EMA | None:
    """The running average of the generator's weights, where the experiment has one."""
    train = experiment.train
    if not (train.ema or train.ema_half_life):
        return None
    decay = train.ema or decay_of(train.ema_half_life, images_a_step)
    moves = bool(train.ema_warmup) or any(
        schedule.key == schedule_targets.HALF_LIFE for schedule in experiment.schedule
    )
    return EMA(generator, copy.deepcopy(generator), decay, moves)


def capturing(
    game: Game, turns: Turns, registry: Registry, recorder: Recorder, unfit: str | None = None
) -> CapturedTurns:
    """Captured turns that name a plugin at fault as `ganlab plugins` does; `unfit` says why none will be captured."""

    def named(file: str) -> str:
        origin = registry.origin_of(file)
        return f"plugin {origin.plugin}" if origin else ""

    return CapturedTurns(turns, game.meters, recorder, game.device, named, unfit)


def _batch_problems(train: Train, dataset: Dataset) -> Iterator[str]:
    """What is wrong with the size of a batch, for the data, for the processes and for the parts it passes in."""
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


def _wrapped_loss(experiment: Experiment, registry: Registry, problems: list[str]) -> Loss:
    loss = experiment.loss
    for index, wrapper in enumerate(experiment.loss_wrapper):
        with _refusals(problems, f"loss_wrapper[{index}] {registry.component_of('loss_wrapper', wrapper).name!r}"):
            loss = wrapper(loss)
    return loss


def _named_penalties(experiment: Experiment, registry: Registry, problems: list[str]) -> dict[str, list[Any]]:
    """Each player's penalties under the names they are logged by."""
    penalties: dict[str, list[Any]] = {name: [] for name in PLAYERS}
    names = penalty_names(experiment, registry)
    for index, (penalty, name) in enumerate(zip(experiment.penalty, names, strict=True)):
        if penalty.player not in penalties:
            problems.append(f"penalty[{index}]: player is {penalty.player!r}; expected 'generator' or 'discriminator'")
        elif penalty.every < 1:
            problems.append(f"penalty[{index}]: every is {penalty.every}; expected at least 1")
        else:
            penalties[penalty.player].append((name, penalty))
    return penalties


def _try_penalties(penalties: Sequence[Penalty], game: Game, pair: Batch, problems: list[str]) -> None:
    """Adds to `problems` which penalties cannot work with the networks and the data, found by calling each once."""
    for seen in probes.first_steps(game, pair):
        for index, penalty in enumerate(penalties):
            if penalty.player == seen.player:
                # What else it may raise is told where the first step does, with all that is known of it there.
                with CatchPluginErrors() as guard:
                    copy.deepcopy(penalty).penalty(seen)
                if isinstance(guard.error, ComponentError):
                    problems += [f"penalty[{index}]: {line}" for line in str(guard.error).splitlines()]


def penalty_names(experiment: Experiment, registry: Registry) -> list[str]:
    """What each penalty is logged under."""
    suffixes = registry.suffixes("penalty", experiment.penalty)
    names = (registry.component_of("penalty", penalty).name for penalty in experiment.penalty)
    return [f"penalty_{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)]


def _stateful(experiment: Experiment, loss: Loss) -> dict[str, Any]:
    """The components in the step that have state of their own, which a checkpoint must hold."""
    parts: dict[str, Any] = {"loss": loss}
    for kind in ("penalty", "augmentation"):
        parts |= {f"{kind}.{index}": part for index, part in enumerate(getattr(experiment, kind))}
    return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}


@contextmanager
def _refusals(problems: list[str], table: str, device: object = "this machine") -> Iterator[None]:
    """A component's refusal in the body becomes a problem of its table, a line each; so does one too large."""
    try:
        yield
    except ComponentError as error:
        problems += [f"{table}: {line}" for line in str(error).splitlines()]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problems.append(f"{table}: too large for the memory of {device}: {one_line(error, limit=160)}")
