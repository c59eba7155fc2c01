"""The protocols of a generator, a discriminator and of their configurations: what a network is called with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ganlab.protocols.image_spec import ImageSpec
from ganlab.utils.errors import ComponentError, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn


class Generator(Protocol):
    """A network's protocol, a generator: an `nn.Module` from latents (N, latent_dim) to images (N, C, H, W) in [-1, 1].

    Where the data are signals or rows of a table it makes these, and where they are float32 it makes their own values.

    `condition` is None, class labels (N,), images (N, C, H, W) in [-1, 1], attributes (N, K, …) as the data set has
    them, or a mapping of several such tensors by name.
    """

    latent_dim: int

    def __call__(self, z: Tensor, condition: Any, /) -> Tensor: ...


class Discriminator(Protocol):
    """A network's protocol, a discriminator: an `nn.Module` from images in [-1, 1], shape (N, C, H, W), to logits.

    Where the data are signals or rows of a table it is given these, and float32 data as they are.

    It returns logits, where larger means more real: of shape (N,), or (N, …) such as maps for the patches of images; an
    object that has them as `logits`; or a list of these, as of several discriminators. It never applies a sigmoid: the
    loss owns it.

    Optional attribute `batch_independent: bool`: True declares that in training mode each image's output depends on
    that image (and its condition) alone, and that the output is a tensor of bare logits. Real and fake images then
    pass the discriminator in one batch, which is faster. Absent means False, which is always safe: two passes. Batch
    norm and minibatch statistics are not batch-independent; layer, instance and spectral norm and dropout are.
    """

    def __call__(self, images: Tensor, condition: Any, /) -> Any: ...


@runtime_checkable
class NetworkConfig(Protocol):
    """A network's protocol, the configuration of a generator or discriminator: its options, and `build`.

    Optional method `initialise(network)`, as in `InitialisingNetworkConfig`: what is done once, where a run begins.
    """

    def build(self, images: ImageSpec, /) -> nn.Module:
        """A network's protocol: returns it for images of this shape; `ComponentError` for an unsupported shape."""
        ...


class InitialisingNetworkConfig(NetworkConfig, Protocol):
    """A network's protocol, its configuration, where it initialises the networks of a new run: optional."""

    def initialise(self, network: nn.Module, /) -> None:
        """A network's protocol: changes weights and buffers of a network that was built, in place, without gradients.

        It is called once, where a run begins, after all networks were built; not where a checkpoint is loaded into the
        network. So `build` reads no file that may be gone later. Raises `ComponentError` for what cannot be read.
        """
        ...


def latent_dim_of(generator: nn.Module) -> int:
    """A network's protocol: its `latent_dim`; raises `ComponentError` if it has none that is a whole number."""
    latent_dim: object = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int):
        raise ComponentError(f"{type(generator).__name__} has no whole number 'latent_dim'")
    return latent_dim


def batch_independent(discriminator: nn.Module) -> bool:
    """A network's protocol: its `batch_independent`, False where absent; `ComponentError` if it is not a bool."""
    declared = getattr(discriminator, "batch_independent", False)
    if not isinstance(declared, bool):
        raise ComponentError(f"batch_independent is {one_line(repr(declared), 60)}; expected True or False")
    return declared
