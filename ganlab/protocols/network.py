"""ganlab.protocols.network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor, nn


@frozen
class ImageSpec:
    """The shape of the images that a network makes or judges. `classes` is None for images without class labels."""

    channels: int
    height: int
    width: int
    classes: int | None = None


class Generator(Protocol):
    """An `nn.Module` that makes images in [-1, 1], shape (N, C, H, W), from latents of shape (N, latent_dim).

    `condition` is None, class labels (N,) or images (N, C, H, W).
    """

    latent_dim: int

    def __call__(self, z: Tensor, condition: Tensor | None, /) -> Tensor: ...


class Discriminator(Protocol):
    """An `nn.Module` that judges images in [-1, 1], shape (N, C, H, W).

    It returns logits of shape (N,), where more means more real, or an object that carries them as `logits`. It never
    applies a sigmoid: the loss owns it.
    """

    def __call__(self, images: Tensor, condition: Tensor | None, /) -> Any: ...


@runtime_checkable
class NetworkConfig(Protocol):
    """The options of a generator or a discriminator."""

    def build(self, images: ImageSpec, /) -> nn.Module:
        """Makes the network for images of this shape, or raises `ComponentError` where it cannot."""
        ...
