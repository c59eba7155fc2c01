"""Layers for generators and discriminators of plugins: norms, spectral norm, minibatch deviation, self-attention.

Decisions:
- A layer that needs the condition is an `nn.Module` with `takes_condition = True`; `Layers` passes the condition to it.
  All others are ordinary torch layers.
- Initial weights are drawn in `__init__` from torch's default generator, as torch's layers do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ganlab.protocols import ImageSpec
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import ComponentError

NormName = Literal["batch", "layer", "instance", "none"]
ConditionalNormName = Literal["batch", "conditional_batch", "layer", "instance", "none"]


class Layers(nn.Sequential):
    """`nn.Sequential` whose layers may take the condition (`takes_condition`)."""

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        for layer in self:
            x = layer(x, condition) if getattr(layer, "takes_condition", False) else layer(x)
        return x


def classes_of(images: ImageSpec | None, what: str) -> int:
    """Returns the class count for a layer; raises ComponentError that `what` needs labels where there are none.

    It does so too where class labels are one of several conditions: a layer is given a condition that is labels alone.
    """
    if images is None or images.classes is None:
        has = "none"
        if images is not None and images.conditions:
            has = f"several conditions: {', '.join(images.conditions)}"
        elif images is not None and images.condition_shape is not None:
            has = f"conditions that are {images.condition_dtype} (N, {', '.join(map(str, images.condition_shape))})"
        raise ComponentError(f"{what} needs class labels, and the data set has {has}")
    return images.classes


def wanted_labels(condition: Condition, what: str) -> Tensor:
    """Returns the class labels that a layer was called with; raises ComponentError that `what` needs them otherwise."""
    if condition is None:
        raise ComponentError(f"{what} needs class labels, a tensor of shape (N,); the network was called without")
    if isinstance(condition, Mapping) or condition.ndim != 1:
        given = (
            "several conditions" if isinstance(condition, Mapping) else f"{condition.dtype} {tuple(condition.shape)}"
        )
        raise ComponentError(f"{what} needs class labels, a tensor of shape (N,); the network was called with {given}")
    return condition


def check_tanh(images: ImageSpec, what: str) -> None:
    """Raises ComponentError for a last layer of tanh, of the generator `what`, where the data are not in [-1, 1]."""
    low, high = images.range or (-1.0, 1.0)
    if not -1 <= low <= high <= 1:
        raise ComponentError(
            f"{what} makes values in [-1, 1], and the data set's are from {low:.4g} to {high:.4g}; scale these, or "
            "take a network whose last layer is linear"
        )


def norm_layer(name: ConditionalNormName, channels: int, dimensions: int, images: ImageSpec | None = None) -> nn.Module:
    """Returns a normalisation layer with gain and bias, for maps (N, C, H, W) (`dimensions` 2) or rows (N, C) (0).

    "layer" normalises over all channels and positions of an image, "instance" over the positions of each channel.
    "conditional_batch" is for maps and takes the condition; `images` has the number of classes.
    """
    if name == "conditional_batch":
        return ConditionalBatchNorm2d(channels, classes_of(images, f'norm = "{name}"'))
    if name == "none":
        return nn.Identity()
    if name == "layer":
        return nn.GroupNorm(1, channels) if dimensions else nn.LayerNorm(channels)
    if name == "batch":
        return nn.BatchNorm2d(channels) if dimensions else nn.BatchNorm1d(channels)
    if not dimensions:
        raise ComponentError("norm: an instance norm is over the places of a map, and a row has none")
    return nn.InstanceNorm2d(channels, affine=True)


class ConditionalBatchNorm2d(nn.Module):
    """A batch norm layer with gain and bias per class (de Vries et al. 2017, arXiv:1707.00683), 1 and 0 at first.

    Dumoulin et al. 2017 (arXiv:1610.07629) have the same for instance norm.
    """

    takes_condition = True

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding.from_pretrained(torch.ones(classes, channels), freeze=False)
        self.bias = nn.Embedding.from_pretrained(torch.zeros(classes, channels), freeze=False)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        condition = wanted_labels(condition, 'norm = "conditional_batch"')
        gain, bias = self.gain(condition)[:, :, None, None], self.bias(condition)[:, :, None, None]
        result: Tensor = gain * self.norm(x) + bias
        return result


def spectrally_normed(network: nn.Module) -> nn.Module:
    """Applies spectral norm to a network: divides the weight of each linear, convolutional and embedding layer by an
    estimate of its spectral norm (Miyato et al. 2018, arXiv:1802.05957), refined by each pass in training mode."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)
    for module in [module for module in network.modules() if isinstance(module, kinds)]:
        parametrizations.spectral_norm(module)
    return network


class MinibatchStdDev(nn.Module):
    """A layer for minibatch deviation: adds a map of how much images differ (Karras et al. 2018, arXiv:1710.10196).

    Maps (N, C, H, W) become (N, C + 1, H, W). A group has `group` images, or the largest smaller number that divides N.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        count = len(x)
        group = next(size for size in range(min(self.group, count), 0, -1) if count % size == 0)
        members = x.float().unflatten(0, (group, count // group))
        deviation = (members.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        maps = deviation.repeat(group)[:, None, None, None].expand(count, 1, *x.shape[2:])
        return torch.cat([x, maps.to(x.dtype)], 1)


class SelfAttention2d(nn.Module):
    """A self-attention layer over a map's positions (SAGAN; Zhang et al. 2019, arXiv:1805.08318); gain 0 at first.

    Keys and values are pooled to half the side; queries and keys have an eighth of the channels, values half of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, half = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = nn.Conv2d(channels, inner, 1, bias=False), nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.max_pool2d
        query = self.query(x).flatten(2)
        key, value = (pooled(part(x), 2).flatten(2) for part in (self.key, self.value))
        # Not torch's attention, which has no second derivative on CUDA; gradient penalties need it.
        weights = (query.transpose(1, 2) @ key).softmax(2)
        attended: Tensor = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        total: Tensor = x + self.gain * self.out(attended)
        return total


def check_attention(sides: Iterable[int], there: Sequence[int]) -> None:
    """Raises ComponentError for self-attention layers (`attention`) at a side that no maps of the network have."""
    if unknown := [side for side in sides if side not in there]:
        raise ComponentError(f"attention: there are no maps of side {unknown[0]}; there are: {list(there)}")
