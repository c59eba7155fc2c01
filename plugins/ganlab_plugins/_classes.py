"""How many classes a data set has, for what counts them or learns to tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab import Dataset

if TYPE_CHECKING:
    from torch import Tensor


def class_labels_of(dataset: Dataset) -> Tensor | None:
    """The data set's class labels (N,), or None where its condition is no labels."""
    labels = dataset.condition
    return labels if labels is not None and labels.ndim == 1 and len(labels) else None


def class_count(dataset: Dataset, labels: Tensor) -> int:
    """The number of classes that the data set names, or that its labels show where it names none.

    A split need not have an image of every class, so the names say more than the labels.
    """
    return max(len(getattr(dataset, "classes", ())), int(labels.max()) + 1)
