"""GMAN: a generator against several discriminators (Durugkar et al. 2017, arXiv:1611.01673)."""

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Discriminators(nn.Module):
    """Several discriminators as one, which returns a list of their outputs."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        return [member(images, condition) for member in self.members]


@frozen
class Several:
    """Several discriminators as one, for the game `gan`, which adds their losses.

    discriminator: each of them.
    count: how many.
    """

    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    count: int = field(default=3, validator=ge(1))

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        return Discriminators([self.discriminator.build(images) for _ in range(self.count)])


@frozen
class GMAN:
    """A GAN with several discriminators, whose verdicts on the generator are averaged softly (section 4.1).

    generator: the network that generates images.
    discriminator: each of the discriminators, which move together, each on its own loss.
    loss: the adversarial loss.
    count: how many discriminators there are.
    harshness: lambda, how much the discriminator counts that the generator fools least: 0 for the mean of all.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    count: int = field(default=3, validator=ge(1))
    harshness: float = field(default=1.0, validator=ge(0))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"discriminator_{number}" for number in range(self.count))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        discriminator = ganlab.Network(self.discriminator, table="discriminator")
        return ganlab.Rules(
            networks={"generator": self.generator, **dict.fromkeys(self.names, discriminator)},
            moves=[
                ganlab.Move("discriminators", players=self.names, terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.fool),
            ],
            sampler=ganlab.sampler_of("generator"),
        )

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def logits(self, turn: ganlab.Turn, name: str, images: Tensor) -> Tensor:
        output = turn.forward(name, turn.augment(images), turn.condition)
        return turn.gather(ganlab.logits_per_image(output).float())

    def judge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.fake(turn)
        terms = {}
        for name in self.names:
            real_logits, fake_logits = self.logits(turn, name, turn.real), self.logits(turn, name, fake)
            turn.show(name, fake=fake, real_logits=real_logits, fake_logits=fake_logits, generator="generator")
            terms[name] = self.loss.discriminator(real_logits, fake_logits)
        return terms

    def fool(self, turn: ganlab.Turn) -> Tensor:
        fake = self.fake(turn)
        losses = torch.stack(
            [
                self.loss.generator(self.logits(turn, name, turn.real), self.logits(turn, name, fake))
                for name in self.names
            ]
        )
        return ((self.harshness * losses).softmax(0) * losses).sum()


@ganlab.hookimpl
def register_discriminators(register: ganlab.Register[ganlab.NetworkConfig]) -> None:
    register("several", Several)


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("gman", GMAN)
