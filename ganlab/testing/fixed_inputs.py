"""The fixed inputs that the conformance checks give to components: image shapes, channels, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab.protocols import ConditionSpec, ImageSpec

Shape = tuple[int, ...]
"""Of an image (C, H, W), a signal (C, T) or a row of a table (D,)."""

IMAGE_SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32))
"""Shapes of images, (C, H, W)."""

OTHER_FORMS: tuple[tuple[Shape, ...], ...] = (((1, 64), (2, 256)), ((8,), (16,)))
"""Shapes of signals (C, T), and of rows of a table (D,): for a component that refuses images."""

ConditionShape = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None
"""() of class labels, or the shape of images or attributes; of several conditions each has a name."""

CHANNELS = (1, 3)

CLASSES = 4
"""How many classes the fixed labels are of."""


def shape_text(shape: Shape) -> str:
    """The shape of fixed input images as the results of checks show it: "3x8x8"."""
    return "x".join(map(str, shape))


def fixed_noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns standard normal noise as a fixed input of checks: the same each time, and from no global generator.

    Without a shape it is a 0-dim tensor.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def condition_shapes(shape: Shape) -> list[ConditionShape]:
    """Returns the forms of a condition, of one image of `shape`, in the order in which fixed inputs try them.

    () is a class label. Of an image then come images (C, H, W): of the same shape, with other channels, with smaller
    sides; of signals and rows come attributes: for a signal in eight times as few positions, such as a spectrogram, a
    few numbers, then two conditions of two numbers each. None is no condition at all.
    """
    if len(shape) != 3:
        return [(), *[(CLASSES, length // 8) for length in shape[1:]], (CLASSES,), {"one": (2,), "other": (2,)}, None]
    channels, height, width = shape
    others = [(count, height, width) for count in CHANNELS if count != channels]
    smaller = [(channels, height // by, width // by) for by in (2, 4)]
    return [(), shape, *others, *smaller, None]


def data_spec(shape: Shape, condition: ConditionShape) -> ImageSpec:
    """Returns what a component is built for in its check: uint8 images, or float32 signals or rows, in [-1, 1].

    It has classes where its condition is class labels; of uint8 images the condition may be such images too.
    """
    image = len(shape) == 3
    form: dict[str, Any] = {} if image else {"dtype": "float32", "range": (-1.0, 1.0)}
    if isinstance(condition, Mapping):
        parts = {name: ConditionSpec(part, "float32") for name, part in condition.items()}
        return ImageSpec.of(shape, conditions=parts, **form)
    if condition and not image:
        form["condition_dtype"] = "float32"
    return ImageSpec.of(shape, classes=CLASSES if condition == () else None, condition_shape=condition or None, **form)


def in_words(shapes: Sequence[Shape]) -> str:
    """The shapes of fixed inputs of one form, for the result of a check: "signals 1x64, 2x256"."""
    form = {1: "rows of a table of", 2: "signals", 3: "images"}[len(shapes[0])]
    return f"{form} {', '.join(map(shape_text, shapes))}"


def fixed_condition(shape: ConditionShape, count: int, dtype: torch.dtype = torch.float32) -> Any:
    """Returns the condition of `count` images as a fixed input: the first ones are the same for every count."""
    if shape is None:
        return None
    if isinstance(shape, Mapping):
        return {name: fixed_condition(part, count, dtype) for name, part in shape.items()}
    if not shape:
        return torch.arange(count) % CLASSES
    return torch.tanh(fixed_noise(max(count, 16), *shape, seed=8, dtype=dtype))[:count]


def condition_in_words(condition: ConditionShape) -> str:
    """What a condition of fixed inputs is, for the result of a check; empty for class labels."""
    if isinstance(condition, Mapping):
        return "several attributes by name"
    return "" if not condition else "images" if len(condition) == 3 else "attributes"
