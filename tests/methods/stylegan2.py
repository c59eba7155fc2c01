"""StyleGAN2: styles of a mapping network modulate each layer (Karras et al. 2020, arXiv:1912.04958), in miniature."""

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

import ganlab


class MappingNetwork(nn.Module):
    """From latents z (N, dim) to styles w (N, dim); `mean` is the running mean of w, to which truncation draws."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.2), nn.Linear(dim, dim), nn.LeakyReLU(0.2))
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class ModulatedConvolution(nn.Module):
    """A convolution whose weights are scaled by a style for each image, and normalised."""

    def __init__(self, given: int, made: int, size: int, dim: int, normalised: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(made, given, size, size))
        self.gain = (given * size**2) ** -0.5
        self.bias = nn.Parameter(torch.zeros(made))
        self.style = nn.Linear(dim, given)
        self.normalised = normalised

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.style(w) + 1
        x = nn.functional.conv2d(x * style[:, :, None, None], self.weight * self.gain, padding="same")
        if self.normalised:  # as in the paper: the weights of each image are divided by their norm
            norms = ((self.weight * self.gain).square().sum((2, 3)) @ style.square().T).T
            x = x * (norms + 1e-8).rsqrt()[:, :, None, None]
        return x + self.bias[:, None, None]


class Synthesis(nn.Module):
    """From a style for each layer (N, layers, dim) to images."""

    def __init__(self, images: ganlab.ImageSpec, layers: int, dim: int, width: int) -> None:
        super().__init__()
        self.size = (images.height, images.width)
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.layers = nn.ModuleList([ModulatedConvolution(width, width, 3, dim) for _ in range(layers)])
        self.to_images = ModulatedConvolution(width, images.channels, 1, dim, normalised=False)

    def forward(self, w: Tensor) -> Tensor:
        x = self.constant.expand(len(w), -1, -1, -1)
        for index, layer in enumerate(self.layers):
            if index == len(self.layers) // 2:
                x = nn.functional.interpolate(x, self.size)
            x = nn.functional.leaky_relu(layer(x, w[:, index]), 0.2)
        return torch.tanh(self.to_images(x, w[:, -1]))


@frozen
class StyleGAN2:
    """A GAN with a mapping network, style mixing, and truncation of styles: `--truncation 0.7` is the paper's psi.

    discriminator: the network that tells real from generated images; the penalty `r1` is for it.
    loss: the adversarial loss.
    mixing: how often an image is made of the styles of two latents, exchanged at a random layer.
    mean_decay: the decay of the running mean of styles, each time that images are generated.
    dim: size of latents and styles.
    layers: convolutions of the synthesis network.
    width: its channels.
    """

    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    mixing: float = field(default=0.9, validator=[ge(0), le(1)])
    mean_decay: float = field(default=0.995, validator=[ge(0), le(1)])
    dim: int = field(default=64, validator=ge(1))
    layers: int = field(default=4, validator=ge(2))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "mapping": ganlab.Network(lambda: MappingNetwork(self.dim)),
                "synthesis": ganlab.Network(lambda: Synthesis(data.images, self.layers, self.dim, self.width)),
                "discriminator": self.discriminator,
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("mapping", "synthesis"), terms=self.generate),
            ],
            sampler=ganlab.Sampler(
                networks=("mapping", "synthesis"),
                images=lambda networks, w, condition: networks["synthesis"](self.to_layers(w)),
                latents=self.styles,
            ),
        )

    def to_layers(self, w: Tensor) -> Tensor:
        return w[:, None].expand(-1, self.layers, -1)

    def styles(
        self, networks: Mapping[str, nn.Module], count: int, random: torch.Generator, truncation: float | None
    ) -> Tensor:
        """Styles (count, dim) of samples; truncation multiplies their distance from the mean style."""
        mapping, z = networks["mapping"], torch.randn(count, self.dim, generator=random)
        w = mapping(z.to(mapping.mean.device))
        return (w if truncation is None else mapping.mean.lerp(w, truncation)).cpu()

    def fake(self, turn: ganlab.Turn) -> Tensor:
        w, other = (turn.forward("mapping", turn.normal(self.dim)).float() for _ in range(2))
        mapping = turn.networks["mapping"]
        mapping.mean.lerp_(turn.mean_of_all(w.mean(0)), 1 - self.mean_decay)
        mixed, where = turn.draw(lambda n, r: torch.rand(n, 2, device=w.device, generator=r)).split(1, 1)
        first = 1 + where * (self.layers - 1)  # the first layer of the other latent's styles, from the second layer on
        exchanged = (mixed < self.mixing) & (torch.arange(self.layers, device=w.device) >= first.floor())
        styles = torch.where(exchanged[:, :, None], self.to_layers(other), self.to_layers(w))
        return turn.forward("synthesis", styles).float()

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        output = turn.forward("discriminator", turn.augment(images), turn.condition)
        return turn.gather(ganlab.logits_per_image(output).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = self.fake(turn)
        real_logits, fake_logits = self.logits(turn, turn.real), self.logits(turn, fake)
        turn.observe(real_logits)
        turn.show("discriminator", fake=fake, real_logits=real_logits, fake_logits=fake_logits)
        return self.loss.discriminator(real_logits, fake_logits)

    def generate(self, turn: ganlab.Turn) -> Tensor:
        fake = self.fake(turn)
        return self.loss.generator(self.logits(turn, turn.real), self.logits(turn, fake))


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("stylegan2", StyleGAN2)
