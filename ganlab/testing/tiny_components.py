"""The suite's own components: the rest of a tiny game that a component is checked in.

They are smooth, so that differences of their values tell their gradients, and cost next to nothing. The core knows no
bundled plugin, and a suite that stands on other plugins would find their faults in yours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganlab.data.dataset import ImageDataset
from ganlab.nn.outputs import Judged
from ganlab.plugin.component import Origin
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.registry import Registry
from ganlab.protocols import Evaluation, ImageSpec, Places, Scores, Step
from ganlab.utils.errors import ComponentError
from ganlab.utils.interval import Interval

CLASSES = 4


class _Generator(nn.Module):
    def __init__(self, latent_dim: int, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.shape = (images.channels, images.height, images.width)
        self.layers = nn.Sequential(nn.Linear(latent_dim, 8), nn.Tanh(), nn.Linear(8, math.prod(self.shape)), nn.Tanh())

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        images: Tensor = self.layers(z).unflatten(1, self.shape)
        return images


class _Discriminator(nn.Module):
    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Linear(pixels, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        logits: Tensor = self.layers(images.flatten(1)).squeeze(1)
        return logits


class _Classifier(_Discriminator):
    def __init__(self, images: ImageSpec) -> None:
        super().__init__(images)
        self.classes = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor, condition: Tensor | None) -> Judged:  # type: ignore[override]
        features = self.layers[:-1](images.flatten(1))
        return Judged(self.layers[-1](features).squeeze(1), self.classes(features))


@frozen
class TinyGenerator:
    """Two smooth layers."""

    latent_dim: int = 6

    def build(self, images: ImageSpec) -> nn.Module:
        return _Generator(self.latent_dim, images)


@frozen
class TinyDiscriminator:
    """Two smooth layers."""

    def build(self, images: ImageSpec) -> nn.Module:
        return _Discriminator(images)


@frozen
class TinyClassifier:
    """The same, which also tells classes."""

    def build(self, images: ImageSpec) -> nn.Module:
        return _Classifier(images)


@frozen
class PlainLoss:
    """The logistic loss."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


@frozen
class TinyLoss(PlainLoss):
    """The logistic loss with label targets."""

    real_target: float = 1.0
    fake_target: float = 0.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        pairs = ((real, self.real_target), (fake, self.fake_target))
        return sum((softplus(logits) - target * logits).mean() for logits, target in pairs)  # type: ignore[return-value]

    def with_targets(self, *, real: float, fake: float) -> TinyLoss:
        return attrs.evolve(self, real_target=real, fake_target=fake)


@frozen
class TinyWrapper:
    """Gives the loss as it is."""

    def __call__(self, loss: Any) -> Any:
        return loss


@frozen
class TinyPenalty:
    """The mean square of what the discriminator says of generated images."""

    player: str = "discriminator"
    every: int = 1

    def penalty(self, step: Step) -> Tensor:
        return 0.01 * step.discriminator(step.fake, None).square().mean()  # type: ignore[no-any-return]


@frozen
class TinyAugmentation:
    """Images a little darker."""

    def augment(self, images: Tensor) -> Tensor:
        return images * 0.9


@frozen
class TinyOptimizer:
    """Gradient descent with momentum, so that it has a state."""

    lr: float = 0.05

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.lr, momentum=0.5)


@frozen
class TinyImages:
    """Random smooth images of some classes, the same each time."""

    channels: int = 3
    height: int = 8
    width: int = 8
    count: int = 256

    def build(self, places: Places, split: str) -> ImageDataset:
        if split not in ("train", "test"):
            raise ComponentError(f"no split {split!r}")
        generator = torch.Generator().manual_seed(int(split == "test"))
        labels = torch.arange(self.count) % CLASSES
        coarse = torch.rand(self.count, self.channels, 2, 2, generator=generator) + labels[:, None, None, None]
        smooth = nn.functional.interpolate(coarse, (self.height, self.width), mode="bilinear") / (CLASSES + 1)
        images = (255 * smooth.clamp(0, 1)).to(torch.uint8)
        return ImageDataset(images, "tiny", split, labels, tuple(str(number) for number in range(CLASSES)))


@frozen
class _Features:
    dim: int = 8
    name: str = "tiny"
    fingerprint: str = "tiny-1"
    preprocessing: str = "uint8 to [0, 1]"

    def __call__(self, images: Tensor, /) -> Tensor:
        flat = images.flatten(1).float() / 255
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(flat.shape[1], self.dim, generator=generator).to(flat.device)
        return torch.tanh(flat @ weights / flat.shape[1] ** 0.5)

    def logits(self, images: Tensor) -> Tensor:
        return 3 * self(images)[:, :CLASSES]

    def belongs(self, images: Tensor) -> Tensor:
        return images.flatten(1).float().mean(1) > 1  # black images belong to no class


@frozen
class TinyFeatures:
    """A random projection of the pixels, which also classifies."""

    def build(self, evaluation: Evaluation) -> _Features:
        return _Features()


@frozen
class TinyMetric:
    """The mean level."""

    every: Interval = Interval(0)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        (images,) = evaluation.generated(16, 0)
        return Scores({"level": float(images.float().mean())}, {"metric": "level"}, {})


ORIGIN = Origin("testing", "core", "ganlab", "", None)

TINY: dict[str, type] = {
    "generator": TinyGenerator,
    "discriminator": TinyDiscriminator,
    "loss": TinyLoss,
    "loss_wrapper": TinyWrapper,
    "penalty": TinyPenalty,
    "augmentation": TinyAugmentation,
    "optimizer": TinyOptimizer,
    "dataset": TinyImages,
    "features": TinyFeatures,
    "metric": TinyMetric,
}


def tiny_registry() -> Registry:
    """A registry with the suite's own components."""
    registry = Registry()
    for kind, cls in TINY.items():
        registry.register(kind, f"tiny_{kind}", cls, ORIGIN)
    return registry


def tiny_options(cls: type, given: Iterable[str] = ()) -> dict[str, Any]:
    """The suite's own component for each option that takes one, has no other, and is not given."""
    chosen: dict[str, Any] = {}
    for f in attrs.fields(cls):
        kind = f.metadata.get(COMPONENT)
        if kind in TINY and f.alias not in given and (f.default is attrs.NOTHING or isinstance(f.default, str)):
            chosen[f.alias] = TINY[kind]()
    return chosen
