"""Fully connected generator and discriminator: the networks of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661).

Both take images of any size. Hidden layers are linear with a leaky ReLU; the generator ends in tanh, the discriminator
in one logit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le, lt, min_len
from torch import Tensor, nn

from ganlab import ImageSpec, NetworkConfig, Register, hookimpl


class _MLPGenerator(nn.Module):
    def __init__(self, latent_dim: int, hidden: Sequence[int], slope: float, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.shape = (images.channels, images.height, images.width)
        self.layers = nn.Sequential(
            *_hidden_layers([latent_dim, *hidden], slope, dropout=0.0),
            nn.Linear(hidden[-1], math.prod(self.shape)),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        images: Tensor = self.layers(z).unflatten(1, self.shape)
        return images


class _MLPDiscriminator(nn.Module):
    def __init__(self, hidden: Sequence[int], slope: float, dropout: float, images: ImageSpec) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_hidden_layers([images.channels * images.height * images.width, *hidden], slope, dropout),
            nn.Linear(hidden[-1], 1),
        )

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        logits: Tensor = self.layers(images.flatten(1)).squeeze(1)
        return logits


def _hidden_layers(widths: Sequence[int], slope: float, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(slope, inplace=True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return layers


_widths: Any = [min_len(1), deep_iterable(and_(ge(1), le(2**20)))]


@frozen
class MLPGenerator:
    """A fully connected generator.

    latent_dim: numbers in a latent.
    hidden: widths of the hidden layers, first to last.
    slope: the leaky ReLU's slope below zero.
    """

    latent_dim: int = field(default=100, validator=[ge(1), le(2**20)])
    hidden: tuple[int, ...] = field(default=(256, 512, 1024), validator=_widths)
    slope: float = field(default=0.2, validator=[ge(0), le(100)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _MLPGenerator(self.latent_dim, self.hidden, self.slope, images)


@frozen
class MLPDiscriminator:
    """A fully connected discriminator.

    hidden: widths of the hidden layers, first to last.
    slope: the leaky ReLU's slope below zero.
    dropout: the share of hidden values that is dropped in training.
    """

    hidden: tuple[int, ...] = field(default=(1024, 512, 256), validator=_widths)
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _MLPDiscriminator(self.hidden, self.slope, self.dropout, images)


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("mlp", MLPGenerator)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("mlp", MLPDiscriminator)
