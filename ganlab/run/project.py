"""Projection of images into a run's latents (`Run.project`): which latents make an image, by gradient descent.

Decisions:
- The latents are those of the game's sampler: z, or styles where the sampler draws these, as StyleGAN's does (Abdal et
  al. 2019, arXiv:1904.03189). They begin at the best of many random ones, whose condition, such as a class, is kept.
- Adam makes each image's latents by themselves, so an image's result does not depend on the others. The learning rate
  is a share of the random latents' standard deviation, and falls to 0 as a cosine. The best latents of all updates
  count.
- Distances of pixels and of features are each divided by the image's own mean distance from the random images: 1 is as
  far as chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from ganlab.data.pixels import as_input, as_stored, type_name
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampling import generate_images, sample_inputs
from ganlab.nn.modes import eval_mode, frozen_parameters
from ganlab.protocols import map_condition
from ganlab.protocols.condition import Condition
from ganlab.run.latents_file import SampledRun, check_latents, write_latents
from ganlab.utils.errors import UserError, whole_number
from ganlab.utils.from_python import from_python
from ganlab.utils.progress import Progress, no_progress, paced
from ganlab.viz.data_picture import Limits, as_pixels
from ganlab.viz.film import Film
from ganlab.viz.image_grid import grid_png, image_grid
from ganlab.viz.pairs import columns_of_pairs, side_by_side
from ganlab.viz.show_images import png_html

TOGETHER = 32
"""Images that are projected at a time."""

KEPT = 91
"""Latents of the trajectory that are kept, at equal distances, the random ones and the last ones among them."""

MOST_FILMED = 16
"""The most images whose trajectory a film shows."""

MOST = 10**7

PixelFeatures = Callable[[Tensor], Tensor]
"""Features (N, dim), with gradients, of float images (N, C, H, W) in [-1, 1]."""


@frozen
class ProjectionOptions:
    """How images are projected: by `updates` of Adam from the best of `starts` random latents of `seed`.

    `lr` is the learning rate in standard deviations of the latents, `label` the class, None for that of the best
    random latents. `features` are compared besides pixels, with `feature_weight`.
    """

    updates: int = 500
    starts: int = 256
    lr: float = 0.1
    seed: int = 0
    label: int | str | None = None
    features: PixelFeatures | None = None
    feature_weight: float = 1.0
    one_style: bool = False

    def check(self) -> None:
        """Raises UserError for options that cannot be."""
        whole_number("--updates", self.updates, 1, MOST)
        whole_number("--starts", self.starts, 1, MOST)
        whole_number("--seed", self.seed, 0)
        for name, value in (("--lr", self.lr), ("--feature-weight", self.feature_weight)):
            if not 0 < value < math.inf:
                raise UserError(f"{name} {value:g}: expected a finite number above 0")


@frozen(eq=False)
class Projection:
    """Images projected into a run's latents.

    `latents` (N, …), with their `condition` in the type of the data set, make `images` (N, C, H, W) of its type, which
    are near `targets`. `errors` (N,) are the roots of the mean squared differences, in the data's unit (levels of uint8
    images), `first_errors` those of the best random latents. `trajectory` (K, N, …) are latents in the course of the
    optimisation, of which `film` makes images by `sampler`. Pictures show float32 data between `limits`.
    """

    latents: Tensor = field(repr=False)
    condition: Condition = field(repr=False)
    images: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    errors: Tensor
    first_errors: Tensor
    trajectory: Tensor = field(repr=False)
    sampler: NetworkSampler = field(repr=False)
    device: torch.device = field(repr=False)
    limits: Limits = field(repr=False)

    @from_python
    def save(self, path: str | Path) -> None:
        """Writes the latents of projected images to FILE.npz or FILE.safetensors, for `ganlab sample --latents`."""
        path = Path(path)
        if path.suffix not in (".npz", ".safetensors"):
            raise UserError(f"{path}: expected FILE.npz or FILE.safetensors")
        write_latents(path, self.latents, self.condition, errors=self.errors)

    def film(self) -> Film:
        """The optimisation of the first 16 projected images, beside their targets; UserError for rows of a table."""
        if self.images.ndim < 3:
            raise UserError("film: films are of images; these are rows of a table")
        condition = map_condition(lambda part: as_input(part[:MOST_FILMED]), self.condition)
        targets = as_pixels(self.targets[:MOST_FILMED], self.limits)
        columns = columns_of_pairs(len(targets), 2)
        frames = []
        for z in self.trajectory[:, :MOST_FILMED]:
            (made,) = generate_images(self.sampler, z, self.device, condition)
            frames.append(image_grid(side_by_side([targets, as_pixels(made.cpu(), self.limits)]), columns))
        return Film(torch.stack(frames))

    def _repr_html_(self) -> str:
        if self.images.ndim < 3:
            return f"<pre>{escape(repr(self))}</pre>"
        pairs = side_by_side([as_pixels(part, self.limits) for part in (self.targets, self.images)])
        errors = ", ".join(
            f"{error:.3g} ({first:.3g})" for error, first in zip(self.errors, self.first_errors, strict=True)
        )
        picture = png_html(grid_png(pairs, columns_of_pairs(len(pairs), 2)), "targets and results")
        return f"<div>{picture}<div>errors, and those of the best random latents: {errors}</div></div>"


def project(
    run: SampledRun, images: Tensor, options: ProjectionOptions, progress: Progress = no_progress
) -> Projection:
    """Projects images (N, C, H, W), of the type and shape of what a run samples, into its latents.

    Raises UserError where they are of another type or shape, and where nothing leads from an image back to latents.
    """
    options.check()
    check_projectable(run)
    if options.one_style and not run.sampler.sampler.styles:
        raise UserError(f"--one-style: {run.path}: the latents of this run are no styles")
    _check_images(run, images)
    images = images.cpu()
    random = _Random.drawn(run, options)
    parts = [_projected(run, part, options, random, progress) for part in images.split(TOGETHER)]
    conditions = [part.condition for part in parts]
    return Projection(
        torch.cat([part.latents for part in parts]),
        map_condition(lambda *each: torch.cat(each), conditions[0], *conditions[1:]),
        torch.cat([part.images for part in parts]),
        images,
        torch.cat([part.errors for part in parts]),
        torch.cat([part.first_errors for part in parts]),
        torch.cat([part.trajectory for part in parts], 1),
        run.sampler,
        run.device,
        run.sampled.range,
    )


def check_projectable(run: SampledRun) -> None:
    """Refuses a run whose images cannot be projected, by what can be known before its data are read; UserError."""
    run.check_samples()
    check_latents(run, "no image can be projected")


def _check_images(run: SampledRun, images: Any) -> None:
    """Refuses images that cannot be projected."""
    data = run.sampled
    if not isinstance(images, Tensor) or type_name(images.dtype) != data.dtype or images.shape[1:] != data.shape:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"project: images are {got}; the run samples {data.in_words}")
    if not len(images):
        raise UserError("project: no images; expected at least one")
    if images.is_floating_point() and not images.isfinite().all():
        raise UserError("project: images are not finite")


@frozen(eq=False)
class _Random:
    """Random samples that images are projected from: latents, conditions, and images as networks make them."""

    z: Tensor
    condition: Condition
    made: Tensor

    @classmethod
    def drawn(cls, run: SampledRun, options: ProjectionOptions) -> _Random:
        label = options.label
        conditions = run.conditions if label is None else run.conditions.of_class(label)
        latents: list[Tensor] = []
        given: list[Condition] = []
        made: list[Tensor] = []
        for z, condition in sample_inputs(run.sampler, options.starts, options.seed, conditions):
            with eval_mode(run.sampler):
                images = run.sampler(z.to(run.device), map_condition(lambda part: part.to(run.device), condition))
            latents.append(z)
            given.append(condition)
            made.append(images.cpu())
        return cls(
            torch.cat(latents), map_condition(lambda *each: torch.cat(each), given[0], *given[1:]), torch.cat(made)
        )

    def feature_distances(self, features: PixelFeatures, wanted: Tensor) -> Tensor:
        """Squared distances (N, starts) of the features (N, dim) of images that are projected from random ones'.

        The random images' features, which may be large maps, are not kept.
        """
        parts = []
        for images in self.made.split(TOGETHER):
            with torch.no_grad():
                found = _features(features, images.to(wanted.device))
            parts.append(torch.cdist(wanted.cpu().double(), found.cpu().double()).square())
        return torch.cat(parts, 1)


def _features(features: PixelFeatures, images: Tensor) -> Tensor:
    """The features (N, dim) of images that are projected; UserError for anything else."""
    found = features(images)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(f"project: the features are {got}; expected ({len(images)}, dim)")
    return found


def _projected(
    run: SampledRun, images: Tensor, options: ProjectionOptions, random: _Random, progress: Progress
) -> Projection:
    """Projects a few images together."""
    device, sampler, report = run.device, run.sampler, paced(progress)
    target = as_input(images).to(device)
    with torch.no_grad():
        wanted = None if options.features is None else _features(options.features, target)
    pixels = torch.cdist(target.cpu().flatten(1).double(), random.made.flatten(1).double()).square() / target[0].numel()
    scale = _means(pixels)
    distances, feature_scale = pixels / scale, torch.ones_like(scale)
    if wanted is not None and options.features is not None:
        apart = random.feature_distances(options.features, wanted)
        feature_scale = _means(apart)
        distances = distances + options.feature_weight * apart / feature_scale
    nearest = distances.argmin(1)
    drawn = random.z[nearest].to(device)
    z = (drawn.mean(1, keepdim=True) if options.one_style else drawn).requires_grad_(True)
    condition = map_condition(lambda part: part[nearest].to(device), random.condition)
    optimizer = torch.optim.Adam([z], lr=options.lr * (float(random.z.std()) if random.z.numel() > 1 else 1.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.updates)
    pixel_unit, feature_unit = (of[:, 0].to(device, torch.float32) for of in (scale, feature_scale))
    kept = {round(index * options.updates / (KEPT - 1)) for index in range(KEPT)}
    best, least = drawn.clone(), torch.full((len(z),), math.inf, device=device)
    trajectory: list[Tensor] = []
    weights = [parameter for parameter in sampler.parameters() if parameter.requires_grad]
    with eval_mode(sampler), frozen_parameters(weights), torch.enable_grad():
        for update in range(options.updates + 1):
            whole = z.expand_as(drawn)
            made = sampler(whole, condition)
            loss = (made - target).square().flatten(1).mean(1) / pixel_unit
            if options.features is not None and wanted is not None:
                apart = (_features(options.features, made) - wanted).square().sum(1)
                loss = loss + options.feature_weight * apart / feature_unit
            better = (loss.detach() < least).view(-1, *[1] * (z.ndim - 1))
            best = torch.where(better, whole.detach(), best)
            least = torch.minimum(loss.detach(), least)
            if update in kept:
                trajectory.append(best.cpu())
            if update == options.updates:
                break
            z.grad = _gradient(run, loss.sum(), z)
            optimizer.step()
            schedule.step()
            report("updates", update + 1, options.updates)
    with eval_mode(sampler):
        found = as_stored(sampler(best, condition), sampler.dtype).cpu()
    first = as_stored(random.made[nearest], sampler.dtype)
    return Projection(
        best.cpu(),
        run.conditions.as_stored(map_condition(lambda part: part.cpu(), condition)),
        found,
        images,
        _errors(found, images),
        _errors(first, images),
        torch.stack(trajectory),
        sampler,
        device,
        run.sampled.range,
    )


def _means(distances: Tensor) -> Tensor:
    """The mean distance of each projected image from the random ones, (N, 1); 1 where that is 0."""
    means = distances.mean(1, keepdim=True)
    return torch.where(means == 0, 1.0, means)


def _gradient(run: SampledRun, loss: Tensor, z: Tensor) -> Tensor:
    """The gradient of the distance of projected images by their latents; UserError where there is none."""
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, [z], allow_unused=True)
    if gradient is None:
        raise UserError(f"{run.path}: what is sampled has no gradient by its latents, so no image can be projected")
    if not bool(gradient.isfinite().all()):
        raise UserError(f"{run.path}: the gradient by the latents is not finite, so the images cannot be projected")
    return gradient


def _errors(made: Tensor, images: Tensor) -> Tensor:
    """The root of the mean squared difference of each projected image from what it is to be, in the data's unit."""
    return (made.double() - images.double()).square().flatten(1).mean(1).sqrt()
