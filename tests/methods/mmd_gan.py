"""MMD-GAN: a generator against a learned kernel, and no logits at all (Li et al. 2017, arXiv:1705.08584)."""

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Encoder(nn.Module):
    """A fully connected encoder of images (N, C, H, W) to the vectors (N, dim) that are compared."""

    def __init__(self, images: ganlab.ImageSpec, dim: int, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.2), nn.Linear(width, dim))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Decoder(nn.Module):
    """A fully connected decoder of vectors to images, so that the encoder stays injective."""

    def __init__(self, images: ganlab.ImageSpec, dim: int, width: int) -> None:
        super().__init__()
        shape = (images.channels, images.height, images.width)
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Linear(dim, width), nn.LeakyReLU(0.2), nn.Linear(width, pixels), nn.Tanh())
        self.to_images = nn.Unflatten(1, shape)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.to_images(self.layers(vectors))


@frozen
class MMDGAN:
    """A generator that minimises the kernel distance (MMD) of vectors that an encoder maximises (algorithm 1).

    generator: the network that generates images.
    critic_steps: updates of the encoder before each update of the generator, each on its own batch.
    bandwidths: the widths of the Gaussian kernels that are added.
    reconstruction: the factor of the autoencoder's squared error.
    clip: the bound of the encoder's weights, which are clipped before each of its updates.
    dim: size of the vectors.
    width: units of the hidden layers of encoder and decoder.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    critic_steps: int = field(default=5, validator=ge(1))
    bandwidths: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    reconstruction: float = field(default=8.0, validator=ge(0))
    clip: float = field(default=0.01, validator=gt(0))
    dim: int = field(default=100, validator=ge(1))
    width: int = field(default=256, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "generator": self.generator,
                "encoder": ganlab.Network(lambda: Encoder(data.images, self.dim, self.width)),
                "decoder": ganlab.Network(lambda: Decoder(data.images, self.dim, self.width)),
            },
            moves=[
                ganlab.Move(
                    "critic",
                    players=("encoder", "decoder"),
                    terms=self.criticise,
                    repeats=self.critic_steps,
                    new_batch=True,
                ),
                ganlab.Move("generator", players=("generator",), terms=self.generate),
            ],
            sampler=ganlab.sampler_of("generator"),
        )

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def distance(self, turn: ganlab.Turn, real: Tensor, fake: Tensor) -> Tensor:
        """The squared MMD of vectors, of the whole batch: it compares every image with every other."""
        x, y = turn.gather(real), turn.gather(fake)
        return self.kernel(x, x) + self.kernel(y, y) - 2 * self.kernel(x, y)

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        squares = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
        kernels = [(-squares.clamp(min=0) / (2 * bandwidth**2)).exp() for bandwidth in self.bandwidths]
        return torch.stack(kernels).sum(0).mean()

    def criticise(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.fake(turn)
            for weight in turn.networks["encoder"].parameters():
                weight.clamp_(-self.clip, self.clip)
        vectors = [turn.forward("encoder", images).float() for images in (turn.real, fake)]
        pairs = zip((turn.real, fake), vectors, strict=True)
        errors = [(turn.forward("decoder", vector).float() - images).square().mean() for images, vector in pairs]
        return {
            "distance": -self.distance(turn, *vectors),
            "reconstruction": self.reconstruction * torch.stack(errors).sum(),
        }

    def generate(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            real = turn.forward("encoder", turn.real).float()
        return self.distance(turn, real, turn.forward("encoder", self.fake(turn)).float())


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("mmd_gan", MMDGAN)
