"""The baseline "tutorial" of `ganlab bench`: a GAN training loop as tutorials write it.

Images are decoded one at a time in a DataLoader with ToTensor and Normalize; gradients are computed for both networks
in both turns; real and fake take separate passes; each loss is read by `.item()` in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
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
from ganlab.protocols import Dataset, generator_uses_real
from ganlab.training.loop import Training


class PILImageDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The tutorial loop's images, as torchvision returns them: a PIL image, made a tensor in [-1, 1], and a label."""

    def __init__(self, dataset: Dataset) -> None:
        from torchvision import transforms

        channels = dataset.images.shape[1]
        half = (0.5,) * channels
        self.images = dataset.images.permute(0, 2, 3, 1).contiguous().numpy()
        condition = dataset.condition
        self.labels = as_input(condition) if isinstance(condition, Tensor) else torch.zeros(len(dataset.images))
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), self.labels[index]


def cycle_batches(
    dataset: Dataset, batch_size: int, order: Callable[[int], Tensor] | None = None
) -> Iterator[RealBatch]:
    """Yields the tutorial loop's batches, epoch after epoch; `order(epoch)` replaces the DataLoader's own shuffling."""
    images_as_pil = PILImageDataset(dataset)
    generator = torch.Generator()  # the default generator is that of the noise
    epoch = 0
    while True:
        sampler = None if order is None else order(epoch).tolist()
        loader = torch.utils.data.DataLoader(
            images_as_pil,
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


def tutorial_step(
    experiment: Experiment, training: Training, order: Callable[[int], Tensor] | None = None
) -> tuple[Callable[[], None], BaselineParts]:
    """Returns a function that takes one step of the tutorial's loop, and the parts that it trains."""
    parts = build_parts(experiment, training, prepared=False)
    game, size = training.game, experiment.train.batch_size
    g, d, device = parts.g, parts.d, game.device
    decay = training.ema.decay if training.ema else 0.0
    average = copy.deepcopy(g) if decay else None
    batches = cycle_batches(training.dataset, size, order)
    making, judging = parts.names
    repeats, every = parts.repeats, parts.every
    turn = 0

    def noise() -> Tensor:
        return torch.randn(size, g.latent_dim, device=device)  # type: ignore[call-overload, no-any-return]

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
        for repeat in range(repeats):
            real, condition = next(batches)
            real = real.to(device)
            condition = None if condition is None else condition.to(device)
            if turn % every:
                break
            fake = made(condition)
            on_real, on_fake = judged(real, condition), judged(fake.detach(), condition)
            loss = parts.loss.discriminator(logits_of(on_real), logits_of(on_fake))
            state = penalty_step(judging, parts, real, fake.detach(), on_real, on_fake, condition, game.images_seen)
            loss = loss + due_penalties(parts, state, turn // every * repeats + repeat)
            parts.d_optimizer.zero_grad()
            loss.backward()
            clip_gradients(d, game.players[judging])
            parts.d_optimizer.step()
            loss.item()
        if parts.fresh or turn % every:
            fake = made(condition)
        on_fake = judged(fake, condition)
        on_real = judged(real, condition) if generator_uses_real(parts.loss) else torch.zeros_like(logits_of(on_fake))
        loss = parts.loss.generator(logits_of(on_real), logits_of(on_fake))
        state = penalty_step(making, parts, real, fake, on_real, on_fake, condition, game.images_seen)
        loss = loss + due_penalties(parts, state, turn)
        parts.g_optimizer.zero_grad()
        loss.backward()
        clip_gradients(g, game.players[making])
        parts.g_optimizer.step()
        loss.item()
        if average is not None:
            with torch.no_grad():
                for kept, new in zip(average.parameters(), g.parameters(), strict=True):
                    kept.mul_(decay).add_(new, alpha=1 - decay)
        turn += 1

    return step, parts
