"""Writing files so that a reader never meets half of one, and keeping what is costly to compute.

Every write goes to a temporary name in the same folder, is flushed to the disk and renamed: after a crash there is the
old file or the new one. A cached value is trusted only when its key and its hash are what they should be.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ganlab.utils.errors import CannotWrite

if TYPE_CHECKING:
    pass


def flush_folder(folder: Path) -> None:
    """Asks the disk to remember the names in a folder (a rename is not safe before)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def raise_cannot_write(path: Path, size: int) -> Iterator[None]:
    """What keeps the body from writing `size` bytes to `path` becomes CannotWrite: the path, the size, the reason."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CannotWrite):
            raise
        reason = error.strerror or str(error)
        free = _free_beside(path) if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise CannotWrite(f"{path}: {size:,} bytes cannot be written: {reason}{free}") from error


def _free_beside(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), None)
    return f"; {shutil.disk_usage(folder).free:,} bytes are free on its disk" if folder else ""


def remove_path(path: Path) -> None:
    """Removes a folder with all in it, or whatever else lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_disk_space(folder: Path, sizes: Mapping[str, int]) -> None:
    """Raises CannotWrite where files of these sizes cannot be written to `folder`; leaves nothing there."""
    temporary = folder / f".room-{os.getpid()}"
    with raise_cannot_write(folder, sum(sizes.values())):
        temporary.mkdir(parents=True)
        try:
            for name, size in sizes.items():
                with (temporary / name).open("wb") as stream:
                    if size and hasattr(os, "posix_fallocate"):  # macOS has none, and finds out later
                        os.posix_fallocate(stream.fileno(), 0, size)
        finally:
            shutil.rmtree(temporary)


def write_whole(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all. Raises CannotWrite."""
    content = data.encode() if isinstance(data, str) else data
    with raise_cannot_write(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        flush_folder(path.parent)
