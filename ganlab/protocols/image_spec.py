"""`ImageSpec`: the shape and type of the data that networks and games are built for, and what their conditions are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import attrs
from attrs import field, frozen

from ganlab.utils.errors import ComponentError


def _tuple(shape: Any) -> Any:
    """A shape as a tuple, which JSON reads as a list."""
    return None if shape is None else tuple(shape)


@frozen
class ConditionSpec:
    """A network's protocol: what one of several conditions is, as in `ImageSpec.conditions`.

    `shape` is that of one entry: () for class labels, (C, H, W) for images, (K, …) for attributes. `dtype` is "int64"
    for class labels; "uint8" or "uint16" for images, which a network is given in [-1, 1]; "float32" for what it is
    given unchanged. `classes` is how many there are, None unless it is class labels.
    """

    shape: tuple[int, ...] = field(converter=_tuple)
    dtype: str
    classes: int | None = None


@frozen(init=False, repr=False)
class ImageSpec:
    """A network's protocol: the shape and type of the data that it is built for: images, signals, or rows of a table.

    `shape` is that of one image (C, H, W), signal (C, T) or row (D,), and `size` the number of its values. `dtype` is
    the type of the data set: "uint8" and "uint16" are pixels, which networks see and make in [-1, 1]; "float32" is seen
    and made as it is. `range` is the lowest and highest value of float32 data, None where it is unknown.

    `channels`, `height` and `width` are those of images, `channels` also of signals; asked of other data they raise
    ComponentError, which refuses them in one line.

    `classes` is how many there are, None without class labels. `condition_shape` is the shape of a condition that is no
    class label, (C, H, W) for images and (K, …) for attributes, else None; `condition_dtype` is its type. Where the
    data set has several conditions these are None, and `conditions` says what each is, by its name.
    """

    channels: int = field(eq=False)
    height: int = field(eq=False)
    width: int = field(eq=False)
    classes: int | None
    condition_shape: tuple[int, ...] | None
    dtype: str
    condition_dtype: str
    conditions: Mapping[str, ConditionSpec] = field(hash=False)
    range: tuple[float, float] | None
    shape: tuple[int, ...] = field(init=False)

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        classes: int | None = None,
        condition_shape: tuple[int, ...] | None = None,
        *,
        dtype: str = "uint8",
        condition_dtype: str = "uint8",
        conditions: Mapping[str, ConditionSpec] | None = None,
        range: tuple[float, float] | None = None,
    ) -> None:
        """Of images; `of` is for data of any shape."""
        conditions = dict(conditions or {})
        self._fill((channels, height, width), dtype, classes, condition_shape, condition_dtype, conditions, range)

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        dtype: str = "uint8",
        classes: int | None = None,
        condition_shape: tuple[int, ...] | None = None,
        condition_dtype: str = "uint8",
        conditions: Mapping[str, ConditionSpec] | None = None,
        range: tuple[float, float] | None = None,
    ) -> Self:
        """A network's protocol: makes an `ImageSpec` of data of any shape: (C, H, W), (C, T) or (D,)."""
        made = cls.__new__(cls)
        made._fill(shape, dtype, classes, condition_shape, condition_dtype, dict(conditions or {}), range)
        return made

    def _fill(self, shape: Any, dtype: str, classes: int | None, condition: Any, *others: Any) -> None:
        condition_dtype, conditions, limits = others
        values = {
            "shape": tuple(shape),
            "dtype": dtype,
            "classes": classes,
            "condition_shape": _tuple(condition),
            "condition_dtype": condition_dtype,
            "conditions": conditions,
            "range": _tuple(limits),
        }
        if len(values["shape"]) in (2, 3):  # without: see __getattr__
            values["channels"] = values["shape"][0]
        if len(values["shape"]) == 3:
            values["height"], values["width"] = values["shape"][1:]
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in ("channels", "height", "width"):
            raise ComponentError(
                f"is for images (C, H, W), of which it asks the {name}; the data set has {self.in_words}"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"ImageSpec.of({', '.join([str(self.shape), *(f'{k}={v!r}' for k, v in self._more().items())])})"

    def __reduce__(self) -> tuple[Any, ...]:
        more = ("dtype", "classes", "condition_shape", "condition_dtype", "conditions", "range")
        return ImageSpec.of, (self.shape, *(getattr(self, name) for name in more))

    @property
    def size(self) -> int:
        """A network's protocol: how many values an image, a signal or a row has."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """A network's protocol: whether the data are images (C, H, W)."""
        return len(self.shape) == 3

    @property
    def noun(self) -> str:
        """A network's protocol, for messages: what one entry of the data is called."""
        return {1: "row", 2: "signal", 3: "image"}.get(len(self.shape), "entry")

    @property
    def in_words(self) -> str:
        """A network's protocol, for messages: the data's form, type and shape."""
        form = {1: "rows of a table", 2: "signals", 3: "images"}.get(len(self.shape), "data")
        return f"{form}, {self.dtype} (N, {', '.join(map(str, self.shape))})"

    def _more(self) -> dict[str, Any]:
        """What is said of the data besides their shape, where it is not as for most images."""
        usual = {"dtype": "uint8", "classes": None, "condition_shape": None, "condition_dtype": "uint8", "range": None}
        found = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return found | ({"conditions": dict(self.conditions)} if self.conditions else {})

    def record(self) -> dict[str, Any]:
        """A network's protocol: the entry of the data's shape in run.json, from which `recorded` makes it again."""
        form = dict(zip(("channels", "height", "width"), self.shape, strict=True)) if self.is_image else {}
        more = self._more() | {"classes": self.classes, "condition_shape": self.condition_shape}
        if self.conditions:
            more["conditions"] = {name: attrs.asdict(spec) for name, spec in self.conditions.items()}
        return {**(form or {"shape": list(self.shape)}), **more}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Self:
        """A network's protocol: the `ImageSpec` whose `record` this is, as JSON reads it."""
        more = dict(record)
        shape = more.pop("shape", None) or [more.pop(name) for name in ("channels", "height", "width")]
        conditions = {name: ConditionSpec(**spec) for name, spec in more.pop("conditions", {}).items()}
        return cls.of(tuple(shape), conditions=conditions, **more)
