"""Projected GAN: discriminators of mixed features of a frozen network (Sauer et al. 2021, arXiv:2111.01007)."""

from collections.abc import Callable

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

import ganlab


class VGG(nn.Module):
    """The first stages of VGG-19, under the names of torchvision's; it returns the features of each stage."""

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.widths = [64, 128, 256, 512][:stages]
        self.ends: list[int] = []
        for given, width, convolutions in zip([3, *self.widths], self.widths, (2, 2, 4, 4), strict=False):
            for index in range(convolutions):
                self.features += nn.Sequential(nn.Conv2d(width if index else given, width, 3, 1, 1), nn.ReLU())
            self.ends.append(len(self.features))
            self.features += nn.Sequential(nn.MaxPool2d(2))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, C, h, w) of images in [-1, 1], the finest first; grey images are given three channels."""
        x, found = ((images + 1) / 2 - self.mean) / self.deviation, []
        for index, layer in enumerate(self.features[: self.ends[-1]], 1):
            x = layer(x)
            if index in self.ends:
                found.append(x)
        return found


class Projection(nn.Module):
    """Features mixed over channels and then over scales, from coarse to fine, by random convolutions (section 3.2)."""

    def __init__(self, stages: int, width: int) -> None:
        super().__init__()
        self.network = VGG(stages)
        self.channels = nn.ModuleList(nn.Conv2d(given, width, 1) for given in self.network.widths)
        self.scales = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in self.network.widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for features, channels, scale in zip(
            reversed(self.network(images)), reversed(self.channels), reversed(self.scales), strict=True
        ):
            mixed = channels(features)
            if found:
                mixed = mixed + nn.functional.interpolate(found[-1], mixed.shape[2:])
            found.append(scale(mixed))
        return found


class Head(nn.Module):
    """A discriminator of features: a map of logits (N, 1, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1))
        self.layers = ganlab.spectrally_normed(layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@frozen
class ProjectedGAN:
    """A GAN whose discriminators are given the projected features of a frozen network, each those of one scale.

    generator: the network that generates images.
    loss: the adversarial loss of each discriminator; the losses are added.
    stages: how many stages of VGG-19 are used, each with half the size of the one before, and as many discriminators.
    width: channels of the projected features.
    features: a file with the weights of torchvision's VGG-19; without one they are random.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    loss: ganlab.Loss = ganlab.component("loss", default="hinge")
    stages: int = field(default=4, validator=[ge(1), le(4)])
    width: int = field(default=64, validator=ge(1))
    features: str = ganlab.location(default="")

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(f"discriminator_{number}" for number in range(self.stages))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        head = ganlab.Network(lambda: Head(self.width))
        projection = ganlab.Network(lambda: Projection(self.stages, self.width), frozen=True, initialise=self.pretrain)
        return ganlab.Rules(
            networks={"generator": self.generator, "projection": projection, **dict.fromkeys(self.heads, head)},
            moves=[
                ganlab.Move("discriminators", players=self.heads, terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.fool),
            ],
            sampler=ganlab.sampler_of("generator"),
        )

    def pretrain(self, projection: nn.Module) -> None:
        if self.features:
            ganlab.load_weights(projection.network, self.features, partly=True)

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def play(self, turn: ganlab.Turn, fake: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        scales = [turn.forward("projection", turn.augment(images)) for images in (turn.real, fake)]
        terms = {}
        for name, *features in zip(self.heads, *scales, strict=True):
            terms[name] = loss(*(turn.gather(turn.forward(name, part).float()) for part in features))
        return terms

    def judge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.fake(turn)
        return self.play(turn, fake, self.loss.discriminator)

    def fool(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        return self.play(turn, self.fake(turn), self.loss.generator)


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("projected_gan", ProjectedGAN)
