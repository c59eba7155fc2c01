"""WaveGAN: a generator and a discriminator of raw audio (Donahue et al. 2019, arXiv:1802.04208), for the game `gan`."""

from itertools import pairwise

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab

LENGTH = 16
"""The shortest signal within the networks, from which each layer makes one of four times its length."""


class Generator(nn.Module):
    """From latents (N, latent_dim) to signals (N, C, T), by transposed convolutions of 25 samples and stride 4."""

    def __init__(self, channels: int, layers: int, first: int, latent_dim: int, width: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        widths = [width * 2**power for power in reversed(range(layers))]
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, widths[0] * first), nn.Unflatten(1, (widths[0], first)), nn.ReLU()
        )
        for given, made in pairwise([*widths, channels]):
            self.layers += nn.Sequential(nn.ConvTranspose1d(given, made, 25, 4, 11, output_padding=1), nn.ReLU())
        self.layers[-1] = nn.Tanh()

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(z)


class PhaseShuffle(nn.Module):
    """In training shifts each signal by up to `most` samples; what is missing is reflected (section 3.3)."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.most:
            return x
        count, _, length = x.shape
        shift = torch.randint(-self.most, self.most + 1, (count, 1), device=x.device)
        places = (torch.arange(length, device=x.device) + shift).abs()
        places = length - 1 - (length - 1 - places).abs()
        return x.gather(2, places[:, None].expand_as(x))


class Discriminator(nn.Module):
    """From signals (N, C, T) to logits (N,), by convolutions of 25 samples and stride 4."""

    def __init__(self, channels: int, layers: int, first: int, width: int, shuffle: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**power for power in range(layers))]
        self.layers = nn.Sequential()
        for given, made in pairwise(widths):
            self.layers += nn.Sequential(nn.Conv1d(given, made, 25, 4, 11), nn.LeakyReLU(0.2), PhaseShuffle(shuffle))
        self.layers[-1] = nn.Flatten()
        self.layers.append(nn.Linear(widths[-1] * first, 1))
        self.batch_independent = True

    def forward(self, signals: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(signals).squeeze(1)


def layers_for(data: ganlab.ImageSpec) -> tuple[int, int, int]:
    """Channels of signals, how many layers make them, and the length that the first of these is given."""
    if len(data.shape) != 2 or data.shape[1] % (4 * LENGTH):
        raise ganlab.ComponentError(f"is of signals (C, T) whose length {4 * LENGTH} divides, not of {data.in_words}")
    channels, length = data.shape
    layers = 1
    while length % (4 ** (layers + 1) * LENGTH) == 0:
        layers += 1
    return channels, layers, length // 4**layers


@frozen
class WaveGANGenerator:
    """The generator of WaveGAN; its latents are normal, instead of uniform as in the paper.

    latent_dim: size of the latent.
    width: channels of the last hidden layer.
    """

    latent_dim: int = field(default=100, validator=ge(1))
    width: int = field(default=64, validator=ge(1))

    def build(self, data: ganlab.ImageSpec) -> nn.Module:
        channels, layers, first = layers_for(data)
        ganlab.check_tanh(data, "wavegan")
        return Generator(channels, layers, first, self.latent_dim, self.width)


@frozen
class WaveGANDiscriminator:
    """The discriminator of WaveGAN.

    width: channels of the first hidden layer.
    shuffle: by how many samples the phase of hidden layers is shifted at most; 0 for not at all.
    """

    width: int = field(default=64, validator=ge(1))
    shuffle: int = field(default=2, validator=ge(0))

    def build(self, data: ganlab.ImageSpec) -> nn.Module:
        return Discriminator(*layers_for(data), self.width, self.shuffle)


@ganlab.hookimpl
def register_generators(register: ganlab.Register[ganlab.NetworkConfig]) -> None:
    register("wavegan", WaveGANGenerator)


@ganlab.hookimpl
def register_discriminators(register: ganlab.Register[ganlab.NetworkConfig]) -> None:
    register("wavegan", WaveGANDiscriminator)
