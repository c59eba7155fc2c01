"""pix2pix: translation of images into images, learnt from pairs (Isola et al. 2017, arXiv:1611.07004).

The discriminator tells real pairs of a condition and an image from pairs whose image is generated, patch by patch
(equation 1). The generator has the mean absolute error as a second term (equations 3 and 4), which leaves what is sharp
to the discriminator. Its noise is dropout alone, in training.

Decisions:
- As published, the discriminator's loss is halved, and the images that it has judged are those of the generator's
  update.
- With `adversarial = 0` there is no discriminator: regression, to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import (
    ComponentError,
    Condition,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    component,
    hookimpl,
    logits_per_image,
    sampler_of,
)
from ganlab_plugins.games._adversary import Adversary, generated


@frozen
class Pix2Pix:
    """pix2pix: the images that are conditions in `[dataset]` are translated into its images.

    generator: the network that translates.
    discriminator: the network that judges images, with their conditions.
    loss: the losses of both networks.
    adversarial: the weight of the generator's adversarial loss; 0 leaves the discriminator out.
    absolute: the weight of the generator's mean absolute error, with pixels in [-1, 1].
    conditional: whether the discriminator is given the conditions too.
    """

    generator: NetworkConfig = component("generator", default="unet")
    discriminator: NetworkConfig = component("discriminator", default="patchgan")
    loss: Loss = component("loss", default="bce")
    adversarial: float = field(default=1.0, validator=[ge(0), le(1e9)])
    absolute: float = field(default=100.0, validator=[ge(0), le(1e9)])
    conditional: bool = True

    def __attrs_post_init__(self) -> None:
        if not (_used(self.adversarial) or _used(self.absolute)):
            raise ValueError("adversarial: is 0, and absolute too; the generator would learn nothing")

    def build(self, data: DataSpec) -> Rules:
        if data.images.condition_shape is None:
            raise ComponentError("pix2pix translates images: [dataset] must have images as conditions, as 'glyphs' has")
        play = _Play(self, Adversary(self.loss), data.images.shape)
        generator = Move("generator", players=("generator",), terms=play.translate)
        if not _used(self.adversarial):
            return Rules({"generator": self.generator}, [generator], sampler_of("generator"))
        judged = data.images if self.conditional else attrs.evolve(data.images, condition_shape=None)
        discriminator = Move(
            "discriminator", players=("discriminator",), terms=play.discriminate, unfrozen=("generator",)
        )
        return Rules(
            networks={"generator": self.generator, "discriminator": Network(self.discriminator, images=judged)},
            moves=[discriminator, generator],
            sampler=sampler_of("generator"),
            judge=_judge if self.conditional else None,
            loss=self.loss,
        )


@frozen
class _Play:
    """The two moves."""

    game: Pix2Pix
    adversary: Adversary
    shape: tuple[int, ...]

    def discriminate(self, turn: Turn) -> Tensor:
        fake, z = turn.kept["fake"] = generated(turn, self.shape, turn.condition)
        return 0.5 * self.adversary.discriminator_loss(turn, turn.real, fake.detach(), self.given(turn), z)

    def translate(self, turn: Turn) -> dict[str, Tensor]:
        fake, z = turn.kept.pop("fake", None) or generated(turn, self.shape, turn.condition)
        terms = {"absolute": self.game.absolute * (fake - turn.real).abs().mean()}
        if _used(self.game.adversarial):
            loss = self.adversary.generator_loss(turn, turn.real, fake, self.given(turn), z)
            terms["adversarial"] = self.game.adversarial * loss
        return terms

    def given(self, turn: Turn) -> Condition:
        """The conditions that the discriminator is given."""
        return turn.condition if self.game.conditional else None


def _used(weight: object) -> bool:
    """Whether a term has a weight; one that a schedule changes, a tensor, may be 0 at first."""
    return isinstance(weight, Tensor) or weight != 0


def _judge(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    return logits_per_image(networks["discriminator"](images, condition))


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("pix2pix", Pix2Pix)
