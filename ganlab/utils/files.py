"""Atomic file writes, removal of files and folders, and checks for disk space.

Every write goes to a temporary file in the same folder, which is flushed to disk and renamed: after a crash there is
either the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ganlab.utils.errors import CannotWrite, UserError, printable


def file_state(found: os.stat_result) -> str:
    """The state of a file, as text: another one where its content may have changed, without reading it.

    It is made of the length, the modification time, the time of the last change (ctime) and the inode. An archive that
    is unpacked over a folder restores names, lengths and modification times; ctime and inode cannot be restored. A file
    that was copied or moved, or whose mode was changed, has another state too.
    """
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def flush_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk (fsync); before that a rename may be lost in a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(option: str, path: Path, ending: str) -> None:
    """Raises UserError where no file of this ending can be written to `path`, before the work that is written there."""
    if path.suffix.lower() != ending:
        raise UserError(f"{option} {path}: expected FILE{ending}")
    check_no_folder(option, path, f"FILE{ending}")


def check_no_folder(option: str, path: Path, expected: str = "a file") -> None:
    """Raises UserError where a file is to be written and `path` is a folder, or below a file."""
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; expected {expected}")
    check_parents(option, path)


def check_parents(option: str, path: Path) -> None:
    """Raises UserError where a file or folder that is to be written would be below a file."""
    if file := next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None):
        raise UserError(f"{option} {path}: {file} is not a folder")


@contextmanager
def raise_cannot_write(path: Path, size: int) -> Iterator[None]:
    """For writing files: turns an OSError in the body into CannotWrite, whose message has the path, size and reason."""
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
    """Removes a file, a link, or a folder with its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_disk_space(folder: Path, sizes: Mapping[str, int]) -> None:
    """Raises CannotWrite if files of these sizes (bytes) do not fit on the disk of `folder`; leaves no file behind."""
    temporary = folder / f".room-{os.getpid()}"
    with raise_cannot_write(folder, sum(sizes.values())):
        temporary.mkdir(parents=True)
        try:
            for name, size in sizes.items():
                with (temporary / name).open("wb") as stream:
                    if size and hasattr(os, "posix_fallocate"):  # not on macOS, where the write itself would fail
                        os.posix_fallocate(stream.fileno(), 0, size)
        finally:
            shutil.rmtree(temporary)


@contextmanager
def whole_file(path: Path, size: int) -> Iterator[BinaryIO]:
    """Writes a file atomically in parts: the body writes to a temporary file, which is flushed and renamed after it.

    `size` in bytes, if only about, is for the message of CannotWrite.
    """
    with raise_cannot_write(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        flush_folder(path.parent)


def write_whole(path: Path, data: bytes | str) -> None:
    """Writes a file atomically: temporary file, fsync, rename. Raises CannotWrite.

    A text is written as UTF-8; bytes of a file name in it that are none are written as `\\xe9`.
    """
    content = printable(data).encode() if isinstance(data, str) else data
    with whole_file(path, len(content)) as stream:
        stream.write(content)


def check_room(path: Path, size: int, files: int = 1) -> None:
    """Raises CannotWrite if `files` files of `size` bytes together do not fit on the disk that `path` will be on."""
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
    with raise_cannot_write(path, size):
        free = os.statvfs(folder)
        if size > free.f_bavail * free.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if free.f_files and files > free.f_favail:
            raise OSError(errno.ENOSPC, f"its disk has room for {free.f_favail:,} more files, wanted {files:,}")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Writes a folder atomically: the body fills one under a temporary name, which takes its place or is removed.

    `path` may be an empty folder. A link to one, and a mount point, cannot be replaced: the files move into them, one
    after another. Raises CannotWrite.
    """
    stays = path.is_symlink() or path.is_mount()
    with raise_cannot_write(path, 0):
        parent = path if stays else path.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{path.name}."))
    try:
        folder = temporary / "made"
        folder.mkdir()  # with the usual mode, which that of mkdtemp is not
        yield folder
        with raise_cannot_write(path, 0):
            for made, place in [(item, path / item.name) for item in folder.iterdir()] if stays else [(folder, path)]:
                os.replace(made, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
