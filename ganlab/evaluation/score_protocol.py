"""ganlab.evaluation.score_protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganlab.protocols import Dataset, Features

if TYPE_CHECKING:
    pass


def about_features(features: Features) -> dict[str, Any]:
    """The protocol's entry for a network."""
    return {"name": features.name, "sha256": features.fingerprint, "preprocessing": features.preprocessing}


def about_reference(dataset: Dataset) -> dict[str, Any]:
    """The protocol's entry for a whole split."""
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": dataset.split,
        "count": len(dataset.images),
    }


def about_generated(count: int, seed: int) -> dict[str, Any]:
    """The protocol's entries for generated images; the seed is the latents' and that of every random choice."""
    return {"generated": count, "seed": seed, "images": "uint8, rounded"}
