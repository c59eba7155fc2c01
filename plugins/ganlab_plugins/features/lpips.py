"""LPIPS features: maps of a trained network whose squared distances are LPIPS, for `ganlab project` above all.

Zhang et al. 2018 (arXiv:1801.03924), as the metric `lpips` has it: that metric's network, files and decisions.

Decisions:
- LPIPS is a sum of weighted squared differences, so it is the squared distance of features: each value of a unit map is
  multiplied by the root of its channel's weight over the number of positions. Weights below 0 are refused.
- They are many, tens of thousands for images of 64 pixels: for distances, and not for the covariances of FID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Evaluation,
    FeaturesConfig,
    FittingBatches,
    Register,
    full_precision,
    hookimpl,
    location,
)
from ganlab_plugins.metrics.lpips import BATCH, Distance, LPIPSFiles, NetworkName

if TYPE_CHECKING:
    from torch import Tensor


@frozen(eq=False)
class LPIPSFeatures:
    """LPIPS `Features`: uint8 images (N, 1 or 3, H, W) of one size to float32 (N, dim). Grey becomes RGB."""

    distance: Distance
    name: str
    dim: int
    preprocessing: str
    batches: FittingBatches = field(init=False, repr=False)

    @batches.default
    def _batches(self) -> FittingBatches:
        return FittingBatches(lambda part: self.with_gradients(part.float() / 127.5 - 1), BATCH)

    @property
    def fingerprint(self) -> str:
        """That of LPIPS's weights."""
        return self.distance.fingerprint

    def __call__(self, images: Tensor, /) -> Tensor:
        import torch

        with torch.no_grad():
            return self.batches(images)

    def with_gradients(self, images: Tensor) -> Tensor:
        """LPIPS's features, with gradients, of float images (N, 1 or 3, H, W) in [-1, 1]: not rounded."""
        return weighted(self.distance, images)


def weighted(distance: Distance, images: Tensor) -> Tensor:
    """The features (N, dim) of images whose squared distances are LPIPS."""
    import torch

    with full_precision(distance.device):
        return torch.cat(
            [
                (unit * (head / unit[0, 0].numel()).sqrt()).flatten(1)
                for head, unit in distance.units(images.to(distance.device))
            ],
            1,
        )


@frozen
class LPIPS:
    """Features whose squared distance is LPIPS, for `ganlab project`. Too many for FID: for KID, `cmmd` and the like.

    weights: a file of the network's weights, torchvision's AlexNet, VGG-16 or SqueezeNet 1.1: .safetensors, or a .pth
        that contains only tensors.
    network: whose features are compared: "alex", "vgg" or "squeeze".
    linear: a file of the weights of channels, such as alex.pth of the package lpips; by default that of torchmetrics
        (`pip install 'ganlab[lpips]'`).
    enlarge: images are first made so many times as large, bilinearly: images of less than 31 pixels are too small for
        "alex".
    """

    weights: str = location()
    network: NetworkName = "alex"
    linear: str | None = location(default=None)
    enlarge: int = field(default=1, validator=[validators.ge(1), validators.le(64)])

    def build(self, evaluation: Evaluation) -> LPIPSFeatures:
        """Loads LPIPS's network for images of the data set's size."""
        import torch

        shape = evaluation.dataset("train").images.shape[1:]
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ComponentError(f"lpips compares images of 1 or 3 channels, got {tuple(shape)}")
        files = LPIPSFiles(self.weights, self.network, self.linear, self.enlarge)
        distance = files.loaded((shape[1], shape[2]), evaluation.device)
        if any(bool((head < 0).any()) for head in distance.heads.values()):
            raise ComponentError("lpips: weights of channels below 0, of which no features have the distances")
        with torch.no_grad():
            dim = weighted(distance, torch.zeros(1, *shape)).shape[1]
        enlarged = f", {self.enlarge} times as large" if self.enlarge > 1 else ""
        return LPIPSFeatures(distance, f"lpips-{self.network}", dim, f"uint8{enlarged}, as LPIPS 0.1")


@hookimpl
def register_features(register: Register[FeaturesConfig]) -> None:
    register("lpips", LPIPS)
