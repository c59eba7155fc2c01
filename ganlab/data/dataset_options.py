"""Options that data set plugins share (`size`, `seed`), and the check of a split's name."""

from __future__ import annotations

from typing import Any

import attrs

from ganlab.utils.errors import NoSplit


def image_size(default: int) -> Any:
    """The option `size` of a data set: the height and width of the images in pixels."""
    return attrs.field(default=default, validator=[attrs.validators.ge(1), attrs.validators.le(4096)])


def stream_seed() -> Any:
    """The option `seed` of a synthetic data set, in the range of numpy.random.RandomState."""
    return attrs.field(default=0, validator=[attrs.validators.ge(0), attrs.validators.lt(2**32)])


def check_split(name: str, split: str) -> None:
    """Checks the split that a data set plugin is asked for: NoSplit unless it is "train" or "test"."""
    if split not in ("train", "test"):
        raise NoSplit(f"{name}: no split {split!r}; there are 'train' and 'test'")
