"""pix2pix: translation of images into images, learnt from pairs (Isola et al. 2017, arXiv:1611.07004).

The discriminator tells real pairs of a condition and an image from pairs whose image is generated, patch by patch
(equation 1). The generator has the mean absolute error as a second term (equations 3 and 4), which leaves what is sharp
to the discriminator. Its noise is dropout alone, in training. Samples and scores are made without it and with batch
norm's running statistics; the paper keeps dropout, and the statistics of the test batch, at test time too.

With `perceptual` it is SRGAN's game too (Ledig et al. 2017, arXiv:1609.04802): the generator has the squared error of
features of a network that is not trained as a further term, the content loss (equation 5).

Decisions:
- As published, the discriminator's loss is halved, and the images that it has judged are those of the generator's
  update.
- With `adversarial = 0` there is no discriminator: regression, to compare with.
- The content loss is the mean over all features. SRGAN divides VGG's by 12.75, so that its weight 1 is 0.006 here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ganlab import (
    Batch,
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
from ganlab_plugins.games._codes import with_features
from ganlab_plugins.games._plain_loops import Optimizers, pix2pix_step


@frozen
class Pix2Pix:
    """pix2pix: the images that are conditions in `[dataset]` are translated into its images.

    generator: the network that translates.
    discriminator: the network that judges images, with their conditions.
    content: the frozen network whose features are compared, which `perceptual` needs: `vgg`, or another discriminator
        that has `feature_shape`, and returns its logits and these features where its third argument is True. It sees no
        conditions.
    loss: the losses of both networks.
    adversarial: the weight of the generator's adversarial loss; 0 leaves the discriminator out.
    absolute: the weight of the generator's mean absolute error, with pixels in [-1, 1].
    perceptual: the weight of the generator's mean squared error of features; 0 leaves the network `content` out.
    conditional: whether the discriminator is given the conditions too.
    """

    generator: NetworkConfig = component("generator", default="unet")
    discriminator: NetworkConfig = component("discriminator", default="patchgan")
    content: NetworkConfig | None = component("discriminator", default=None)
    loss: Loss = component("loss", default="bce")
    adversarial: float = field(default=1.0, validator=[ge(0), le(1e9)])
    absolute: float = field(default=100.0, validator=[ge(0), le(1e9)])
    perceptual: float = field(default=0.0, validator=[ge(0), le(1e9)])
    conditional: bool = True

    def __attrs_post_init__(self) -> None:
        if not any(map(_used, (self.adversarial, self.absolute, self.perceptual))):
            raise ValueError("adversarial: is 0, and absolute and perceptual too; the generator would learn nothing")

    def build(self, data: DataSpec) -> Rules:
        if len(data.images.condition_shape or ()) != 3:
            raise ComponentError("pix2pix translates images: [dataset] must have images as conditions, as 'glyphs' has")
        alone = attrs.evolve(data.images, classes=None, condition_shape=None)
        play = _Play(self, Adversary(self.loss), data.images.shape)
        networks: dict[str, NetworkConfig | Network] = {"generator": self.generator}
        moves = [Move("generator", players=("generator",), terms=play.translate)]
        adversary: dict[str, Any] = {}
        if _used(self.adversarial):
            networks["discriminator"] = Network(self.discriminator, images=data.images if self.conditional else alone)
            first = Move("discriminator", players=("discriminator",), terms=play.discriminate, unfrozen=("generator",))
            moves.insert(0, first)
            adversary = {
                "judge": _judge if self.conditional else None,
                "loss": self.loss,
                "levers": play.adversary.levers,
            }
        if _used(self.perceptual):
            if self.content is None:
                raise ComponentError(
                    "perceptual: compares the features of the network [content], which is not there; add one, such as "
                    'content = { name = "vgg", layers = 4, weights = "vgg19-dcbb9e9d.pth" }'
                )
            networks["content"] = with_features(self.content, alone, frozen=True)
        return Rules(networks, moves, sampler_of("generator"), **adversary)

    def plain_step(
        self, networks: Mapping[str, nn.Module], optimizers: Optimizers, next_batch: Callable[[], Batch]
    ) -> Callable[[], None]:
        """A step without ganlab, which `ganlab bench` compares with."""
        return pix2pix_step(self, networks, optimizers, next_batch)


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
        if _used(self.game.perceptual):
            with torch.no_grad():
                wanted = self.content(turn, turn.real)
            terms["perceptual"] = self.game.perceptual * mse_loss(self.content(turn, fake), wanted)
        return terms

    def content(self, turn: Turn, images: Tensor) -> Tensor:
        """The features of images by which their content is compared, float32."""
        _, features = turn.forward("content", images, None, True)
        found: Tensor = features.float()
        return found

    def given(self, turn: Turn) -> Condition:
        """The conditions that the discriminator is given."""
        if not self.game.conditional:
            return None
        if turn.augmentations:
            raise ComponentError(
                "augmentation: it would change images and not the condition images that the discriminator judges with "
                "them; leave it out, or set conditional = false in [game]"
            )
        return turn.condition


def _used(weight: object) -> bool:
    """Whether a term has a weight; one that a schedule changes, a tensor, may be 0 at first."""
    return isinstance(weight, Tensor) or weight != 0


def _judge(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    return logits_per_image(networks["discriminator"](images, condition))


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("pix2pix", Pix2Pix)
