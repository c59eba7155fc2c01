"""Loops without a framework that do the arithmetic of an experiment: what `ganlab bench` holds ganlab against.

- `tutorial` is how a tutorial writes it: images decoded one at a time in a DataLoader with ToTensor and Normalize, both
  networks always taking gradients, separate passes for real and fake, a loss read by `.item()` every step.
- `by_hand` is the same arithmetic at its best: uint8 images in memory gathered by index, the discriminator frozen in
  the generator's turn, joined passes, the channels-last format and the quick dropout where ganlab uses them, nothing
  recorded. On CUDA the whole step is a captured graph.

Both build their networks, loss, penalties and optimisers from the experiment, in the order in which ganlab does, so
that the first steps can be compared number by number. They share no code with the phases, and follow no schedule: an
optimiser's options stay as the experiment has them, which costs the same.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor, nn

from ganlab.config.schema import Experiment
from ganlab.data.pixels import condition_as_input
from ganlab.nn import dropout, memory_format
from ganlab.protocols import Dataset, Step
from ganlab.training import cuda_graphs
from ganlab.training.loop import Training
from ganlab.utils.rng import derived_seed, seed_everything


@frozen
class Parts:
    """What both loops are made of, freshly built."""

    g: nn.Module
    d: nn.Module
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    loss: Any
    penalties: Any


def parts_of(experiment: Experiment, training: Training, prepared: bool) -> Parts:
    """New networks and optimisers with the weights that ganlab's would have at step 0."""
    device = training.game.device
    seed_everything(experiment.seed)
    g = experiment.generator.build(training.images).to(device).train()
    d = experiment.discriminator.build(training.images).to(device).train()
    if prepared:
        for network in (g, d):
            memory_format.use_channels_last(network)
            dropout.use_quick_dropout(network, device)
    g_config = experiment.generator_optimizer or experiment.optimizer
    d_config = experiment.discriminator_optimizer or experiment.optimizer
    game = training.game
    penalties = {player.name: [penalty for _, penalty in player.penalties] for player in game.players}
    optimizers = g_config.build(g.parameters()), d_config.build(d.parameters())
    seed_everything(derived_seed(experiment.seed, "training"))
    return Parts(g, d, *optimizers, copy.deepcopy(game.loss), penalties)


Pair = tuple[Tensor, Tensor | None]
"""Real images as floats, and their condition."""


class AsPictures(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The images as torchvision's data sets hand them out: a PIL image, then a tensor in [-1, 1], and a label."""

    def __init__(self, dataset: Dataset) -> None:
        from torchvision import transforms

        channels = dataset.images.shape[1]
        half = (0.5,) * channels
        self.images = dataset.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = (
            torch.zeros(len(dataset.images)) if dataset.condition is None else condition_as_input(dataset.condition)
        )
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), self.labels[index]


def endless(dataset: Dataset, batch_size: int, order: Callable[[int], Tensor] | None = None) -> Iterator[Pair]:
    """Batches of a DataLoader, pass after pass; `order(epoch)` instead of its own shuffling."""
    pictures = AsPictures(dataset)
    generator = torch.Generator()  # else it would draw from the stream of the noise
    epoch = 0
    while True:
        sampler = None if order is None else order(epoch).tolist()
        loader = torch.utils.data.DataLoader(
            pictures,
            batch_size,
            shuffle=sampler is None,
            sampler=sampler,
            drop_last=True,
            num_workers=0,
            generator=generator,
        )
        for images, labels in loader:
            yield images, None if dataset.condition is None else labels
        epoch += 1


def tutorial(
    experiment: Experiment, training: Training, order: Callable[[int], Tensor] | None = None
) -> tuple[Callable[[], None], Parts]:
    """One step of the tutorial's loop as a function, and what it trains."""
    parts = parts_of(experiment, training, prepared=False)
    game, size = training.game, experiment.train.batch_size
    g, d, device = parts.g, parts.d, game.device
    decay = training.ema.decay if training.ema else 0.0
    average = copy.deepcopy(g) if decay else None
    batches = endless(training.dataset, size, order)
    steps, every = experiment.train.discriminator_steps, experiment.train.discriminator_every
    turn = 0

    def noise() -> Tensor:
        return torch.randn(size, game.latent_dim, device=device)

    def judged(images: Tensor, condition: Tensor | None) -> Any:
        for augmentation in experiment.augmentation:
            images = augmentation.augment(images)
        with torch.autocast(device.type, dtype=game.autocast, enabled=game.autocast is not None):
            return d(images, condition)

    def made(condition: Tensor | None) -> Tensor:
        with torch.autocast(device.type, dtype=game.autocast, enabled=game.autocast is not None):
            return g(noise(), condition).float()  # type: ignore[no-any-return]

    def step() -> None:
        nonlocal turn
        for repeat in range(steps):
            real, condition = next(batches)
            real = real.to(device)
            condition = None if condition is None else condition.to(device)
            if turn % every:
                break
            fake = made(condition)
            on_real, on_fake = judged(real, condition), judged(fake.detach(), condition)
            loss = parts.loss.discriminator(_logits(on_real), _logits(on_fake))
            shown = _step("discriminator", parts, real, fake.detach(), on_real, on_fake, condition, game.images_seen)
            loss = loss + _penalties(parts, shown, turn // every * steps + repeat)
            parts.d_optimizer.zero_grad()
            loss.backward()
            _clip(d, experiment)
            parts.d_optimizer.step()
            loss.item()
        if experiment.train.fresh_noise or turn % every:
            fake = made(condition)
        on_fake = judged(fake, condition)
        on_real = judged(real, condition) if game.uses_real else torch.zeros_like(_logits(on_fake))
        loss = parts.loss.generator(_logits(on_real), _logits(on_fake))
        shown = _step("generator", parts, real, fake, on_real, on_fake, condition, game.images_seen)
        loss = loss + _penalties(parts, shown, turn)
        parts.g_optimizer.zero_grad()
        loss.backward()
        _clip(g, experiment)
        parts.g_optimizer.step()
        loss.item()
        if average is not None:
            with torch.no_grad():
                for kept, new in zip(average.parameters(), g.parameters(), strict=True):
                    kept.mul_(decay).add_(new, alpha=1 - decay)
        turn += 1

    return step, parts


def by_hand(experiment: Experiment, training: Training) -> tuple[Callable[[], None], Parts]:
    """One step of the loop at its best as a function, and what it trains."""
    parts = parts_of(experiment, training, prepared=True)
    game, size = training.game, experiment.train.batch_size
    g, d, device, loss, uses_real = parts.g, parts.d, game.device, parts.loss, game.uses_real
    repeats, every = experiment.train.discriminator_steps, experiment.train.discriminator_every
    fresh, augmentations = game.fresh_noise, experiment.augmentation
    images, conditions = training.loader.images, training.loader.condition
    frozen_with = list(d.parameters())
    decay = training.ema.decay if training.ema else 0.0
    kept = [p.detach().clone() for p in g.parameters()] if decay else []
    weights: list[Tensor] = list(g.parameters())
    per_epoch = len(images) // size
    number = turn = 0
    order = torch.empty(0)

    def next_real() -> Pair:
        nonlocal number, order
        epoch, place = divmod(number, per_epoch)
        if place == 0:
            generator = torch.Generator().manual_seed(derived_seed(experiment.seed, "order", epoch))
            order = torch.randperm(len(images), generator=generator).to(images.device)
        number += 1
        rows = order[place * size : (place + 1) * size]
        real = images[rows].to(device).float().div_(127.5).sub_(1.0)
        return real, None if conditions is None else condition_as_input(conditions[rows].to(device))

    def judged(batch: Tensor, condition: Tensor | None) -> Any:
        for augmentation in augmentations:
            batch = augmentation.augment(batch)
        return d(batch, condition)

    def both(real: Tensor, fake: Tensor, condition: Tensor | None) -> tuple[Any, Any]:
        if not game.joint_pass:
            return judged(real, condition), judged(fake, condition)
        twice = None if condition is None else torch.cat([condition, condition])
        on_real, on_fake = judged(torch.cat([real, fake]), twice).split(size)
        return on_real, on_fake

    def arithmetic(reals: list[Pair], turn: int) -> None:
        with torch.autocast(device.type, dtype=game.autocast, enabled=game.autocast is not None):
            for repeat, (real, condition) in enumerate(reals):
                if turn % every:
                    break
                with torch.set_grad_enabled(not fresh):
                    fake = g(torch.randn(size, game.latent_dim, device=device), condition).float()
                on_real, on_fake = both(real, fake.detach(), condition)
                total = loss.discriminator(_logits(on_real), _logits(on_fake))
                if parts.penalties["discriminator"]:
                    shown = _step(
                        "discriminator", parts, real, fake.detach(), on_real, on_fake, condition, game.images_seen
                    )
                    total = total + _penalties(parts, shown, turn // every * repeats + repeat)
                parts.d_optimizer.zero_grad()
                total.backward()
                _clip(d, experiment)
                parts.d_optimizer.step()
            for parameter in frozen_with:
                parameter.requires_grad_(False)
            if fresh or turn % every:
                fake = g(torch.randn(size, game.latent_dim, device=device), condition).float()
            on_fake = judged(fake, condition)
            with torch.no_grad():
                on_real = judged(real, condition) if uses_real else torch.zeros_like(_logits(on_fake))
            total = loss.generator(_logits(on_real), _logits(on_fake))
            if parts.penalties["generator"]:
                shown = _step("generator", parts, real, fake, on_real, on_fake, condition, game.images_seen)
                total = total + _penalties(parts, shown, turn)
            parts.g_optimizer.zero_grad()
            total.backward()
            _clip(g, experiment)
            parts.g_optimizer.step()
            for parameter in frozen_with:
                parameter.requires_grad_(True)
        if kept:
            with torch.no_grad():
                torch._foreach_lerp_(kept, weights, 1 - decay)

    turns = captured(arithmetic, parts, every) if device.type == "cuda" else arithmetic

    def step() -> None:
        nonlocal turn
        turns([next_real() for _ in range(repeats)], turn)
        turn += 1

    return step, parts


Arithmetic = Callable[[list[Pair], int], None]


def captured(arithmetic: Arithmetic, parts: Parts, every: int) -> Arithmetic:
    """The arithmetic as CUDA graphs, as torch's notes on them teach: three steps on a side stream, then a capture."""
    own = {"discriminator": every, "generator": 1}
    period = math.lcm(every, *(own[name] * term.every for name, due in parts.penalties.items() for term in due))
    for optimizer in (parts.g_optimizer, parts.d_optimizer):
        cuda_graphs.make_capturable(optimizer)
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
    seen: Counter[int] = Counter()
    graphs: dict[int, torch.cuda.CUDAGraph] = {}
    inputs: list[Pair] = []

    def step(reals: list[Pair], turn: int) -> None:
        kind = turn % period
        seen[kind] += 1
        if seen[kind] <= 3:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                arithmetic(reals, turn)
            torch.cuda.current_stream().wait_stream(stream)
            return
        if not inputs:
            inputs.extend((torch.empty_like(real), None if c is None else torch.empty_like(c)) for real, c in reals)
        if kind not in graphs:
            graphs[kind] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[kind], pool=pool, stream=stream):
                arithmetic(inputs, turn)
        for places, tensors in zip(inputs, reals, strict=True):
            for place, tensor in zip(places, tensors, strict=True):
                if place is not None and tensor is not None:
                    place.copy_(tensor)
        graphs[kind].replay()

    return step


def _clip(network: nn.Module, experiment: Experiment) -> None:
    if experiment.train.clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), experiment.train.clip_norm)


def _logits(output: Any) -> Tensor:
    tensor: Tensor = output if isinstance(output, Tensor) else output.logits
    return tensor.float()


def _step(
    player: str,
    parts: Parts,
    real: Tensor,
    fake: Tensor,
    on_real: Any,
    on_fake: Any,
    condition: Tensor | None,
    seen: Tensor,
) -> Step:
    return Step(player, parts.g, parts.d, real, fake, on_real, on_fake, condition, seen)


def _penalties(parts: Parts, step: Step, updates: int) -> Any:
    due = [penalty for penalty in parts.penalties[step.player] if updates % penalty.every == 0]
    return sum(penalty.every * penalty.penalty(step) for penalty in due)
