"""VGG, a discriminator of plain convolutions, mostly for its features (Simonyan and Zisserman 2014, arXiv:1409.1556).

As the network `[content]` of pix2pix it compares images by what its last layer makes of them: the content loss of SRGAN
(Ledig et al. 2017, arXiv:1609.04802, equation 5).

Decisions:
- The layers have the names that torchvision's VGG-19 has, whose weights file is read as it is.
- The input is normalised as for ImageNet. Grey images stand for those with equal channels.
- Without a file the weights are random, drawn as He et al. 2015 (arXiv:1502.01852) do, which keeps the scale of the
  features in all depths. Liu et al. 2021 (arXiv:2103.10571) compare images by such networks.
- Logits are a linear layer on the features, averaged over positions. A file of torchvision has no weights for it.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import ComponentError, Condition, ImageSpec, NetworkConfig, Register, hookimpl, load_weights, location

WIDTHS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
"""The channels of VGG-19's convolutions."""

POOLED = (2, 4, 8, 12)
"""The convolutions before which the sides are halved."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in [0, 1]."""


class _VGG(nn.Module):
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: VGG, images: ImageSpec) -> None:
        super().__init__()
        if not images.is_image or images.dtype == "float32" or images.channels not in (1, 3):
            raise ComponentError(f"vgg judges images in [-1, 1] with 1 or 3 channels; here they are {images.in_words}")
        times = 2 ** sum(number < config.layers for number in POOLED)
        if min(images.height, images.width) < times:
            raise ComponentError(
                f"vgg needs images of at least {times}x{times} pixels with layers = {config.layers}; here they are "
                f"{images.height}x{images.width}"
            )
        self.features = nn.Sequential()
        before = 3
        for number, width in enumerate(max(1, width * config.channels // 64) for width in WIDTHS[: config.layers]):
            if number in POOLED:
                self.features.append(nn.MaxPool2d(2))
            convolution = nn.Conv2d(before, width, 3, 1, 1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            self.features.extend([convolution, nn.ReLU()])
            before = width
        self.logit = nn.Linear(before, 1)
        self.feature_shape = (before, images.height // times, images.width // times)
        self.batch_independent = True
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor, condition: Condition = None, with_features: bool = False) -> Any:
        features = self.features(((images + 1) / 2 - self.mean) / self.deviation)
        logits = self.logit(features.mean((2, 3))).squeeze(1)
        return (logits, features) if with_features else logits


@frozen
class VGG:
    """VGG-19 up to one of its convolutions; its features are the maps of this one, after its ReLU.

    layers: how many of the 16 convolutions there are. SRGAN's VGG22 has 4, its VGG54 all.
    channels: feature maps of the first convolution; the others are wider in the published proportions.
    weights: a file of torchvision's VGG-19, .safetensors or a .pth that contains only tensors, for 64 channels; by
        default they are random.
    """

    layers: int = field(default=16, validator=[ge(1), le(16)])
    channels: int = field(default=64, validator=[ge(1), le(2**10)])
    weights: str | None = location(default=None)

    def build(self, images: ImageSpec) -> nn.Module:
        return _VGG(self, images)

    def initialise(self, network: nn.Module) -> None:
        if self.weights is not None:
            convolutions = nn.ModuleDict({"features": network.get_submodule("features")})
            try:
                load_weights(convolutions, self.weights, partly=True)
            except ComponentError as error:
                kind = "" if self.channels == 64 else f", which have 64 channels and not {self.channels}"
                raise ComponentError(f"weights: {error}; expected torchvision's weights of VGG-19{kind}") from error


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("vgg", VGG)
