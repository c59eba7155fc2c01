"""Stand-ins for what a metric works on: features that cost nothing, and an evaluation without a generator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import define
from torch import Tensor

from ganlab import Evaluation, ImageDataset, Places

CPU = torch.device("cpu")


@define
class StubFeatures:
    """A random projection of the pixels, then a tanh; `calls` counts the batches it was given.

    `poison` is added to every feature, or to those of the images of a batch that `poisoned` names.
    """

    dim: int = 12
    fingerprint: str = "weights-1"
    name: str = "stub"
    preprocessing: str = "none"
    poison: float = 0.0
    poisoned: slice = slice(None)
    calls: int = 0

    def __call__(self, images: Tensor, /) -> Tensor:
        assert images.dtype == torch.uint8
        self.calls += 1
        flat = images.flatten(1).float() / 255
        projection = torch.randn(flat.shape[1], self.dim, generator=torch.Generator().manual_seed(5))
        features = torch.tanh(flat @ projection)
        features[self.poisoned] += self.poison
        return features


@define
class StubClassifier(StubFeatures):
    """The same features, which are class logits too."""

    name: str = "stub classifier"

    def logits(self, images: Tensor) -> Tensor:
        return 3 * self(images)


@define
class StubConfig:
    """Builds the features that it is given."""

    features: Any

    def build(self, evaluation: Evaluation) -> Any:
        return self.features


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)


def photos(count: int, seed: int, channels: int = 3) -> Tensor:
    """Smooth random images (count, channels, 32, 32)."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, 32, mode="bilinear") * 255).to(torch.uint8)


def an_evaluation(
    folder: Path, reference: Tensor | None = None, generated: Tensor | None = None, seen: list | None = None
) -> Evaluation:
    def batches(count: int, seed: int) -> Iterator[Tensor]:
        made = images(count, 100 + seed) // 2 if generated is None else generated
        yield from made.split(64)

    return Evaluation(
        generated=batches,
        dataset=lambda split: ImageDataset(reference, "noise", split),
        device=CPU,
        places=Places(folder / "data", folder / "cache"),
        progress=lambda what, done, total: seen.append((done, total)) if seen is not None else None,
    )
