"""Sampling from networks: images for latents and conditions, for metrics and for sample grids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.pixels import as_stored
from ganlab.evaluation.latents import check_truncation
from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.nn.modes import eval_mode
from ganlab.protocols import map_condition
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import SamplesNotFinite, UserError, whole_number
from ganlab.utils.memory import FittingBatches
from ganlab.utils.rng import derived_seed

BATCH = 128
"""Images generated at a time. Not an option: in eval mode an image does not depend on its batch."""


MOST_IMAGES = 10**16
"""The highest number of images to sample: torch can still hold it, and no disk has room for as many."""


def check_sampling(count: int, seed: int, truncation: float | None) -> tuple[int, int]:
    """Checks a request for samples, and returns count and seed as numbers of Python. Raises UserError."""
    check_truncation(truncation)
    return whole_number("--count", count, 1, MOST_IMAGES), whole_number("--seed", seed, 0)


def room_for_samples(count: int, like: Tensor) -> Tensor:
    """Makes room for all samples, `count` of the shape and type of `like`; UserError where the memory is too small."""
    try:
        return torch.empty(count, *like.shape[1:], dtype=like.dtype)
    except RuntimeError:
        size = count * like[0].numel() / 2**30
        raise UserError(
            f"--count {count:,}: {size:,.0f} GiB of images do not fit into memory; `ganlab sample` writes any number "
            "of images to a folder or an .npz file"
        ) from None


def ignores_truncation(sampler: NetworkSampler, truncation: float) -> bool:
    """Sampling's trial of a truncation: whether the latents are the same with half of it."""
    drawn = [sampler.latents(2, torch.Generator().manual_seed(0), cut) for cut in (truncation, truncation / 2)]
    return torch.equal(*drawn)


def generate_images(
    network: nn.Module, z: Tensor, device: torch.device, condition: Condition = None
) -> Iterator[Tensor]:
    """Sampling by latents (N, latent_dim) and conditions: images (n, C, H, W) on the device, in batches.

    They are of the type of the data set of a `NetworkSampler`, and of a network alone uint8. Raises `SamplesNotFinite`.
    """
    inputs = (
        (z[rows], map_condition(lambda of, rows=rows: of[rows], condition))
        for rows in torch.arange(len(z)).split(BATCH)
    )
    for images, _ in _images_of(network, inputs, device):
        yield images


def _images_of(
    network: nn.Module, inputs: Iterable[tuple[Tensor, Condition]], device: torch.device
) -> Iterator[tuple[Tensor, Condition]]:
    """Yields images with conditions for each batch of inputs; a size that fits in memory is kept for the next ones."""
    dtype = network.dtype if isinstance(network, NetworkSampler) else "uint8"
    size = BATCH
    for z, condition in inputs:

        def made(part: Tensor, z: Tensor = z, condition: Condition = condition) -> Tensor:
            """Generates the images of these rows of latents."""
            given = map_condition(lambda of: of[part].to(device), condition)
            images: Tensor = network(z[part].to(device), given)
            if not images.isfinite().all():  # as pixels they would be scored like any others
                raise SamplesNotFinite("generated images are not finite: the game's sampler made NaN or infinity")
            return as_stored(images, dtype)

        fitting = FittingBatches(made, size)
        with eval_mode(network):
            images = fitting(torch.arange(len(z)))
        size = fitting.size
        yield images, condition


def sample(
    network: nn.Module,
    count: int,
    seed: int,
    device: torch.device,
    conditions: ConditionSampler = UNCONDITIONAL,
    label: str = "samples",
    share: tuple[int, int] | None = None,
    truncation: float | None = None,
) -> Iterator[tuple[Tensor, Condition]]:
    """Sampling from a network or a `NetworkSampler`: `count` images of the data's type with conditions, in batches.

    A larger count begins with the same images.

    `share` is a half-open range of indices: only that part of them. `truncation` is that of the latents.
    """
    inputs = sample_inputs(network, count, seed, conditions, label, share, truncation)
    return _images_of(network, inputs, device)


def sample_inputs(
    network: nn.Module,
    count: int,
    seed: int,
    conditions: ConditionSampler = UNCONDITIONAL,
    label: str = "samples",
    share: tuple[int, int] | None = None,
    truncation: float | None = None,
) -> Iterator[tuple[Tensor, Condition]]:
    """Sampling's inputs, which `sample` makes images from: latents (n, latent_dim) and conditions, n up to `BATCH`."""
    first, end = share or (0, count)
    generator = torch.Generator().manual_seed(derived_seed(seed, label))
    drawing = torch.Generator().manual_seed(derived_seed(seed, label, "condition"))
    period = network.sampler.period if isinstance(network, NetworkSampler) else 1
    batch = max(1, BATCH // period) * period
    for start in range(0, end, batch):
        # Latents are drawn in whole batches, so that the number of images does not change which they are.
        rows = slice(max(0, first - start), end - start)
        z = draw_latents(network, batch, generator, truncation)[rows]
        condition = conditions.drawn(batch, drawing)
        if first >= start + batch < end:  # it is drawn for the numbers that follow
            continue
        yield z, map_condition(lambda part, rows=rows: part[rows], condition)


def sample_grid(
    network: nn.Module,
    count: int,
    seed: int,
    device: torch.device,
    conditions: ConditionSampler,
    truncation: float | None = None,
) -> tuple[Tensor, int | None]:
    """Sampling for a grid: its images (N, C, H, W) on the CPU, as `sample` makes them, and the number of columns.

    With classes, each row is a class and each column a latent. Otherwise they are the first `count` images of `sample`.
    """
    labels = conditions.rows(count)
    if labels is None:
        drawn = sample(network, count, seed, device, conditions, truncation=truncation)
        return torch.cat([images.cpu() for images, _ in drawn]), None
    rows, columns = labels.shape
    generator = torch.Generator().manual_seed(derived_seed(seed, "samples"))
    z = draw_latents(network, columns, generator, truncation)
    z = z.repeat(rows, *[1] * (z.ndim - 1))
    return torch.cat([images.cpu() for images in generate_images(network, z, device, labels.flatten())]), columns
