"""Loads a data set for training and for scores, and refuses images and conditions of a type that is not supported.

Decisions:
- Data sets are plugins, which may return anything. Pixels of another type would be truncated, and what is no class
  label would be taken for pixels: so all that the core uses of a data set passes through here.
- `image_problem` and `condition_problem` are the one place that says which types there are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganlab.protocols import Dataset, DatasetConfig, Places, build_dataset
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.progress import Progress, no_progress


class UnsupportedData(ComponentError):
    """The error class for a data set whose images or conditions are of a type that is not supported."""


def load_dataset(config: DatasetConfig, places: Places, split: str, progress: Progress = no_progress) -> Dataset:
    """Loads a split of a data set. Raises UnsupportedData for images or conditions that nothing can be made of."""
    dataset = build_dataset(config, places, split, progress)
    check_data(dataset.images, dataset.condition, f"the data set {one_line(dataset.name, 60)!r}, split {split!r}")
    return dataset


def check_data(images: Any, condition: Any, whose: str) -> None:
    """Checks the images and the conditions of the data set that `whose` names; raises UnsupportedData."""
    problems = [image_problem(images)]
    problems.append(None if problems[0] else condition_problem(condition, len(images)))
    if found := [f"{whose}: {problem}" for problem in problems if problem]:
        raise UnsupportedData("\n".join(found))


def image_problem(images: Any) -> str | None:
    """Why these are no images of a data set, uint8 (N, C, H, W), in words; None if they are."""
    if isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4:
        return None
    advice = ""
    if isinstance(images, Tensor) and images.ndim == 4:
        advice = "; scale the pixels to 0 to 255 and round them"
        if images.is_floating_point() and images.numel() and -1 <= float(images.min()) < 0 and float(images.max()) <= 1:
            advice = "; ganlab.to_uint8 converts pixels in [-1, 1]"
    return f"images: {described(images)}; wanted uint8 (N, C, H, W), 0 to 255{advice}"


def condition_problem(condition: Any, count: int) -> str | None:
    """Why this is no condition of `count` images, in words; None if it is, or if there is none.

    A condition is class labels, int64 (N,) from 0, or images, uint8 (N, C, H, W).
    """
    if condition is None:
        return None
    advice = ""
    if isinstance(condition, Tensor):
        shape = tuple(condition.shape)
        if condition.ndim and len(condition) != count:
            return f"condition: {len(condition):,} entries for {count:,} images; wanted one for each"
        if condition.dtype == torch.uint8 and condition.ndim == 4:
            return None
        if condition.dtype == torch.int64 and condition.ndim == 1:
            lowest = int(condition.min()) if count else 0
            return None if lowest >= 0 else f"condition: class labels from {lowest}; wanted them from 0"
        if condition.ndim == 1 and not condition.is_floating_point() and not condition.is_complex():
            advice = "; .long() converts them"
        elif condition.ndim == 2 and shape[1] and _is_one_hot(condition):
            advice = "; .argmax(1) makes class labels of what is one-hot"
    return (
        f"condition: {described(condition)}; wanted class labels, int64 (N,), or images, uint8 (N, C, H, W), which are "
        f"the conditions that are supported{advice}"
    )


def _is_one_hot(condition: Tensor) -> bool:
    """Whether each row of a condition (N, K) is one-hot."""
    return bool(((condition == 0) | (condition == 1)).all()) and bool((condition != 0).sum(1).eq(1).all())


def described(value: Any) -> str:
    """For errors on loading: the type and shape of a value, and the range of the numbers in a tensor."""
    if not isinstance(value, Tensor):
        return f"{type(value).__module__}.{type(value).__qualname__}"
    text = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.numel() and not value.is_complex() and value.dtype != torch.bool:
        if value.dtype in (torch.uint16, torch.uint32, torch.uint64):  # of which torch has no minimum
            value = value.double()
        text += f" from {float(value.min()):.4g} to {float(value.max()):.4g}"
    return text
