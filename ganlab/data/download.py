"""Downloading data sets: a lock against concurrent downloads, and errors that say how to download by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from ganlab.utils.errors import ComponentError, one_line


@contextmanager
def downloading(name: str, folder: Path, by_hand: str, *refusals: type[Exception]) -> Iterator[None]:
    """Context manager for a data set's download: one process at a time; failures become a `ComponentError`.

    `by_hand` names the files that the user can download instead; `refusals` are the downloader's own exceptions.
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
