"""StyleGAN2: styles of a mapping network modulate each layer (Karras et al. 2020, arXiv:1912.04958), in miniature."""

import math

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

import ganlab


class MappingNetwork(nn.Module):
    """From latents z (N, dim) to a style w for each layer; truncation draws it to `mean`, its running mean."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.2), nn.Linear(dim, dim), nn.LeakyReLU(0.2))
        self.register_buffer("mean", torch.zeros(dim))
        self.count = layers

    def forward(self, z: Tensor, truncation: float | None = None) -> Tensor:
        """Styles (N, layers, dim); truncation multiplies their distance from the mean style."""
        w = self.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        return (w if truncation is None else self.mean.lerp(w, truncation))[:, None].expand(-1, self.count, -1)

    def sampled(self, count: int, random: torch.Generator, truncation: float | None) -> Tensor:
        z = torch.randn(count, len(self.mean), generator=random)
        return self(z.to(self.mean.device), truncation).cpu()


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
    """From a style and noise for each layer, (N, layers, dim) and (N, layers, H, W), to images; samples share one."""

    def __init__(self, images: ganlab.ImageSpec, layers: int, dim: int, width: int) -> None:
        super().__init__()
        self.size = (images.height, images.width)
        self.register_buffer("noise", torch.randn(layers, max(4, images.height), max(4, images.width)))
        self.strength = nn.Parameter(torch.zeros(layers))
        self.register_buffer("mean_length", torch.zeros(()))
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.layers = nn.ModuleList([ModulatedConvolution(width, width, 3, dim) for _ in range(layers)])
        self.to_images = ModulatedConvolution(width, images.channels, 1, dim, normalised=False)

    def forward(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        noise = self.noise[None] if noise is None else noise
        x = self.constant.expand(len(w), -1, -1, -1)
        for index, layer in enumerate(self.layers):
            if index == len(self.layers) // 2:
                x = nn.functional.interpolate(x, self.size)
            x = layer(x, w[:, index]) + self.strength[index] * noise[:, index, None, : x.shape[2], : x.shape[3]]
            x = nn.functional.leaky_relu(x, 0.2)
        return torch.tanh(self.to_images(x, w[:, -1]))

    def lengths(self, w: Tensor, noise: Tensor, direction: Tensor) -> Tensor:
        """Path lengths (N,): norms of the gradient by the styles of images times a direction (N, C, H, W)."""
        projected = (self(w, noise) * direction).sum() / math.sqrt(math.prod(self.size))
        (gradient,) = torch.autograd.grad(projected, w, create_graph=True)
        return gradient.square().sum(2).mean(1).sqrt()


@frozen
class StyleGAN2:
    """A GAN with a mapping network, noise, style mixing, path length regularisation in w, and truncation in w.

    `--truncation 0.7` is the paper's psi.

    discriminator: the network that tells real from generated images; the penalty `r1` is for it.
    loss: the adversarial loss.
    mixing: how often an image is made of the styles of two latents, exchanged at a random layer.
    mean_decay: the decay of the running mean of styles, each time that images are generated.
    path_length: the factor of the squared distance of path lengths from their running mean, in every fourth step.
    dim: size of latents and styles.
    layers: convolutions of the synthesis network.
    width: its channels.
    """

    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    mixing: float = field(default=0.9, validator=[ge(0), le(1)])
    mean_decay: float = field(default=0.995, validator=[ge(0), le(1)])
    path_length: float = field(default=2.0, validator=ge(0))
    dim: int = field(default=64, validator=ge(1))
    layers: int = field(default=4, validator=ge(2))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "mapping": ganlab.Network(lambda: MappingNetwork(self.dim, self.layers)),
                "synthesis": ganlab.Network(lambda: Synthesis(data.images, self.layers, self.dim, self.width)),
                "discriminator": self.discriminator,
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("mapping", "synthesis"), terms=self.generate),
                ganlab.Move("path_length", players=("mapping", "synthesis"), terms=self.regularise, every=4),
            ],
            sampler=ganlab.Sampler(
                networks=("mapping", "synthesis"),
                images=lambda networks, w, condition: networks["synthesis"](w),
                latents=lambda networks, *how: networks["mapping"].sampled(*how),
                styles=True,
            ),
        )

    def drawn(self, turn: ganlab.Turn) -> tuple[Tensor, Tensor]:
        w, other = (turn.forward("mapping", turn.normal(self.dim)).float() for _ in range(2))
        turn.networks["mapping"].mean.lerp_(turn.mean_of_all(w[:, 0].mean(0)), 1 - self.mean_decay)
        mixed, where = turn.draw(lambda n, r: torch.rand(n, 2, device=w.device, generator=r)).split(1, 1)
        first = 1 + where * (self.layers - 1)  # the first layer of the other latent's styles, from the second layer on
        exchanged = (mixed < self.mixing) & (torch.arange(self.layers, device=w.device) >= first.floor())
        return torch.where(exchanged[:, :, None], other, w), turn.normal(*turn.networks["synthesis"].noise.shape)

    def fake(self, turn: ganlab.Turn) -> Tensor:
        return turn.forward("synthesis", *self.drawn(turn)).float()

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

    def regularise(self, turn: ganlab.Turn) -> Tensor:
        synthesis = turn.networks["synthesis"]
        lengths = synthesis.lengths(*self.drawn(turn), turn.normal(*turn.real.shape[1:]))
        synthesis.mean_length.lerp_(turn.mean_of_all(lengths.detach().mean()), 0.01)
        return 4 * self.path_length * (lengths - synthesis.mean_length.clone()).square().mean()


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("stylegan2", StyleGAN2)
