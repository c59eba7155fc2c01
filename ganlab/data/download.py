"""ganlab.data.download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from ganlab.utils.errors import ComponentError, one_line


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
