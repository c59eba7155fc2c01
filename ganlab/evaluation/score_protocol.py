"""Entries of a score's protocol: the feature network, the reference data set, generated images, a game's output."""

from __future__ import annotations

from typing import Any

from ganlab.protocols import Dataset, Features
from ganlab.utils.hashing import tensors_sha256


def about_features(features: Features) -> dict[str, Any]:
    """The entry of a score's protocol for a feature network."""
    return {"name": features.name, "sha256": features.fingerprint, "preprocessing": features.preprocessing}


def about_reference(dataset: Dataset) -> dict[str, Any]:
    """The entry of a score's protocol for a reference split."""
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": dataset.split,
        "count": len(dataset.images),
    }


def about_generated(count: int, seed: int) -> dict[str, Any]:
    """The entries of a score's protocol for generated images; `seed` is that of the latents and of random subsets."""
    return {"generated": count, "seed": seed, "images": "uint8, rounded"}


def about_output(name: str, dataset: Dataset) -> dict[str, Any]:
    """The entries of a score's protocol for what a game makes of a split: its name, the images and their conditions."""
    reference = about_reference(dataset)
    if dataset.condition is not None:
        reference["condition_sha256"] = tensors_sha256({"condition": dataset.condition})
    return {"output": name, "reference": reference}
