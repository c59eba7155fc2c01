"""Feature matching: a generator matches a discriminator's mean features (Salimans et al. 2016, arXiv:1606.03498)."""

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Discriminator(nn.Module):
    """A convolutional discriminator that returns its logits (N,) and its inner features (N, width)."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(images.channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(images).mean((2, 3))
        return self.head(features).squeeze(1), features


@frozen
class FeatureMatching:
    """A GAN whose generator matches the mean of the discriminator's features of real images (section 3.1).

    generator: the network that generates images.
    loss: the discriminator's loss.
    weight: the factor of the squared distance of the two means.
    width: channels of the discriminator, which is the number of features.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    weight: float = field(default=1.0, validator=ge(0))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "generator": self.generator,
                "discriminator": ganlab.Network(lambda: Discriminator(data.images, self.width)),
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.match),
            ],
            sampler=ganlab.sampler_of("generator"),
        )

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = self.fake(turn)
        real_logits, fake_logits = (
            turn.gather(turn.forward("discriminator", turn.augment(images))[0].float()) for images in (turn.real, fake)
        )
        return self.loss.discriminator(real_logits, fake_logits)

    def match(self, turn: ganlab.Turn) -> Tensor:
        # A square of means is not a mean over images: it is computed of the features of all processes.
        real_mean, fake_mean = (
            turn.gather(turn.forward("discriminator", turn.augment(images))[1].float()).mean(0)
            for images in (turn.real, self.fake(turn))
        )
        return self.weight * (real_mean.detach() - fake_mean).square().sum()


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("feature_matching", FeatureMatching)
