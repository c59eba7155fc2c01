"""EBGAN: the discriminator is an autoencoder whose error is an energy (Zhao et al. 2017, arXiv:1609.03126)."""

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Autoencoder(nn.Module):
    """A fully connected autoencoder: from images to energies (N,), the mean squared errors, and codes (N, code)."""

    def __init__(self, images: ganlab.ImageSpec, code: int, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.encoder = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.ReLU(), nn.Linear(code, width), nn.ReLU(), nn.Linear(width, pixels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        codes = self.encoder(flat)
        return (self.decoder(codes) - flat).square().mean(1), codes


@frozen
class EBGAN:
    """A GAN of energies: an autoencoder lowers that of real images, and raises that of generated ones up to a margin.

    generator: the network that generates images; it lowers the energy of its images.
    margin: the energy up to which that of generated images is raised.
    apart: the factor of the pulling-away term, the mean squared cosine of generated images' codes (section 2.4).
    code: size of the codes.
    width: units of the autoencoder's hidden layers.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    margin: float = field(default=1.0, validator=gt(0))
    apart: float = field(default=0.1, validator=ge(0))
    code: int = field(default=64, validator=ge(1))
    width: int = field(default=256, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "generator": self.generator,
                "autoencoder": ganlab.Network(lambda: Autoencoder(data.images, self.code, self.width)),
            },
            moves=[
                ganlab.Move("autoencoder", players=("autoencoder",), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.generate),
            ],
            sampler=ganlab.sampler_of("generator"),
        )

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def judge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.fake(turn)
        (real_energy, _), (fake_energy, _) = (turn.forward("autoencoder", images) for images in (turn.real, fake))
        return {"real": real_energy.float().mean(), "fake": (self.margin - fake_energy.float()).relu().mean()}

    def generate(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        energy, codes = turn.forward("autoencoder", self.fake(turn))
        every = nn.functional.normalize(turn.gather(codes.float()), dim=1)
        cosines = (every @ every.T).square()
        pairs = len(every) * (len(every) - 1)
        return {
            "energy": energy.float().mean(),
            "apart": self.apart * (cosines.sum() - cosines.diagonal().sum()) / max(pairs, 1),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("ebgan", EBGAN)
