"""PixelDA: a classifier for images without labels, trained on labelled images made to look like them.

Bousmalis et al. 2017, "Unsupervised Pixel-Level Domain Adaptation with Generative Adversarial Networks"
(arXiv:1612.05424). A generator makes images of the target domain of labelled source images and noise; a discriminator
tells them from real ones (equation 2). The task's classifier learns from source images and from those made of them, and
the generator too must keep the classes (equations 3 and 4).

Decisions:
- The classifier moves with the discriminator, as published, and the images that both have seen are those of the
  generator's update.
- The classifier is that of the paper for digits, after Ganin et al. 2016 (arXiv:1505.07818), for any size and channels.
- It is averaged together with the generator (`train.ema`), since it is scored.
- With `adapt = false` it learns from the source images alone, to compare with, and there are no samples.
"""

from __future__ import annotations

import attrs
from attrs import field, frozen
from attrs.validators import ge, le, lt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganlab import (
    ComponentError,
    DatasetConfig,
    DataSpec,
    GameConfig,
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
    labels_in,
    sampler_of,
)
from ganlab_plugins.games._adversary import Adversary, generated


class _Classifier(nn.Sequential):
    """Class logits (N, classes) of images: two convolutions of 5x5 with pooling, and two hidden layers."""

    def __init__(self, images: ImageSpec, classes: int, width: int, dropout: float) -> None:
        hidden, features = 100 * width // 32, 48 * width // 32
        super().__init__(
            nn.Conv2d(images.channels, width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, features, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(features * (images.height // 4) * (images.width // 4), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )


@frozen
class PixelDA:
    """PixelDA: a classifier of the images of `[dataset]`, whose labels are not used, by those of `[source]`.

    source: the labelled data set, of the size of `[dataset]`; grey images stand for those with equal channels.
    generator: the network that makes images of the target of source images and latents.
    discriminator: the network that judges images.
    loss: the losses of both networks.
    adapt: whether there are a generator and a discriminator; `false` trains the classifier on `[source]` alone.
    adversarial: the weight of the generator's adversarial loss.
    task: the weight of the cross-entropy of the classifier, the mean of that on source images and on images made of
        them, and of the cross-entropy on the latter in the generator's loss.
    channels: feature maps of the classifier's first layer; its other widths are in the paper's proportions.
    dropout: dropout probability of the classifier's hidden layers.
    """

    source: DatasetConfig = component("dataset")
    generator: NetworkConfig = component("generator", default="resnet_translator")
    discriminator: NetworkConfig = component("discriminator", default="patchgan")
    loss: Loss = component("loss", default="bce")
    adapt: bool = True
    adversarial: float = field(default=1.0, validator=[ge(0), le(1e9)])
    task: float = field(default=1.0, validator=[ge(0), le(1e9)])
    channels: int = field(default=32, validator=[ge(1), le(2**16)])
    dropout: float = field(default=0.5, validator=[ge(0), lt(1)])

    def build(self, data: DataSpec) -> Rules:
        source, target = data.streams["source"], data.images
        classes = _classes(source)
        if source.channels not in (1, target.channels) or source.shape[1:] != target.shape[1:]:
            raise ComponentError(
                f"source: its images are {source.shape}; expected the shape of those of [dataset], {target.shape}, or "
                "grey images of that size"
            )
        if min(target.height, target.width) < 4:
            raise ComponentError(f"pixelda classifies images of at least 4x4 pixels; here they are {target.shape}")
        play = _Play(self, Adversary(self.loss), target.shape)
        classifier = Network(lambda: _Classifier(target, classes, self.channels, self.dropout))
        outputs = {"class_logits": lambda networks, images, condition: networks["classifier"](images)}
        if not self.adapt:
            move = Move("classifier", players=("classifier",), terms=play.classify)
            return Rules({"classifier": classifier}, [move], outputs=outputs)
        alone = attrs.evolve(target, classes=None, condition_shape=None)
        return Rules(
            networks={
                "generator": Network(self.generator, images=attrs.evolve(alone, condition_shape=source.shape)),
                "discriminator": Network(self.discriminator, images=alone),
                "classifier": classifier,
            },
            moves=[
                Move(
                    "critics",
                    players=("discriminator", "classifier"),
                    terms=play.criticise,
                    unfrozen=("generator",),
                ),
                Move("generator", players=("generator",), terms=play.adapt),
            ],
            sampler=attrs.evolve(sampler_of("generator"), networks=("generator", "classifier"), source="source"),
            loss=self.loss,
            levers=play.adversary.levers,
            outputs=outputs,
        )


def _classes(source: ImageSpec) -> int:
    """How many classes the source has; ComponentError for data without labels."""
    if source.classes is None:
        raise ComponentError("pixelda learns from labels: [source] must have class labels, as 'digits' has")
    return source.classes


@frozen
class _Play:
    """The two moves, and that of the classifier alone."""

    game: PixelDA
    adversary: Adversary
    shape: tuple[int, ...]

    def criticise(self, turn: Turn) -> dict[str, Tensor]:
        fake, z = turn.kept["fake"] = self.adapted(turn)
        given = turn.batch.streams["source"].images
        judged = self.adversary.discriminator_loss(turn, turn.real, fake.detach(), None, z, given=given)
        errors = self.errors(turn, given.expand(-1, *self.shape)), self.errors(turn, fake.detach())
        return {"adversarial": judged, "task": self.game.task * 0.5 * (errors[0] + errors[1])}

    def adapt(self, turn: Turn) -> dict[str, Tensor]:
        fake, z = turn.kept.pop("fake", None) or self.adapted(turn)
        given = turn.batch.streams["source"].images
        fooled = self.adversary.generator_loss(turn, turn.real, fake, None, z, given=given)
        return {"adversarial": self.game.adversarial * fooled, "task": self.game.task * self.errors(turn, fake)}

    def classify(self, turn: Turn) -> Tensor:
        return self.errors(turn, turn.batch.streams["source"].images.expand(-1, *self.shape))

    def adapted(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """Images like the target's, made of the source's, and their latents."""
        return generated(turn, self.shape, turn.batch.streams["source"].images)

    def errors(self, turn: Turn, images: Tensor) -> Tensor:
        """The classifier's cross-entropy on images that have the labels of the source."""
        labels = labels_in(turn.batch.streams["source"].condition)
        assert labels is not None  # as the source has them
        return cross_entropy(turn.forward("classifier", images).float(), labels)


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("pixelda", PixelDA)
