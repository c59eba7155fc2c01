"""Class-conditional wrappers of any generator or discriminator: cGAN (Mirza and Osindero 2014, arXiv:1411.1784).

The wrapped network has a larger input: the generator's latent is concatenated with a class embedding, the
discriminator's image with one more channel, which is a class embedding too.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import (
    ComponentError,
    ImageSpec,
    Judged,
    NetworkConfig,
    Register,
    classes_of,
    component,
    hookimpl,
    initialise_network,
)


class _Generator(nn.Module):
    def __init__(self, network: nn.Module, label_dim: int, classes: int) -> None:
        super().__init__()
        self.network = network
        inner: Any = network.latent_dim
        self.latent_dim: int = inner - label_dim
        self.classes = nn.Embedding(classes, label_dim)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        images: Tensor = self.network(torch.cat([z, self.classes(condition)], 1), condition)
        return images


class _Discriminator(nn.Module):
    def __init__(self, network: nn.Module, images: ImageSpec, classes: int) -> None:
        super().__init__()
        self.network = network
        self.shape = (1, images.height, images.width)
        self.classes = nn.Embedding(classes, images.height * images.width)
        self.batch_independent = bool(getattr(network, "batch_independent", False))

    def forward(self, images: Tensor, condition: Tensor) -> Tensor | Judged:
        maps = self.classes(condition).unflatten(1, self.shape).to(images.dtype)
        judged: Tensor | Judged = self.network(torch.cat([images, maps], 1), condition)
        return judged


@frozen
class ConditionalGenerator:
    """Conditional generator: concatenates the latent with a learned embedding of the class.

    network: the wrapped generator; its latent_dim is that of the latent alone.
    label_dim: size of the class embedding, which is initialised from N(0, 1) like the latent: the larger it is, the
        more influence the class has compared to the latent.
    """

    network: NetworkConfig = component("generator", default="mlp")
    label_dim: int = field(default=50, validator=[ge(1), le(2**20)])

    def build(self, images: ImageSpec) -> nn.Module:
        classes = classes_of(images, "a conditional generator")
        inner: Any = self.network
        if "latent_dim" not in attrs.fields_dict(type(inner)):
            raise ComponentError(f"network: {type(inner).__name__} has no option latent_dim to enlarge")
        wider: NetworkConfig = attrs.evolve(inner, latent_dim=inner.latent_dim + self.label_dim)
        return _Generator(wider.build(images), self.label_dim, classes)

    def initialise(self, network: nn.Module) -> None:
        initialise_network(self.network, network.get_submodule("network"))


@frozen
class ConditionalDiscriminator:
    """Conditional discriminator: concatenates the image with a learned embedding of the class as one more channel.

    network: the wrapped discriminator.
    """

    network: NetworkConfig = component("discriminator", default="mlp")

    def build(self, images: ImageSpec) -> nn.Module:
        classes = classes_of(images, "a conditional discriminator")
        return _Discriminator(self.network.build(attrs.evolve(images, channels=images.channels + 1)), images, classes)

    def initialise(self, network: nn.Module) -> None:
        initialise_network(self.network, network.get_submodule("network"))


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("conditional", ConditionalGenerator)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("conditional", ConditionalDiscriminator)
