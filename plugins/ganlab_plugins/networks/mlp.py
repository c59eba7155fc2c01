"""Fully connected (MLP) generator and discriminator, like those of the first GAN (Goodfellow et al. 2014, 1406.2661).

Both support images of any size, signals and rows of a table. Hidden layers are linear with a leaky ReLU, where the
paper has maxout units in the discriminator, and ReLUs and sigmoids in the generator; the generator ends in tanh, or for
float32 data in a linear layer, the discriminator in one logit.

For games with codes there are two more, as in BiGAN (Donahue et al. 2017, arXiv:1605.09782, appendix C.1):

- `mlp_encoder` is a generator whose input is its condition, such as images; what it makes are rows, the codes.
- `mlp_joint` is a discriminator of images together with their condition, such as codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le, lt, min_len
from torch import Tensor, nn

from ganlab import (
    ClassHead,
    ComponentError,
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
        self.feature_shape = (config.hidden[-1],)
        self.batch_independent = config.norm != "batch" and config.head != "class_logits"

    def forward(self, images: Tensor, condition: Condition = None, with_features: bool = False) -> Any:
        features = self.layers[:-1](images.flatten(1))
        judged: Tensor | Judged = self.head(features, self.layers[-1](features).squeeze(1), condition)
        return (judged, features) if with_features else judged


def _condition_size(name: str, images: ImageSpec) -> int:
    """How many values an MLP is given as its condition; `ComponentError` for class labels, several and none."""
    if images.condition_shape is None:
        raise ComponentError(f"{name}: its input is images or attributes as conditions, and the data set has none")
    return math.prod(images.condition_shape)


def _given(name: str, condition: Condition) -> Tensor:
    """The condition of an MLP as rows (N, size)."""
    if not isinstance(condition, Tensor) or condition.ndim < 2:
        raise ComponentError(f"{name}: was called without images or attributes as conditions")
    return condition.flatten(1)


class _MLPEncoder(nn.Module):
    def __init__(self, config: MLPEncoder, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.shape = images.shape
        widths = [_condition_size("mlp_encoder", images) + config.latent_dim, *config.hidden]
        self.layers = nn.Sequential(
            *_hidden_layers(widths, config.slope, config.norm, dropout=0.0),
            nn.Linear(config.hidden[-1], images.size),
            nn.Identity() if images.dtype == "float32" else nn.Tanh(),
        )

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        given = _given("mlp_encoder", condition)
        made: Tensor = self.layers(torch.cat([given, z.to(given.dtype)], 1)).unflatten(1, self.shape)
        return made


class _MLPJoint(nn.Module):
    def __init__(self, config: MLPJoint, images: ImageSpec) -> None:
        super().__init__()
        widths = [images.size + _condition_size("mlp_joint", images), *config.hidden]
        self.layers = nn.Sequential(
            *_hidden_layers(widths, config.slope, config.norm, config.dropout), nn.Linear(config.hidden[-1], 1)
        )
        self.batch_independent = config.norm != "batch"

    def forward(self, images: Tensor, condition: Condition = None) -> Tensor:
        pairs = torch.cat([images.flatten(1), _given("mlp_joint", condition).to(images.dtype)], 1)
        logits: Tensor = self.layers(pairs).squeeze(1)
        return logits


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


@frozen
class MLPEncoder:
    """A fully connected encoder: makes codes, or other data, of conditions that are images or attributes.

    hidden: widths of the hidden layers, first to last.
    slope: the leaky ReLU's slope below zero.
    norm: of each hidden layer.
    latent_dim: size of a noise that is joined to the input, which makes the encoder random; 0 for none.
    """

    hidden: tuple[int, ...] = field(default=(1024, 512), validator=_widths)
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    norm: Norm = "none"
    latent_dim: int = field(default=0, validator=[ge(0), le(2**20)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _MLPEncoder(self, images)


@frozen
class MLPJoint:
    """A fully connected discriminator of pairs: an image and its condition, an image, attributes or a code.

    hidden: widths of the hidden layers, first to last.
    slope: the leaky ReLU's slope below zero.
    dropout: dropout probability of the hidden layers.
    norm: of each hidden layer.
    spectral_norm: divide each weight by an estimate of its spectral norm (SNGAN).
    """

    hidden: tuple[int, ...] = field(default=(1024, 512), validator=_widths)
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    norm: Norm = "none"
    spectral_norm: bool = False

    def build(self, images: ImageSpec) -> nn.Module:
        network = _MLPJoint(self, images)
        return spectrally_normed(network) if self.spectral_norm else network


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("mlp", MLPGenerator)
    register("mlp_encoder", MLPEncoder)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("mlp", MLPDiscriminator)
    register("mlp_joint", MLPJoint)
