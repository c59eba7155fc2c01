"""Class labels of the images that a metric of a game's outputs scores."""

from __future__ import annotations

from ganlab import ComponentError, Evaluation, class_labels_of


def highest_label(evaluation: Evaluation, split: str) -> int:
    """The highest class label of a split, for metrics; raises `ComponentError` for data without labels."""
    dataset = evaluation.dataset(split)
    labels = class_labels_of(dataset)
    if labels is None:
        raise ComponentError(f"{dataset.name} ({dataset.split}) has no class labels")
    return int(labels.max())
