"""Fully connected (MLP) generator and discriminator, as in the first GAN (Goodfellow et al. 2014, arXiv:1406.2661).

Both support images of any size, signals and rows of a table. Hidden layers are linear with a leaky ReLU; the generator
ends in tanh, or for float32 data in a linear layer, the discriminator in one logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le, lt, min_len
from torch import Tensor, nn

from ganlab import (
    ClassHead,
    Condition,
    HeadName,
    ImageSpec,
    Judged,
    NetworkConfig,
    Register,
    check_tanh,
    hookimpl,
    norm_layer,
    spectrally_normed,
)

Norm = Literal["none", "batch", "layer"]


class _MLPGenerator(nn.Module):
    def __init__(self, config: MLPGenerator, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.shape = images.shape
        linear = images.dtype == "float32" if config.output is None else config.output == "linear"
        if not linear:
            check_tanh(images, 'mlp with output = "tanh"')
        self.layers = nn.Sequential(
            *_hidden_layers([config.latent_dim, *config.hidden], config.slope, config.norm, dropout=0.0),
            nn.Linear(config.hidden[-1], images.size),
            nn.Identity() if linear else nn.Tanh(),
        )

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        images: Tensor = self.layers(z).unflatten(1, self.shape)
        return images


class _MLPDiscriminator(nn.Module):
    def __init__(self, config: MLPDiscriminator, images: ImageSpec) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_hidden_layers([images.size, *config.hidden], config.slope, config.norm, config.dropout),
            nn.Linear(config.hidden[-1], 1),
        )
        self.head = ClassHead(config.head, config.hidden[-1], images)
        self.batch_independent = config.norm != "batch" and config.head != "class_logits"

    def forward(self, images: Tensor, condition: Condition = None) -> Tensor | Judged:
        features = self.layers[:-1](images.flatten(1))
        judged: Tensor | Judged = self.head(features, self.layers[-1](features).squeeze(1), condition)
        return judged


def _hidden_layers(widths: Sequence[int], slope: float, normed: Norm, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(nn.Linear(inputs, outputs))
        if normed != "none":
            layers.append(norm_layer(normed, outputs, 0))
        layers.append(nn.LeakyReLU(slope, inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
    return layers


_widths: Any = [min_len(1), deep_iterable(and_(ge(1), le(2**20)))]


@frozen
class MLPGenerator:
    """A fully connected generator.

    latent_dim: size of the latent.
    hidden: widths of the hidden layers, first to last.
    slope: the leaky ReLU's slope below zero.
    norm: of each hidden layer.
    output: "tanh" makes values in [-1, 1], "linear" any values; left out it is tanh for uint8 and uint16 data, which
        networks see in [-1, 1], and linear for float32 data, which they see as they are.
    """

    latent_dim: int = field(default=100, validator=[ge(1), le(2**20)])
    hidden: tuple[int, ...] = field(default=(256, 512, 1024), validator=_widths)
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    norm: Norm = "none"
    output: Literal["tanh", "linear"] | None = None

    def build(self, images: ImageSpec) -> nn.Module:
        return _MLPGenerator(self, images)


@frozen
class MLPDiscriminator:
    """A fully connected discriminator.

    hidden: widths of the hidden layers, first to last.
    slope: the leaky ReLU's slope below zero.
    dropout: dropout probability of the hidden layers.
    norm: of each hidden layer.
    spectral_norm: divide each weight by an estimate of its spectral norm (SNGAN).
    head: how class labels are used: "plain" not at all; "projection" adds an inner product with a class embedding to
        the logit; "class_logits" adds class logits, for AC-GAN.
    """

    hidden: tuple[int, ...] = field(default=(1024, 512, 256), validator=_widths)
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    norm: Norm = "none"
    spectral_norm: bool = False
    head: HeadName = "plain"

    def build(self, images: ImageSpec) -> nn.Module:
        network = _MLPDiscriminator(self, images)
        return spectrally_normed(network) if self.spectral_norm else network


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("mlp", MLPGenerator)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("mlp", MLPDiscriminator)
