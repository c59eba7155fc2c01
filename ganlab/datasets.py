"""What data sets share, bundled ones and yours: options, a check, and how a failed download is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import attrs

from ganlab.errors import ComponentError, one_line


def image_size(default: int) -> Any:
    """The option `size`: the height and width of the images in pixels."""
    return attrs.field(default=default, validator=[attrs.validators.ge(1), attrs.validators.le(4096)])


def stream_seed() -> Any:
    """The option `seed` of a data set that is drawn at random: what numpy.random.RandomState takes."""
    return attrs.field(default=0, validator=[attrs.validators.ge(0), attrs.validators.lt(2**32)])


def check_split(name: str, split: str) -> None:
    """Refuses every split but "train" and "test"."""
    if split not in ("train", "test"):
        raise ComponentError(f"{name}: no split {split!r}; there are 'train' and 'test'")


@contextmanager
def downloading(name: str, folder: Path, by_hand: str, *refusals: type[Exception]) -> Iterator[None]:
    """Lets one process at a time download into `folder`, and turns a failure into a `ComponentError`.

    `by_hand` says which files would do instead; `refusals` are errors of the downloader's own.
    """
    from filelock import FileLock

    failures: tuple[type[Exception], ...] = (OSError, RuntimeError, HTTPException, *refusals)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / f".{name}.lock")):
            yield
    except failures as error:
        raise ComponentError(
            f"{name}: could not be downloaded to {folder} ({one_line(error)}); "
            f"its files can be put there by hand: {by_hand}"
        ) from error
