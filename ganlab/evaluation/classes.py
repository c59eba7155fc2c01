"""ganlab.evaluation.classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ganlab.protocols import Dataset, Features
from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor


def classifying(features: Features, needed_by: str) -> Callable[[Tensor], Tensor]:
    """The features' class logits (N, classes), or a `ComponentError` where they have none."""
    found: Any = getattr(features, "logits", None)
    if found is None:
        raise ComponentError(f"the features {features.name!r} have no class logits, which {needed_by} needs")

    def logits(images: Tensor) -> Tensor:
        given: Tensor = found(images)
        if given.ndim != 2 or len(given) != len(images):
            wanted = f"({len(images)}, classes)"
            raise ComponentError(f"the logits of {features.name!r} are {tuple(given.shape)}, wanted {wanted}")
        return given

    return logits


def class_labels_of(dataset: Dataset) -> Tensor | None:
    """The data set's class labels (N,), or None where its condition is no labels."""
    labels = dataset.condition
    return labels if labels is not None and labels.ndim == 1 and len(labels) else None


def class_count(dataset: Dataset, labels: Tensor) -> int:
    """The number of classes that the data set names, or that its labels show where it names none.

    A split need not have an image of every class, so the names say more than the labels.
    """
    return max(len(getattr(dataset, "classes", ())), int(labels.max()) + 1)
