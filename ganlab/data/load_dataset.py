"""Loads a data set for training and for scores, and refuses images and conditions of a type that is not supported.

Decisions:
- Data sets are plugins, which may return anything. Values of another type would be truncated, and what is no class
  label would be taken for pixels: so all that the core uses of a data set passes through here.
- `data_problem` and `condition_problem` are the one place that says which types there are.
- Values are converted by the author of a data set, who knows what they mean, and never here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ganlab.data.pixels import DATA_TYPES, HALF_RANGE, type_name, value_range
from ganlab.protocols import Dataset, DatasetConfig, Places, build_dataset, named_conditions
from ganlab.utils.errors import ComponentError, one_line, quote
from ganlab.utils.progress import Progress, no_progress


def load_dataset(config: DatasetConfig, places: Places, split: str, progress: Progress = no_progress) -> Dataset:
    """Loads a split of a data set. Raises ComponentError for images or conditions that nothing can be made of."""
    dataset = build_dataset(config, places, split, progress)
    whose = f"the data set {one_line(dataset.name, 60)!r}, split {split!r}"
    check_data(dataset.images, dataset.condition, whose)
    if problem := weights_problem(getattr(dataset, "weights", None), len(dataset.images)):
        raise ComponentError(f"{whose}: {problem}")
    parts = {"images": dataset.images, **named_conditions(dataset.condition)}
    if found := [f"{whose}: {name}: {problem}" for name, part in parts.items() if (problem := not_finite(part))]:
        raise ComponentError("\n".join(found))
    return dataset


def check_data(images: Any, condition: Any, whose: str) -> None:
    """Checks the types and shapes of the data set that `whose` names on loading; raises ComponentError."""
    problems = [data_problem(images)]
    problems += [] if problems[0] else condition_problems(condition, len(images))
    if found := [f"{whose}: {problem}" for problem in problems if problem]:
        raise ComponentError("\n".join(found))


def weights_problem(weights: Any, count: int) -> str | None:
    """Why these are no weights by which `count` images are drawn, in words, found on loading; None if they are."""
    if weights is None:
        return None
    fits = isinstance(weights, Tensor) and weights.is_floating_point() and weights.shape == (count,)
    if fits and bool((weights.isfinite() & (weights >= 0)).all()) and bool((weights > 0).any()):
        return None
    return f"weights: {described(weights)}; wanted a finite one of at least 0 for each of {count:,} images, not all 0"


def check_same_type(dataset: Dataset, train: Dataset) -> None:
    """Checks on loading that a split's data are of the training split's type and form; raises ComponentError."""
    images, trained = dataset.images, train.images
    if images.dtype != trained.dtype or images.ndim != trained.ndim:
        raise ComponentError(
            f"the data set {one_line(dataset.name, 60)!r}, split {dataset.split!r}: images: {described(images)}; "
            f"those of the split {train.split!r} are {described(trained)}"
        )


def data_problem(images: Any) -> str | None:
    """Why these are no data of a data set, in words, found on loading; None if they are.

    Data are uint8, uint16 or float32, of shape (N, C, H, W), (N, C, T) or (N, D).
    """
    if isinstance(images, Tensor) and images.device.type != "cpu":
        return f"images: on {images.device}; wanted on the CPU: the core copies them to the run's device"
    if isinstance(images, Tensor) and images.dtype in DATA_TYPES and images.ndim in (2, 3, 4):
        return None if images[:1].numel() or not len(images) else f"images: {described(images)}; each has no value"
    return (
        f"images: {described(images)}; wanted uint8, uint16 or float32: images (N, C, H, W), signals (N, C, T), or "
        f"rows of a table (N, D){_advice(images)}"
    )


def _advice(data: Any) -> str:
    """How data of a type that is refused on loading are converted."""
    if not isinstance(data, Tensor):
        return "; torch.from_numpy makes a tensor of a NumPy array"
    if data.dtype in DATA_TYPES:
        return ""
    if data.is_complex():
        return "; .real and .imag are float"
    if data.dtype == torch.bool:
        return "; .float() makes 0 and 1 of them"
    if not data.is_floating_point() and data.numel():
        low, high = value_range(data if data.dtype not in _UNSIGNED else data.double())
        for dtype, half in HALF_RANGE.items():
            if low >= 0 and high <= 2 * half:
                return f"; .to(torch.{type_name(dtype)}) makes pixels of them, .float() values that are never scaled"
    return "; .float() converts them"


_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
"""Types of which torch has no minimum."""


def not_finite(data: Tensor) -> str | None:
    """Whether float data have NaN or infinity among their values, in words, found on loading; None if not."""
    if not data.is_floating_point() or not data.numel():
        return None
    lowest, highest = value_range(data)
    if lowest - lowest == 0 == highest - highest:  # not nan or infinite
        return None
    return f"{type_name(data.dtype)} {tuple(data.shape)} with values that are NaN or infinite; leave these entries out"


def condition_problems(condition: Any, count: int) -> Iterator[str]:
    """Yields on loading why this is no condition of `count` images; it may be several by name."""
    if not isinstance(condition, Mapping):
        if problem := condition_problem(condition, count):
            yield problem
        return
    if not condition:
        yield "condition: a mapping without a tensor; wanted None where there is no condition"
    for name, part in condition.items():
        if not isinstance(name, str) or not name.isidentifier():
            yield f"condition: the name {quote(str(name))}; wanted letters, digits and _"
        elif part is None:
            yield f"condition {name!r}: None; wanted a tensor"
        elif problem := condition_problem(part, count, f"condition {name!r}"):
            yield problem


def condition_problem(condition: Any, count: int, which: str = "condition") -> str | None:
    """Why this is no condition of `count` images, in words, found on loading; None if it is, or if there is none.

    A condition is class labels, int64 (N,) from 0; images, uint8 or uint16 (N, C, H, W); or float32 (N, K, …).
    """
    if condition is None:
        return None
    if isinstance(condition, Tensor) and condition.device.type != "cpu":
        return f"{which}: on {condition.device}; wanted on the CPU: the core copies it to the run's device"
    advice = ""
    if isinstance(condition, Tensor):
        shape = tuple(condition.shape)
        if condition.ndim and len(condition) != count:
            return f"{which}: {len(condition):,} entries for {count:,} images; wanted one for each"
        if condition.dtype in HALF_RANGE and condition.ndim == 4:
            return None
        if condition.dtype == torch.float32 and condition.ndim > 1:
            return None
        if condition.dtype == torch.int64 and condition.ndim == 1:
            lowest = int(condition.min()) if count else 0
            return None if lowest >= 0 else f"{which}: class labels from {lowest}; wanted them from 0"
        if condition.dtype == torch.float32:
            advice = "; [:, None] makes an attribute of each number"
        elif condition.is_floating_point():
            advice = "; .float() converts them"
        elif condition.ndim == 1 and not condition.is_complex():
            advice = "; .long() converts them"
        elif condition.ndim == 2 and shape[1] and _is_one_hot(condition):
            advice = "; .argmax(1) makes class labels of what is one-hot"
        elif condition.ndim > 1 and not condition.is_complex():
            advice = "; .float() makes attributes of them"
    return (
        f"{which}: {described(condition)}; wanted class labels, int64 (N,), images, uint8 or uint16 (N, C, H, W), or "
        f"attributes, float32 (N, K), which are the conditions that are supported{advice}"
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
        if value.dtype in _UNSIGNED:
            value = value.double()
        text += f" from {float(value.min()):.4g} to {float(value.max()):.4g}"
    return text
