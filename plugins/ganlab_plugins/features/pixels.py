"""Pixel features: the pixels themselves, for 2D points, other images of a few pixels, signals and rows of a table.

With them FID, KID, precision and recall compare points by their coordinates. If the data has class labels, the features
also classify, by a Gaussian for each class, and detect images of no class: by the rule of Srivastava et al. 2017,
"VEEGAN" (arXiv:1705.07761), a point has high quality if it lies within three standard deviations of a mode.

Decisions:
- The Gaussians are isotropic, as those of `ring` and `grid` are, with the mean and the variance of the class's training
  images, over all pixels. They are estimated from the rounded images, so that the rule's standard deviation includes
  the rounding, which widens both real and generated classes.
- A variance is at least a twelfth of a squared level, the variance of the rounding alone.
- Sums are of integer levels, so they are exact and the same on every device. Of float32 data, which are used as they
  are, they are of float64 numbers, in two passes; a variance is at least that of rounding to float32.
- An image's class is its most likely one. If the classes have equal variances, as in those data sets, that is the
  nearest.
- The rule is meant for points: in d dimensions a Gaussian's own points lie about sqrt(d) standard deviations from its
  mean, so no image of many pixels would belong to a class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen
from attrs.validators import gt, le

from ganlab import (
    ComponentError,
    Dataset,
    Evaluation,
    Features,
    FeaturesConfig,
    Register,
    Takes,
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
"""To be incremented when the cached Gaussians of the classes, or their computation, change."""

LEVEL = 1 / 127.5
"""Distance of two uint8 levels in [-1, 1]."""


@frozen
class PixelFeatures:
    """Pixel `Features`: uint8 images (N, C, H, W) of one shape to float32 (N, C * H * W) in [-1, 1].

    Other data are flattened in the same way; those of float32 are not scaled.
    """

    takes: ClassVar[Takes] = "any"

    shape: tuple[int, ...]
    device: torch.device
    fingerprint: str
    name: str = "pixels"
    preprocessing: str = "uint8 to [-1, 1], flattened"
    dtype: str = "uint8"

    @property
    def dim(self) -> int:
        return math.prod(self.shape)

    def __call__(self, images: Tensor, /) -> Tensor:
        from ganlab import as_input

        if str(images.dtype) != f"torch.{self.dtype}":
            raise ComponentError(f"the features 'pixels' are of {self.dtype} data here, got {images.dtype}")
        if tuple(images.shape[1:]) != self.shape:
            got, wanted = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise ComponentError(f"the features 'pixels' are of images of {wanted}, got {got}")
        return as_input(images.to(self.device)).flatten(1)


@frozen(kw_only=True)
class ClassifyingPixels(PixelFeatures):
    """Pixel features that also classify: `means` (classes, dim) and `variances` (classes,) of Gaussians, float64."""

    means: Tensor
    variances: Tensor
    sigmas: float

    def logits(self, images: Tensor) -> Tensor:
        """The log densities, float32 (N, classes), of the classes' Gaussians at pixels of uint8 images (N, C, H, W)."""
        return self._log_densities(self._squared_distances(images)).float()

    def belongs(self, images: Tensor) -> Tensor:
        """Which images, bool (N,), are within `sigmas` standard deviations of their most likely class's mean pixels."""
        squared = self._squared_distances(images)
        likely = self._log_densities(squared).argmax(1)
        return squared.gather(1, likely[:, None])[:, 0] <= self.sigmas**2 * self.variances[likely]

    def _squared_distances(self, images: Tensor) -> Tensor:
        import torch

        # From differences: the faster form with matrix products loses precision for small distances.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self(images).double(), self.means, compute_mode=exact).square()

    def _log_densities(self, squared: Tensor) -> Tensor:
        return -squared / (2 * self.variances) - self.dim / 2 * (2 * math.pi * self.variances).log()


@frozen
class Pixels:
    """The flattened pixels in [-1, 1], with a Gaussian for each class if the data set has class labels.

    Without labels, or if a class has no training image, these features have no class logits.

    sigmas: an image belongs to a class if it is within this many standard deviations of the class's mean.
    """

    takes: ClassVar[Takes] = "any"

    sigmas: float = field(default=3.0, validator=[gt(0), le(1e6)])

    def build(self, evaluation: Evaluation) -> Features:
        """Fits a Gaussian in pixel space to each class of the training split, or loads cached ones."""
        import torch

        dataset = evaluation.dataset("train")
        shape = tuple(dataset.images.shape[1:])
        labels = class_labels_of(dataset)
        dtype = str(dataset.images.dtype).removeprefix("torch.")
        fingerprinted = {"shape" if dtype == "uint8" else f"shape {dtype}": torch.tensor(shape)}
        scaling = "float32, flattened" if dtype == "float32" else f"{dtype} to [-1, 1], flattened"
        if labels is None or not (counts := torch.bincount(labels, minlength=class_count(dataset, labels))).all():
            fingerprint = tensors_sha256(fingerprinted)
            return PixelFeatures(shape, evaluation.device, fingerprint, preprocessing=scaling, dtype=dtype)
        key = {
            "format": FORMAT,
            "dataset": dataset.fingerprint,
            "labels": tensors_sha256({"labels": labels}),
            "classes": len(counts),
        }
        found = cached_tensors(
            evaluation.places.cache / "pixels",
            "classes",
            key,
            lambda: class_gaussians(dataset, labels, counts),
            evaluation.progress,
        )
        return ClassifyingPixels(
            shape=shape,
            preprocessing=scaling,
            dtype=dtype,
            device=evaluation.device,
            fingerprint=tensors_sha256({**fingerprinted, **found, "sigmas": torch.tensor(self.sigmas).double()}),
            means=found["means"].to(evaluation.device),
            variances=found["variances"].to(evaluation.device),
            sigmas=self.sigmas,
        )


def class_gaussians(dataset: Dataset, labels: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Fits Gaussians to the pixels of each class, in [-1, 1]: `means` (classes, dim) and `variances` (classes,)."""
    import torch

    if dataset.images.dtype == torch.float32:
        return _float_gaussians(dataset, labels, counts)
    classes, dim = len(counts), dataset.images[0].numel()
    sums = torch.zeros(classes, dim, dtype=torch.int64)
    squares = torch.zeros(classes, dtype=torch.int64)
    for images, of in zip(dataset.images.split(4096), labels.split(4096), strict=True):
        levels = images.flatten(1).long()
        sums.index_add_(0, of, levels)
        squares.index_add_(0, of, levels.square().sum(1))
    means = sums.double() / counts[:, None]
    variances = (squares.double() - (sums.double() * means).sum(1)) / (counts * dim)
    level = LEVEL if dataset.images.dtype == torch.uint8 else LEVEL / 257
    return {"means": means * level - 1, "variances": variances.clamp_min(1 / 12) * level**2}


def _float_gaussians(dataset: Dataset, labels: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Fits Gaussians to each class of float32 data: `means` (classes, dim) and `variances` (classes,), as they are."""
    import torch

    classes, dim = len(counts), dataset.images[0].numel()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, of in zip(dataset.images.split(4096), labels.split(4096), strict=True):
            yield images.flatten(1).double(), of

    sums = torch.zeros(classes, dim, dtype=torch.float64)
    for values, of in batches():
        sums.index_add_(0, of, values)
    means = sums / counts[:, None]
    squares = torch.zeros(classes, dtype=torch.float64)
    for values, of in batches():
        squares.index_add_(0, of, (values - means[of]).square().sum(1))
    rounding = (means.abs().amax(1) * 2.0**-24).square() + torch.finfo(torch.float32).tiny
    return {"means": means, "variances": torch.maximum(squares / (counts * dim), rounding)}


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("pixels", Pixels)
