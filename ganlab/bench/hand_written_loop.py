"""The baseline "by hand" of `ganlab bench`: the fastest loop for the same arithmetic that we know how to write.

uint8 images in memory are gathered by index; the network that judges is frozen in the other's turn; real and fake are
joined in one pass, and the channels-last format and quick dropout are used where ganlab uses them; nothing is
recorded. On CUDA the whole step is a captured graph.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganlab.bench.baseline_parts import (
    BaselineParts,
    RealBatch,
    build_parts,
    clip_gradients,
    due_penalties,
    logits_of,
    penalty_step,
)
from ganlab.config.schema import Experiment
from ganlab.data.pixels import as_input
from ganlab.protocols import batch_independent, generator_uses_real
from ganlab.training.cuda_graphs import CudaGraphs, Recorder
from ganlab.training.loop import Training
from ganlab.utils.capturable import make_capturable
from ganlab.utils.device import can_capture
from ganlab.utils.errors import one_line
from ganlab.utils.rng import derived_seed

WARM_UP = 3
"""How many eager steps of a kind precede its capture."""


def hand_written_step(experiment: Experiment, training: Training) -> tuple[Callable[[], None], BaselineParts]:
    """Returns a function that takes one step of the hand-written loop, and the parts that it trains."""
    parts = build_parts(experiment, training, prepared=True)
    game, size = training.game, experiment.train.batch_size
    making, judging = parts.names
    g, d, device, loss, uses_real = parts.g, parts.d, game.device, parts.loss, generator_uses_real(parts.loss)
    repeats, every, fresh = parts.repeats, parts.every, parts.fresh
    augmentations = experiment.augmentation
    images, conditions = training.loader.images, training.loader.condition
    frozen_with = list(d.parameters())
    joint_pass, latent_dim = batch_independent(d), int(g.latent_dim)  # type: ignore[arg-type]
    decay = training.ema.decay if training.ema else 0.0
    kept = [p.detach().clone() for p in g.parameters()] if decay else []
    weights: list[Tensor] = list(g.parameters())
    per_epoch = len(images) // size
    number = turn = 0
    order = torch.empty(0)

    def next_real() -> RealBatch:
        nonlocal number, order
        epoch, place = divmod(number, per_epoch)
        if place == 0:
            generator = torch.Generator().manual_seed(derived_seed(experiment.seed, "order", epoch))
            order = torch.randperm(len(images), generator=generator).to(images.device)
        number += 1
        rows = order[place * size : (place + 1) * size]
        real = images[rows].to(device).float().div_(127.5).sub_(1.0)
        return real, as_input(conditions[rows].to(device)) if isinstance(conditions, Tensor) else None

    def judged(batch: Tensor, condition: Tensor | None) -> Any:
        for augmentation in augmentations:
            batch = augmentation.augment(batch)
        return d(batch, condition)

    def both(real: Tensor, fake: Tensor, condition: Tensor | None) -> tuple[Any, Any]:
        if not joint_pass:
            return judged(real, condition), judged(fake, condition)
        twice = None if condition is None else torch.cat([condition, condition])
        on_real, on_fake = judged(torch.cat([real, fake]), twice).split(size)
        return on_real, on_fake

    def arithmetic(reals: list[RealBatch], turn: int) -> None:
        with torch.autocast(device.type, dtype=game.autocast, enabled=game.autocast is not None):
            for repeat, (real, condition) in enumerate(reals):
                if turn % every:
                    break
                with torch.set_grad_enabled(not fresh):
                    fake = g(torch.randn(size, latent_dim, device=device), condition).float()
                on_real, on_fake = both(real, fake.detach(), condition)
                total = loss.discriminator(logits_of(on_real), logits_of(on_fake))
                if parts.penalties[judging]:
                    state = penalty_step(
                        judging, parts, real, fake.detach(), on_real, on_fake, condition, game.images_seen
                    )
                    total = total + due_penalties(parts, state, turn // every * repeats + repeat)
                parts.d_optimizer.zero_grad()
                total.backward()
                clip_gradients(d, game.players[judging])
                parts.d_optimizer.step()
                torch.clear_autocast_cache()  # of weights before this update
            for parameter in frozen_with:
                parameter.requires_grad_(False)
            if fresh or turn % every:
                fake = g(torch.randn(size, latent_dim, device=device), condition).float()
            on_fake = judged(fake, condition)
            with torch.no_grad():
                on_real = judged(real, condition) if uses_real else torch.zeros_like(logits_of(on_fake))
            total = loss.generator(logits_of(on_real), logits_of(on_fake))
            if parts.penalties[making]:
                state = penalty_step(making, parts, real, fake, on_real, on_fake, condition, game.images_seen)
                total = total + due_penalties(parts, state, turn)
            parts.g_optimizer.zero_grad()
            total.backward()
            clip_gradients(g, game.players[making])
            parts.g_optimizer.step()
            for parameter in frozen_with:
                parameter.requires_grad_(True)
        if kept:
            with torch.no_grad():
                torch._foreach_lerp_(kept, weights, 1 - decay)

    turns = capture_cuda_graphs(arithmetic, parts, every, CudaGraphs(device)) if can_capture(device) else arithmetic

    def step() -> None:
        nonlocal turn
        turns([next_real() for _ in range(repeats)], turn)
        turn += 1

    return step, parts


StepArithmetic = Callable[[list[RealBatch], int], None]


def capture_cuda_graphs(
    arithmetic: StepArithmetic, parts: BaselineParts, every: int, recorder: Recorder
) -> StepArithmetic:
    """Captures the hand-written step as CUDA graphs; three warm-up steps come first, as torch's notes advise.

    A step that cannot be captured is taken eagerly.
    """
    making, judging = parts.names
    own = {judging: every, making: 1}
    period = math.lcm(every, *(own[name] * term.every for name, due in parts.penalties.items() for term in due))
    for optimizer in (parts.g_optimizer, parts.d_optimizer):
        make_capturable(optimizer)
    seen: Counter[int] = Counter()
    replays: dict[int, Callable[[], None]] = {}
    refused: set[int] = set()
    inputs: list[RealBatch] = []

    def step(reals: list[RealBatch], turn: int) -> None:
        kind = turn % period
        seen[kind] += 1
        if seen[kind] <= WARM_UP or kind in refused:
            recorder.run(partial(arithmetic, reals, turn))
            return
        if not inputs:
            inputs.extend((torch.empty_like(real), None if c is None else torch.empty_like(c)) for real, c in reals)
        if kind not in replays:
            try:
                replays[kind] = recorder.record(partial(arithmetic, inputs, turn))
            except RuntimeError as error:
                refused.add(kind)
                warnings.warn(f"the plain loop's steps are not captured: {one_line(error, 120)}", stacklevel=2)
                recorder.run(partial(arithmetic, reals, turn))
                return
        for places, tensors in zip(inputs, reals, strict=True):
            for place, tensor in zip(places, tensors, strict=True):
                if place is not None and tensor is not None:
                    place.copy_(tensor)
        replays[kind]()

    return step
