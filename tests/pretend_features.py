"""Every kind of features, and the metrics on them, on the pretend device and on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ganlab import Evaluation, ImageDataset
from ganlab_plugins.features.classifier import Classifier
from ganlab_plugins.features.inception import Inception
from ganlab_plugins.features.pixels import Pixels
from ganlab_plugins.features.timm import Timm
from ganlab_plugins.metrics.fid import FID
from ganlab_plugins.metrics.inception_score import InceptionScore
from ganlab_plugins.metrics.kid import KID
from ganlab_plugins.metrics.precision_recall import PrecisionRecall
from stubs import an_evaluation, photos

COUNT = 6


def compare_features(kind: str, weights: str, folder: str) -> dict[str, list[float]]:
    """The scores of every metric with a kind of features, on the CPU and on the device, by metric and score."""
    features: Any = {
        "pixels": Pixels,
        "classifier": lambda: Classifier(updates=5),
        "inception": lambda: Inception(weights),
        "timm": lambda: Timm("test_vit", weights),
    }[kind]()
    metrics: dict[str, Any] = {
        "kid": KID(samples=COUNT, features=features, subsets=3, subset_size=4),
        "precision_recall": PrecisionRecall(samples=COUNT, features=features, neighbours=2, density_neighbours=2),
    }
    if kind in ("classifier", "timm"):  # the others have thousands of features, whose covariance takes seconds
        metrics["fid"] = FID(samples=COUNT, features=features)
    if kind in ("classifier", "inception"):
        metrics["inception_score"] = InceptionScore(samples=COUNT, features=features, splits=2)
    found: dict[str, list[float]] = {}
    for device in ("cpu", "pretend"):
        evaluation = _evaluation(Path(folder) / device, torch.device(device))
        for name, metric in metrics.items():
            for score, value in metric.evaluate(evaluation).values.items():
                found.setdefault(f"{name}: {score}", []).append(float(value))
    return found


def _evaluation(folder: Path, device: torch.device) -> Evaluation:
    kept: dict[Any, Any] = {}

    def generated(count: int, seed: int) -> Iterator[Tensor]:
        yield from photos(count, 100 + seed).to(device).split(4)

    def keep(key: Any, compute: Any) -> Any:
        if key not in kept:
            kept[key] = compute()
        return kept[key]

    def dataset(split: str) -> ImageDataset:
        return ImageDataset(photos(COUNT + 2, 5), "photos", split, torch.arange(COUNT + 2) % 2, ("a", "b"))

    return attrs.evolve(an_evaluation(folder), generated=generated, dataset=dataset, device=device, keep=keep)
