"""CycleGAN: translation between two domains of images, without pairs (Zhu et al. 2017, arXiv:1703.10593).

Two generators translate between the domains a and b, and a discriminator of each domain judges them. What is translated
there and back must be as it was (equation 2). Optionally an image that is of the target domain already must stay as it
is (section 5.2). The discriminators are trained with a pool of earlier translations.

Decisions:
- As published, both generators move together, then both discriminators, whose losses are halved.
- The paper's weight of the cycle, 10, is beside squares that `least_squares` halves: hence the default of 5.
- Domain a is `[source]` and b is `[dataset]`: the samples are translations of the first into the second, and those of
  the sampler `b_to_a` the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import (
    Batch,
    ComponentError,
    DatasetConfig,
    DataSpec,
    GameConfig,
    ImagePool,
    ImageSpec,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    component,
    hookimpl,
    sampler_of,
)
from ganlab_plugins.games._adversary import Adversary, generated, translations
from ganlab_plugins.games._plain_loops import Optimizers, cyclegan_step


@frozen
class CycleGAN:
    """CycleGAN: images of `[source]` are translated into those of `[dataset]`, and back.

    source: the data set whose images are translated; pairs with `[dataset]` are neither needed nor used.
    generator: of both networks that translate.
    discriminator: of both networks that judge; the paper's is `patchgan` with `norm = "instance"`.
    loss: the losses of all of them.
    cycle: the weight of the mean absolute error there and back, with pixels in [-1, 1].
    identity: the weight of the error of images that need no translation; in the paper half of `cycle` for paintings.
    pool: how many earlier translations the discriminators are trained with.
    """

    source: DatasetConfig = component("dataset")
    generator: NetworkConfig = component("generator", default="resnet_translator")
    discriminator: NetworkConfig = component("discriminator", default="patchgan")
    loss: Loss = component("loss", default="least_squares")
    cycle: float = field(default=5.0, validator=[ge(0), le(1e9)])
    identity: float = field(default=0.0, validator=[ge(0), le(1e9)])
    pool: int = field(default=50, validator=[ge(1), le(1_000_000)])

    def build(self, data: DataSpec) -> Rules:
        a, b = data.streams["source"], data.images
        keeps = isinstance(self.identity, Tensor) or self.identity != 0
        if keeps and a.shape != b.shape:
            raise ComponentError(
                f"identity: is {self.identity}, and the images of [source], {a.shape}, have another shape than "
                f"those of [dataset], {b.shape}; set it to 0"
            )
        play = _Play(
            self,
            {name: Adversary(self.loss, f"discriminator_{name}", f"_{name}") for name in "ab"},
            {"a": a.shape, "b": b.shape},
            {"a": ImagePool(self.pool, a), "b": ImagePool(self.pool, b)},
            keeps,
        )
        return Rules(
            networks={
                "generator_ab": Network(self.generator, images=_into(b, a), table="generator"),
                "generator_ba": Network(self.generator, images=_into(a, b), table="generator"),
                "discriminator_a": Network(self.discriminator, images=_alone(a), table="discriminator"),
                "discriminator_b": Network(self.discriminator, images=_alone(b), table="discriminator"),
            },
            moves=[
                Move("generators", players=("generator_ab", "generator_ba"), terms=play.translate),
                Move("discriminators", players=("discriminator_a", "discriminator_b"), terms=play.discriminate),
            ],
            sampler=attrs.evolve(sampler_of("generator_ab"), source="source"),
            samplers={"b_to_a": attrs.evolve(sampler_of("generator_ba"), source="dataset", makes="source")},
            state=play.pools,
            outputs=translations(data, "generator_ab"),
            levers=play.levers,
        )

    def plain_step(
        self, networks: Mapping[str, nn.Module], optimizers: Optimizers, next_batch: Callable[[], Batch]
    ) -> Callable[[], None]:
        """A step without ganlab, which `ganlab bench` compares with."""
        return cyclegan_step(self, networks, optimizers, next_batch)


def _alone(images: ImageSpec) -> ImageSpec:
    """What a network is built for that is given images of one domain alone."""
    return attrs.evolve(images, classes=None, condition_shape=None)


def _into(images: ImageSpec, given: ImageSpec) -> ImageSpec:
    """What a network is built for that makes images of one domain, with those of the other as conditions."""
    return attrs.evolve(images, classes=None, condition_shape=given.shape)


@frozen
class _Play:
    """The two moves. `keeps`: whether images of the target domain are passed through the generators too."""

    game: CycleGAN
    adversaries: Mapping[str, Adversary]
    shapes: Mapping[str, tuple[int, ...]]
    pools: Mapping[str, ImagePool]
    keeps: bool

    def levers(self, networks: Mapping[str, nn.Module]) -> dict[str, bool]:
        return {key: used for of in self.adversaries.values() for key, used in of.levers(networks).items()}

    def translate(self, turn: Turn) -> dict[str, Tensor]:
        real, terms = self.real(turn), {}
        for of, to in (("a", "b"), ("b", "a")):
            there, back = f"generator_{of}{to}", f"generator_{to}{of}"
            fake, z = generated(turn, self.shapes[to], real[of], there)
            again, _ = generated(turn, self.shapes[of], fake, back)
            adversary = self.adversaries[to]
            terms[f"adversarial_{to}"] = adversary.generator_loss(turn, real[to], fake, None, z, there, real[of])
            terms[f"cycle_{of}"] = self.game.cycle * (again - real[of]).abs().mean()
            if self.keeps:
                same, _ = generated(turn, self.shapes[to], real[to], there)
                terms[f"identity_{to}"] = self.game.identity * (same - real[to]).abs().mean()
            turn.kept[to] = fake.detach(), z
        return terms

    def discriminate(self, turn: Turn) -> dict[str, Tensor]:
        real, terms = self.real(turn), {}
        for of, to in (("a", "b"), ("b", "a")):
            fake, z = turn.kept[to]
            earlier = self.pools[to].exchange(turn, fake)
            adversary = self.adversaries[to]
            there = f"generator_{of}{to}"
            terms[to] = 0.5 * adversary.discriminator_loss(turn, real[to], earlier, None, z, there, real[of])
        return terms

    def real(self, turn: Turn) -> dict[str, Tensor]:
        """The real images of both domains."""
        return {"a": turn.batch.streams["source"].images, "b": turn.real}


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("cyclegan", CycleGAN)
