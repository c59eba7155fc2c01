"""The class labels of a data set, and how many classes it has. Plugins import this, so it does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganlab.protocols import Dataset, labels_in

if TYPE_CHECKING:
    from torch import Tensor


def class_labels_of(dataset: Dataset) -> Tensor | None:
    """Returns a data set's class labels (N,), or None without, or where several conditions are labels."""
    labels = labels_in(dataset.condition)
    return labels if labels is not None and len(labels) else None


def class_count(dataset: Dataset, labels: Tensor) -> int:
    """Counts the classes of a data set's class labels: its class names, or the highest label + 1.

    The names come first because a split need not have an image of every class.
    """
    return max(len(getattr(dataset, "classes", ())), int(labels.max()) + 1)


def class_names(dataset: Dataset, count: int) -> tuple[str, ...]:
    """Returns the names of a data set's first `count` classes, () without any; where one has none it is its number."""
    names = [str(name) for name in getattr(dataset, "classes", ()) or ()][:count]
    return (*names, *map(str, range(len(names), count))) if names else ()
