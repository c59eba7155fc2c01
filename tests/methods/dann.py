"""DANN: features from which no classifier tells two domains apart (Ganin et al. 2016, arXiv:1505.07818)."""

from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Reversal(torch.autograd.Function):
    """The gradient reversal layer: in the forward pass nothing, in the backward pass times minus its weight."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: float | Tensor) -> Tensor:
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


class Features(nn.Module):
    """Convolutions of images (N, C, H, W), then features (N, 4 * width)."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(images.channels, width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, 4 * width),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, outputs))


@frozen
class DANN:
    """Unsupervised domain adaptation: `[source]` has labels, `[dataset]` is the target, whose labels are not used.

    It makes no samples. The paper's schedule of `reversal` is 2 / (1 + exp(-10 p)) - 1 at the share p of the training.

    source: labelled images, of the target's size; grey ones are given the target's channels.
    loss: the domain head's loss of logits, of which it minimises what features maximise; target images are real.
    reversal: lambda, the factor of the reversed gradient.
    width: channels of the networks.
    """

    source: ganlab.DatasetConfig = ganlab.component("dataset")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    reversal: float = field(default=1.0, validator=ge(0))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        source, target = data.streams["source"], data.images
        if (source.height, source.width) != (target.height, target.width) or not source.classes:
            raise ganlab.ComponentError("[source] must have class labels, and images of the size of those in [dataset]")
        classes = source.classes
        return ganlab.Rules(
            networks={
                "features": ganlab.Network(lambda: Features(target, self.width)),
                "labels": ganlab.Network(lambda: head(self.width, classes)),
                "domains": ganlab.Network(lambda: head(self.width, 1)),
            },
            moves=[ganlab.Move("all", players=("features", "labels", "domains"), terms=self.adapt)],
            outputs={"class_logits": lambda networks, images, _: networks["labels"](networks["features"](images))},
        )

    def adapt(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        batch = turn.batch.streams["source"]
        images = torch.cat([batch.images.expand(-1, turn.real.shape[1], -1, -1), turn.real])
        features = turn.forward("features", turn.augment(images))
        source, target = turn.forward("domains", Reversal.apply(features, self.reversal)).squeeze(1).float().chunk(2)
        predicted = turn.forward("labels", features.chunk(2)[0]).float()
        return {
            "task": nn.functional.cross_entropy(predicted, batch.condition),
            "domains": self.loss.discriminator(turn.gather(target), turn.gather(source)),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("dann", DANN)
