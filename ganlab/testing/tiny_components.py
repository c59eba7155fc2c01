"""The conformance suite's own tiny components: the rest of the experiment in which a component is checked.

Decisions:
- They are smooth, so that finite differences show their gradients, and cost next to nothing.
- They are not bundled plugins: the core knows none, and a suite built on plugins would find their faults in yours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import attrs
import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganlab.config.game_tables import network_tables
from ganlab.data.dataset import ImageDataset
from ganlab.nn.judged_output import Judged
from ganlab.plugin.component import Origin
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.registry import Registry
from ganlab.protocols import Evaluation, ImageSpec, Places, Scores, Step
from ganlab.testing.fixed_inputs import CLASSES, ConditionShape
from ganlab.testing.tiny_game import GENERATES, JUDGES, TinyGame
from ganlab.utils.errors import ComponentError
from ganlab.utils.interval import Interval


def _scale(images: ImageSpec) -> float | None:
    """What the suite's tiny networks divide float32 data by, so that none is too large for them; None for pixels."""
    return None if images.range is None else max(map(abs, images.range)) or 1.0


class _Generator(nn.Module):
    def __init__(self, latent_dim: int, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.shape, self.scale = images.shape, _scale(images)
        self.layers = nn.Sequential(nn.Linear(latent_dim, 8), nn.Tanh(), nn.Linear(8, math.prod(self.shape)), nn.Tanh())

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        images: Tensor = self.layers(z).unflatten(1, self.shape)
        return images if self.scale is None else images * self.scale


class _Discriminator(nn.Module):
    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        self.scale = _scale(images)
        self.layers = nn.Sequential(nn.Linear(images.size, 8), nn.Tanh(), nn.Linear(8, 1))
        self.batch_independent = True

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        values = images.flatten(1)
        logits: Tensor = self.layers(values if self.scale is None else values / self.scale).squeeze(1)
        return logits


class _Classifier(_Discriminator):
    def __init__(self, images: ImageSpec) -> None:
        super().__init__(images)
        self.classes = nn.Linear(8, CLASSES)
        self.batch_independent = False  # its logits are not bare

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Judged:  # type: ignore[override]
        features = self.layers[:-1](images.flatten(1))
        return Judged(self.layers[-1](features).squeeze(1), self.classes(features))


@frozen
class TinyGenerator:
    """The suite's tiny generator."""

    latent_dim: int = 6

    def build(self, images: ImageSpec) -> nn.Module:
        return _Generator(self.latent_dim, images)


@frozen
class TinyDiscriminator:
    """The suite's tiny discriminator."""

    def build(self, images: ImageSpec) -> nn.Module:
        return _Discriminator(images)


@frozen
class TinyClassifier:
    """The suite's tiny discriminator with class logits, for components under check that need them."""

    def build(self, images: ImageSpec) -> nn.Module:
        return _Classifier(images)


@frozen
class PlainLoss:
    """The logistic loss."""

    generator_uses_real: ClassVar[bool] = False

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
class RelativisticLoss(TinyLoss):
    """The suite's loss whose generator's part uses the real logits, as a relativistic one does, with label targets."""

    generator_uses_real: ClassVar[bool] = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().discriminator(real - fake.mean(), fake - real.mean())

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().generator(real, fake - real.mean())


@frozen
class StatefulLoss(TinyLoss):
    """The suite's loss with a state, the running mean of the logits, for wrappers under check, which must keep it."""

    state: dict[str, Tensor] = field(init=False, eq=False, repr=False, factory=lambda: {"mean": torch.zeros(())})

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        mean = self.state["mean"] = self.state["mean"].to(real.device)
        value = super().discriminator(real - mean, fake - mean)
        mean.lerp_((real.detach().mean() + fake.detach().mean()).to(mean.dtype) / 2, 0.1)
        return value

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().generator(real, fake - self.state["mean"].to(fake.device))

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.state["mean"].copy_(state["mean"])


@frozen
class TinyWrapper:
    """The suite's wrapper: no change."""

    def __call__(self, loss: Any) -> Any:
        return loss


@frozen
class TinyPenalty:
    """The suite's tiny penalty: the mean square of the fake logits."""

    player: str = JUDGES
    every: int = 1

    def penalty(self, step: Step) -> Tensor:
        return 0.01 * step.networks[JUDGES](step.fake, None).square().mean()  # type: ignore[no-any-return]


@frozen
class TinyAugmentation:
    """The suite's own: darker images."""

    def augment(self, images: Tensor) -> Tensor:
        return images * 0.9


@frozen
class TinyOptimizer:
    """The suite's tiny optimiser: gradient descent with momentum, so that it has a state."""

    lr: float = 0.05

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.lr, momentum=0.5)


@frozen
class TinyImages:
    """The suite's tiny data set: smooth random images of a few classes, the same each time.

    shape: (C, H, W) of uint8 images, (C, T) of float32 signals, or (D,) of float32 rows of a table, in [-1, 1].
    count: how many there are.
    condition: the shape (C, H, W) of condition images, or of attributes of signals and rows, several by name; empty for
        class labels, None for no condition.
    """

    shape: tuple[int, ...] = (3, 8, 8)
    count: int = 256
    condition: ConditionShape = ()

    def build(self, places: Places, split: str) -> ImageDataset:
        if split not in ("train", "test"):
            raise ComponentError(f"no split {split!r}")
        generator = torch.Generator().manual_seed(int(split == "test"))
        labels = torch.arange(self.count) % CLASSES
        channels, *sides = self.shape if len(self.shape) > 1 else (1, *self.shape)
        coarse = torch.rand(self.count, channels, *[2] * len(sides), generator=generator)
        coarse = coarse + labels.view(-1, *[1] * (coarse.ndim - 1))
        mode = "bilinear" if len(sides) == 2 else "linear"
        smooth = (nn.functional.interpolate(coarse, sides, mode=mode) / (CLASSES + 1)).clamp(0, 1)
        image = len(self.shape) == 3
        values = (255 * smooth).to(torch.uint8) if image else (2 * smooth - 1).view(self.count, *self.shape)
        if self.condition == ():
            return ImageDataset(values, "tiny", split, labels, tuple(str(number) for number in range(CLASSES)))

        def given(shape: tuple[int, ...]) -> Tensor:
            if image:
                return torch.randint(256, (self.count, *shape), generator=generator, dtype=torch.uint8)
            return torch.randn(self.count, *shape, generator=generator)

        if isinstance(self.condition, Mapping):
            return ImageDataset(values, "tiny", split, {name: given(part) for name, part in self.condition.items()})
        return ImageDataset(values, "tiny", split, None if self.condition is None else given(self.condition))


@frozen
class TinySignals:
    """The suite's tiny data set of another type and shape: labelled signals, float32 (N, 2, 16), from about 20 to 80.

    count: how many there are.
    """

    count: int = 256

    def build(self, places: Places, split: str) -> ImageDataset:
        generator = torch.Generator().manual_seed(int(split == "test"))
        values = 50 + 10 * torch.randn(self.count, 2, 16, generator=generator)
        return ImageDataset(values, "tiny signals", split, torch.arange(self.count) % CLASSES)


@frozen
class _Features:
    dim: int = 8
    spatial_dim: int = 4
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

    def spatial(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1) / 255, 2).flatten(1)

    def belongs(self, images: Tensor) -> Tensor:
        return images.flatten(1).float().mean(1) > 1  # black images belong to no class


@frozen
class TinyFeatures:
    """The suite's tiny feature extractor component, with class logits and spatial ones: a random projection."""

    def build(self, evaluation: Evaluation) -> _Features:
        return _Features()


@frozen
class TinyMetric:
    """The mean pixel value."""

    every: Interval = Interval(0)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        (images,) = evaluation.generated(16, 0)
        return Scores({"level": float(images.float().mean())}, {"metric": "level"}, {})


ORIGIN = Origin("testing", "core", "ganlab", "", None)

TINY: dict[str, type] = {
    GENERATES: TinyGenerator,
    JUDGES: TinyDiscriminator,
    "game": TinyGame,
    "loss": TinyLoss,
    "loss_wrapper": TinyWrapper,
    "penalty": TinyPenalty,
    "augmentation": TinyAugmentation,
    "optimizer": TinyOptimizer,
    "dataset": TinyImages,
    "features": TinyFeatures,
    "metric": TinyMetric,
}


def tiny_networks() -> dict[str, Any]:
    """Returns the configurations of the tiny game's networks, by name."""
    return {name: TINY[name]() for name in network_tables(TinyGame)}


def tiny_registry(others: Registry | None = None) -> Registry:
    """Returns a registry with the suite's own tiny components, "tiny_KIND", and others."""
    registry = Registry() if others is None else others.copy()
    for kind, cls in TINY.items():
        registry.register(kind, f"tiny_{kind}", cls, ORIGIN)
    registry.register("loss", "stateful_loss", StatefulLoss, ORIGIN)
    return registry


def register_given(registry: Registry, instance: Any) -> None:
    """Adds to the suite's tiny registry the classes of components that the options of one under check were given."""
    for f in attrs.fields(type(instance)):
        kind, value = f.metadata.get(COMPONENT), getattr(instance, f.name)
        for part in value if isinstance(value, tuple) else (value,):
            if kind is None or not attrs.has(type(part)):
                continue
            known = registry.of_kind(kind)
            if all(type(part) is not component.cls for component in known):
                registry.register(kind, f"given_{len(known)}", type(part), ORIGIN)
            register_given(registry, part)


def tiny_options(cls: type, given: Iterable[str] = ()) -> dict[str, Any]:
    """Returns a tiny component for each option of a class under check that takes one and is not in `given`.

    An option whose default is another component keeps it; a list of components, empty by default, gets one.
    """
    chosen: dict[str, Any] = {}
    for f in attrs.fields(cls):
        kind = f.metadata.get(COMPONENT)
        if kind not in TINY or f.alias in given:
            continue
        if f.default is attrs.NOTHING or isinstance(f.default, str):
            chosen[f.alias] = TINY[kind]()
        elif getattr(f.default, "factory", None) is tuple:
            chosen[f.alias] = (TINY[kind](),)
    return chosen
