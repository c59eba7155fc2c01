"""HiFi-GAN: from mel spectrograms to audio, against two families of discriminators (Kong et al. 2020, 2010.05646)."""

from collections.abc import Callable
from itertools import pairwise
from math import prod

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import weight_norm

import ganlab

Judged = list[tuple[Tensor, list[Tensor]]]
"""The logits (N, …) of each discriminator of a family, and its features in each layer."""


class Fusion(nn.Module):
    """Multi-receptive field fusion: the mean of residual blocks of several kernel sizes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(weight_norm(nn.Conv1d(width, width, size, dilation=d, padding="same")) for d in (1, 3, 5))
            for size in (3, 7, 11)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for block in self.blocks:
            y = x
            for layer in block:
                y = y + layer(leaky_relu(y, 0.1))
            found.append(y)
        return torch.stack(found).mean(0)


class Generator(nn.Module):
    """From spectrograms (N, mels, frames) to signals (N, 1, T); each rate is by how much a layer makes them longer."""

    def __init__(self, mels: int, rates: list[int], width: int) -> None:
        super().__init__()
        widths = [max(width // 2**index, 1) for index in range(len(rates) + 1)]
        self.first = weight_norm(nn.Conv1d(mels, width, 7, 1, 3))
        self.up = nn.ModuleList(
            weight_norm(nn.ConvTranspose1d(given, made, 2 * rate, rate, rate // 2))
            for (given, made), rate in zip(pairwise(widths), rates, strict=True)
        )
        self.fusions = nn.ModuleList(Fusion(made) for made in widths[1:])
        self.last = weight_norm(nn.Conv1d(widths[-1], 1, 7, 1, 3))

    def forward(self, spectrograms: Tensor) -> Tensor:
        x = self.first(spectrograms)
        for up, fusion in zip(self.up, self.fusions, strict=True):
            x = fusion(up(leaky_relu(x, 0.1)))
        return torch.tanh(self.last(leaky_relu(x)))


class Convolutions(nn.Module):
    """Convolutions over time, of signals or of signals folded by a period; returns logits and all features."""

    def __init__(self, width: int, period: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, width, 2 * width, 2 * width]
        sizes = {"kernel_size": (5, 1), "padding": (2, 0)}
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(given, made, stride=(stride, 1), **sizes))
            for (given, made), stride in zip(pairwise(widths), (3, 3, 1), strict=True)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, signals: Tensor) -> tuple[Tensor, list[Tensor]]:
        padded = nn.functional.pad(signals, (0, -signals.shape[2] % self.period), "reflect")
        x, features = padded.unflatten(2, (-1, self.period)), []
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.last(x).flatten(1), features


class Periods(nn.Module):
    """The multi-period discriminator: a discriminator of each period of a signal."""

    def __init__(self, periods: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(Convolutions(width, period) for period in periods)

    def forward(self, signals: Tensor) -> Judged:
        return [member(signals) for member in self.members]


class Scales(nn.Module):
    """The multi-scale discriminator: of a signal, of its means over two samples, over four, ..."""

    def __init__(self, scales: int, width: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(Convolutions(width, 1) for _ in range(scales))

    def forward(self, signals: Tensor) -> Judged:
        return [member(nn.functional.avg_pool1d(signals, 2**n)) for n, member in enumerate(self.members)]


class Mel(nn.Module):
    """Log mel spectrograms (N, mels, frames) of signals (N, 1, T)."""

    def __init__(self, mels: int, hop: int, rate: int) -> None:
        super().__init__()
        self.size, self.hop = 4 * hop, hop
        edges = torch.linspace(0, 2595 * torch.tensor(1 + rate / 1400).log10().item(), mels + 2)
        edges = 700 * (10 ** (edges / 2595) - 1)
        places = torch.linspace(0, rate / 2, self.size // 2 + 1)
        rise = (places - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        fall = (edges[2:, None] - places) / (edges[2:] - edges[1:-1])[:, None]
        self.register_buffer("filters", torch.minimum(rise, fall).clamp(min=0), persistent=False)
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)

    def forward(self, signals: Tensor) -> Tensor:
        spectra = torch.stft(signals[:, 0], self.size, self.hop, window=self.window, return_complex=True)
        squares = torch.view_as_real(spectra).square().sum(-1)
        return (self.filters @ (squares + 1e-9).sqrt()).clamp(min=1e-5).log()


@frozen
class HiFiGAN:
    """A vocoder: signals of `[dataset]` are made of its conditions, spectrograms (mels, frames) as attributes.

    loss: the adversarial loss, of each discriminator; all are added.
    features: the factor of the absolute error of the discriminators' features.
    mel: the factor of the absolute error of mel spectrograms.
    periods: those of the multi-period discriminator.
    scales: how many the multi-scale discriminator has.
    sample_rate: samples in a second.
    width: channels of the networks.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="least_squares")
    features: float = field(default=2.0, validator=ge(0))
    mel: float = field(default=45.0, validator=ge(0))
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = field(default=3, validator=ge(1))
    sample_rate: int = field(default=22050, validator=ge(1))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        shape, condition = data.images.shape, data.images.condition_shape or ()
        if len(shape) != 2 or len(condition) != 2 or shape[0] != 1 or shape[1] % condition[1]:
            raise ganlab.ComponentError("is of signals (1, T) with spectrograms (mels, T / hop) as conditions")
        ganlab.check_tanh(data.images, "hifi_gan")
        hop, rates = shape[1] // condition[1], list[int]()
        while (left := hop // prod(rates)) > 1:
            rates.append(next((rate for rate in (8, 4, 2) if left % rate == 0), left))
        if any(rate % 2 for rate in rates):
            raise ganlab.ComponentError(f"the hop of spectrograms is {hop}; wanted a power of 2")
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: Generator(condition[0], rates, self.width)),
                "periods": ganlab.Network(lambda: Periods(self.periods, self.width)),
                "scales": ganlab.Network(lambda: Scales(self.scales, self.width)),
                "mel": ganlab.Network(lambda: Mel(condition[0], hop, self.sample_rate), frozen=True),
            },
            moves=[
                ganlab.Move("discriminators", players=("periods", "scales"), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.speak),
            ],
            sampler=ganlab.translator_of("generator"),
        )

    def judged(self, turn: ganlab.Turn, signals: Tensor) -> Judged:
        """By all discriminators of both families."""
        return [*turn.forward("periods", signals), *turn.forward("scales", signals)]

    def adversarial(
        self, turn: ganlab.Turn, loss: Callable[[Tensor, Tensor], Tensor], real: Judged, fake: Judged
    ) -> Tensor:
        pairs = zip(real, fake, strict=True)
        return sum(loss(turn.gather(one[0].float()), turn.gather(other[0].float())) for one, other in pairs)

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = turn.forward("generator", turn.condition).float()
        real, made = self.judged(turn, turn.real), self.judged(turn, fake)
        return self.adversarial(turn, self.loss.discriminator, real, made)

    def speak(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        fake = turn.forward("generator", turn.condition).float()
        with torch.no_grad():
            real = self.judged(turn, turn.real)
        made = self.judged(turn, fake)
        pairs = [pair for one, other in zip(real, made, strict=True) for pair in zip(one[1], other[1], strict=True)]
        spectra = [turn.forward("mel", signals) for signals in (fake, turn.real)]
        return {
            "adversarial": self.adversarial(turn, self.loss.generator, real, made),
            "features": self.features * sum((one - other).abs().mean() for one, other in pairs),
            "mel": self.mel * (spectra[0] - spectra[1]).abs().mean(),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("hifi_gan", HiFiGAN)
