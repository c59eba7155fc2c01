"""InfoGAN: latent codes that a head of the discriminator recovers from images (Chen et al. 2016, arXiv:1606.03657)."""

from collections.abc import Callable, Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Generator(nn.Module):
    """A fully connected generator."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        shape = (images.channels, images.height, images.width)
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, pixels), nn.Tanh())
        self.to_images = nn.Unflatten(1, shape)

    def forward(self, z: Tensor) -> Tensor:
        return self.to_images(self.layers(z))


class Discriminator(nn.Module):
    """A fully connected discriminator that returns its logits (N,) and the features (N, width) that Q is a head of."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.1))
        self.head = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(images)
        return self.head(features).squeeze(1), features


@frozen
class InfoGAN:
    """A GAN with a categorical and several continuous codes; Q, a head of the discriminator, recovers them.

    loss: the adversarial loss.
    categories: values of the categorical code.
    continuous: how many continuous codes there are, each uniform in [-1, 1].
    noise: size of the noise, which is not recovered.
    categorical_weight, continuous_weight: the factors of the two parts of the bound on the mutual information.
    width: units of the networks' hidden layers.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    categories: int = field(default=10, validator=ge(2))
    continuous: int = field(default=2, validator=ge(0))
    noise: int = field(default=62, validator=ge(0))
    categorical_weight: float = field(default=1.0, validator=ge(0))
    continuous_weight: float = field(default=0.1, validator=ge(0))
    width: int = field(default=128, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        size = self.categories + self.continuous + self.noise
        recovered = self.categories + 2 * self.continuous
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: Generator(data.images, size, self.width)),
                "discriminator": ganlab.Network(lambda: Discriminator(data.images, self.width)),
                "head": ganlab.Network(lambda: nn.Linear(self.width, recovered)),
            },
            moves=[
                ganlab.Move(
                    "discriminator", ("discriminator", "head"), lambda turn: self.play(turn, self.loss.discriminator)
                ),
                ganlab.Move("generator", ("generator",), lambda turn: self.play(turn, self.loss.generator)),
            ],
            sampler=ganlab.Sampler(("generator",), lambda networks, z, _: networks["generator"](z), self.sample),
        )

    def coded(self, noise: Tensor, random: torch.Generator | None) -> Tensor:
        """Latents: the categorical code as one of `categories`, the continuous codes, the noise."""
        count, device = len(noise), noise.device
        category = torch.randint(self.categories, (count, 1), device=device, generator=random)
        one_hot = (category == torch.arange(self.categories, device=device)).float()
        continuous = 2 * torch.rand(count, self.continuous, device=device, generator=random) - 1
        return torch.cat([one_hot, continuous, noise], 1)

    def sample(
        self, networks: Mapping[str, nn.Module], count: int, random: torch.Generator, truncation: float | None
    ) -> Tensor:
        return self.coded(ganlab.latents(count, self.noise, random, truncation), random)

    def latents(self, turn: ganlab.Turn) -> Tensor:
        device = turn.real.device
        return turn.draw(lambda n, r: self.coded(torch.randn(n, self.noise, device=device, generator=r), r))

    def play(self, turn: ganlab.Turn, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """A player's loss, and the information that it maximises; the networks of the other player are frozen."""
        z = self.latents(turn)
        fake = turn.forward("generator", z).float()
        (real_logits, _), (logits, features) = (turn.forward("discriminator", images) for images in (turn.real, fake))
        adversarial = loss(turn.gather(real_logits.float()), turn.gather(logits.float()))
        return {"adversarial": adversarial, **self.information(turn, features, z)}

    def information(self, turn: ganlab.Turn, features: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The negative log likelihood of the codes under Q, whose continuous part is a normal distribution."""
        sizes = [self.categories, self.continuous, self.continuous]
        logits, mean, log_variance = turn.forward("head", features).float().split(sizes, 1)
        category, continuous, _ = z.split([self.categories, self.continuous, self.noise], 1)
        normal = 0.5 * (log_variance + (continuous - mean).square() / log_variance.exp())
        return {
            "categorical": -self.categorical_weight * (category * logits.log_softmax(1)).sum(1).mean(),
            "continuous": self.continuous_weight * normal.sum(1).mean(),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_infogan", InfoGAN)
