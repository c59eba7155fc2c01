"""The pixels themselves as features: for points in the plane, and for other images of a few pixels.

With them FID, KID, precision and recall compare points where they lie. Where the data has class labels the features
classify too, by a Gaussian for each class, and tell an image that is of no class: the rule by which Srivastava et al.
2017, "VEEGAN" (arXiv:1705.07761), call a point of high quality if it lies within three standard deviations of a mode.

Decisions:
- The Gaussians are isotropic, as those of `ring` and `grid` are, with the mean and the variance of the training images
  of the class, over all pixels. They are measured on the rounded images, so rounding, which widens both real and
  generated classes, is in the standard deviation that the rule counts in.
- A variance is never less than a twelfth of a level's square, which is what rounding alone gives.
- Sums are of whole levels, so that they are exact and the same on every device.
- A class is the one that an image is most likely of. Where the classes are equally wide, as in those data sets, that is
  the nearest.
- The rule is one for points: in d dimensions a Gaussian's own points lie about sqrt(d) standard deviations from its
  mean, so that of images of many pixels none would belong.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import gt, le

from ganlab import (
    ComponentError,
    Dataset,
    Evaluation,
    Features,
    FeaturesConfig,
    Register,
    cached_tensors,
    class_count,
    class_labels_of,
    hookimpl,
    tensors_sha256,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
"""Raise it when what is cached of the classes, or how it is computed, changes."""

LEVEL = 1 / 127.5
"""How far apart two uint8 levels are in [-1, 1]."""


@frozen
class PixelFeatures:
    """`Features`: uint8 images (N, C, H, W) of one shape to float32 (N, C * H * W) in [-1, 1]."""

    shape: tuple[int, int, int]
    device: torch.device
    fingerprint: str
    name: str = "pixels"
    preprocessing: str = "uint8 to [-1, 1], flattened"

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    def __call__(self, images: Tensor, /) -> Tensor:
        from ganlab import to_float

        if tuple(images.shape[1:]) != self.shape:
            got, wanted = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise ComponentError(f"the features 'pixels' are of images of {wanted}, got {got}")
        return to_float(images.to(self.device)).flatten(1)


@frozen(kw_only=True)
class ClassifyingPixels(PixelFeatures):
    """Pixels that also classify: `means` (classes, dim) and `variances` (classes,) of Gaussians, float64."""

    means: Tensor
    variances: Tensor
    sigmas: float

    def logits(self, images: Tensor) -> Tensor:
        """The log density of each class's Gaussian at uint8 images (N, C, H, W), float32 (N, classes)."""
        return self._log_densities(self._squared_distances(images)).float()

    def belongs(self, images: Tensor) -> Tensor:
        """Which images, bool (N,), lie within `sigmas` standard deviations of the mean of their most likely class."""
        squared = self._squared_distances(images)
        likely = self._log_densities(squared).argmax(1)
        return squared.gather(1, likely[:, None])[:, 0] <= self.sigmas**2 * self.variances[likely]

    def _squared_distances(self, images: Tensor) -> Tensor:
        import torch

        # By differences: the usual way, by products, cancels where the distance is small.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self(images).double(), self.means, compute_mode=exact).square()

    def _log_densities(self, squared: Tensor) -> Tensor:
        return -squared / (2 * self.variances) - self.dim / 2 * (2 * math.pi * self.variances).log()


@frozen
class Pixels:
    """The pixels in [-1, 1], flattened; with a Gaussian for each class where the data set has class labels.

    Without labels, or where a class has no training image, they have no class logits.

    sigmas: within how many standard deviations of its class's mean an image belongs to it.
    """

    sigmas: float = field(default=3.0, validator=[gt(0), le(1e6)])

    def build(self, evaluation: Evaluation) -> Features:
        """Measures the classes of the training split, or loads what was measured before."""
        import torch

        dataset = evaluation.dataset("train")
        _, *sides = dataset.images.shape
        channels, height, width = sides
        labels = class_labels_of(dataset)
        rests_on = {"shape": torch.tensor(sides)}
        if labels is None or not (counts := torch.bincount(labels, minlength=class_count(dataset, labels))).all():
            return PixelFeatures((channels, height, width), evaluation.device, tensors_sha256(rests_on))
        key = {
            "format": FORMAT,
            "dataset": dataset.fingerprint,
            "labels": tensors_sha256({"labels": labels}),
            "classes": len(counts),
        }
        found = cached_tensors(
            evaluation.places.cache / "pixels", "classes", key, lambda: class_gaussians(dataset, labels, counts)
        )
        return ClassifyingPixels(
            shape=(channels, height, width),
            device=evaluation.device,
            fingerprint=tensors_sha256({**rests_on, **found, "sigmas": torch.tensor(self.sigmas).double()}),
            means=found["means"].to(evaluation.device),
            variances=found["variances"].to(evaluation.device),
            sigmas=self.sigmas,
        )


def class_gaussians(dataset: Dataset, labels: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Of each class of images in [-1, 1]: `means` (classes, dim), and `variances` (classes,) over all pixels."""
    import torch

    classes, dim = len(counts), dataset.images[0].numel()
    sums = torch.zeros(classes, dim, dtype=torch.int64)
    squares = torch.zeros(classes, dtype=torch.int64)
    for images, of in zip(dataset.images.split(4096), labels.split(4096), strict=True):
        levels = images.flatten(1).long()
        sums.index_add_(0, of, levels)
        squares.index_add_(0, of, levels.square().sum(1))
    means = sums.double() / counts[:, None]
    variances = (squares.double() - (sums.double() * means).sum(1)) / (counts * dim)
    return {"means": means * LEVEL - 1, "variances": variances.clamp_min(1 / 12) * LEVEL**2}


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("pixels", Pixels)
