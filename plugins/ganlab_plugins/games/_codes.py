"""What games with codes share: encoders, what a discriminator says of images and its features, reconstructions.

Decisions:
- These games see no labels: their networks are built for data without conditions.
- An encoder is a generator of codes: its condition is images and what it makes are rows, (N, latent_dim) float32. Noise
  that it takes makes it random in training; reconstructions are made without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganlab import (
    ComponentError,
    Condition,
    ImageSpec,
    Network,
    NetworkConfig,
    Sampler,
    Turn,
    initialise_network,
    latent_dim_of,
    logits_per_image,
)


def without_conditions(images: ImageSpec) -> ImageSpec:
    """What a network of a game with codes is built for: the data, without labels or other conditions."""
    return ImageSpec.of(images.shape, images.dtype, range=images.range)


def network_of(config: NetworkConfig, spec: Callable[[int], ImageSpec]) -> Network:
    """A network of a game with codes that is built for what `spec` returns for the size of the generator's latents."""
    return Network(
        lambda generator: config.build(spec(latent_dim_of(generator))),
        given=("generator",),
        initialise=lambda network: initialise_network(config, network),
    )


def encoder_of(config: NetworkConfig, images: ImageSpec, values: int = 1) -> Network:
    """An encoder of a game with codes: from images to rows, of so many values for each of a latent."""
    return network_of(
        config,
        lambda latent_dim: ImageSpec.of(
            (values * latent_dim,), "float32", condition_shape=images.shape, condition_dtype=images.dtype
        ),
    )


def with_features(config: NetworkConfig, images: ImageSpec, frozen: bool = False) -> Network:
    """A discriminator of a game that shows features too, trained or `frozen`; `ComponentError` for one without them."""

    def build() -> nn.Module:
        network = config.build(images)
        feature_shape(network)
        return network

    return Network(build, frozen=frozen, initialise=lambda network: initialise_network(config, network))


def encoded(turn: Turn, images: Tensor) -> Tensor:
    """Codes, float32 rows, of images by the network "encoder" of a game with codes."""
    z = turn.normal(latent_dim_of(turn.networks["encoder"]))
    return _rows(turn.forward("encoder", z, images)).float()


def code_of(networks: Mapping[str, nn.Module], images: Tensor) -> Tensor:
    """Codes of images by the network "encoder" of a game with codes, without noise."""
    return _rows(networks["encoder"](images.new_zeros(len(images), latent_dim_of(networks["encoder"])), images))


def decoded(networks: Mapping[str, nn.Module], images: Tensor) -> Tensor:
    """What the generator of a game with codes makes of the codes of images: their reconstructions."""
    made: Tensor = networks["generator"](code_of(networks, images), None)
    return made


def _rows(codes: Any) -> Tensor:
    if not isinstance(codes, Tensor) or codes.ndim != 2:
        got = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
        raise ComponentError(f"encoder: returns {got}; expected rows of codes, (N, size)")
    return codes


Reconstructed = Callable[[Mapping[str, nn.Module], Tensor], Tensor]


def reconstruction_sampler(reconstructed: Reconstructed) -> Sampler:
    """The sampler of reconstructions of a game with codes: images of `[dataset]` beside what is made of them."""
    return Sampler(
        networks=("encoder", "generator"),
        images=lambda networks, z, images: reconstructed(networks, images),
        latents=lambda networks, count, generator, truncation: torch.zeros(count, 0),
        source="dataset",
    )


def reconstruction_output(reconstructed: Reconstructed) -> Callable[[Mapping[str, nn.Module], Tensor, Any], Tensor]:
    """The output "reconstruction" of a game with codes."""
    return lambda networks, images, condition: reconstructed(networks, images)


def judged(turn: Turn, images: Tensor, condition: Condition = None) -> Tensor:
    """Logits (N,) float32 of augmented images by "discriminator" of a game with codes, of all processes."""
    output = turn.forward("discriminator", turn.augment(images), condition)
    return turn.gather(logits_per_image(output).float())


def features_of_discriminator(turn: Turn, images: Tensor) -> Tensor:
    """Features (n, …) float32 of the discriminator of a game with codes, of this process, of images as they are."""
    features: Tensor = turn.forward("discriminator", images, None, True)[1]
    return features.float()


def judged_with_features(turn: Turn, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as `judged` of a game with codes, and features (n, …) float32 of the same pass, of this process."""
    output, features = turn.forward("discriminator", turn.augment(images), None, True)
    return turn.gather(logits_per_image(output).float()), features.float()


def feature_shape(discriminator: nn.Module) -> tuple[int, ...]:
    """The shape of one image's features, of a discriminator of a game with codes; `ComponentError` if it has none."""
    shape: Any = getattr(discriminator, "feature_shape", None)
    if shape is None:
        raise ComponentError(
            f"the discriminator, {type(discriminator).__name__}, shows no features of its last hidden layer "
            "(`feature_shape` and `with_features`); use 'mlp', 'dcgan' or 'vgg'"
        )
    return tuple(shape)


def log_probabilities(turn: Turn, real: Tensor, fake: Tensor) -> None:
    """Logs the discriminator's mean probabilities in a game with codes; gives augmentations the real logits."""
    turn.log("d_real", real.detach().sigmoid().mean())
    turn.log("d_fake", fake.detach().sigmoid().mean())
    turn.observe(real)
