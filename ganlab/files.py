"""Writing files so that a reader never meets half of one, and keeping what is costly to compute.

Every write goes to a temporary name in the same folder, is flushed to the disk and renamed: after a crash there is the
old file or the new one. A cached value is trusted only when its key and its hash are what they should be.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from ganlab.errors import CannotWrite, one_line
from ganlab.protocols import Places

if TYPE_CHECKING:
    from torch import Tensor


def places() -> Places:
    """`$GANLAB_DATA` and `$GANLAB_CACHE`, else folders in the user's cache folder."""
    try:
        home = Path(platformdirs.user_cache_dir("ganlab"))
    except RuntimeError:
        home = Path("~")
    if not home.is_absolute():  # a user without a home, as in some containers; earlier platformdirs just say "~"
        home = Path(tempfile.gettempdir()) / f"ganlab-{os.getuid()}"
    data, cache = os.environ.get("GANLAB_DATA"), os.environ.get("GANLAB_CACHE")
    return Places(
        Path(data).expanduser() if data else home / "data", Path(cache).expanduser() if cache else home / "cache"
    )


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """One hash of named tensors: names, types, shapes and bytes, whatever order they come in."""
    import torch  # this module is imported where torch must not be

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def flush_folder(folder: Path) -> None:
    """Asks the disk to remember the names in a folder (a rename is not safe before)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path, size: int) -> Iterator[None]:
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


def remove(path: Path) -> None:
    """Removes a folder with all in it, or whatever else lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_room(folder: Path, sizes: Mapping[str, int]) -> None:
    """Raises CannotWrite where files of these sizes cannot be written to `folder`; leaves nothing there."""
    temporary = folder / f".room-{os.getpid()}"
    with writing(folder, sum(sizes.values())):
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
    with writing(path, len(content)):
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


def cached_tensors(
    folder: Path, kind: str, key: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that `compute` gives, kept on disk under everything that they depend on.

    `key` must be JSON and must name all that the result depends on. Of several processes that want the same value at
    once, one computes and the others wait. A file that is damaged, cut short or of another key is computed again.
    Where nothing can be kept, a warning says so, and the value is computed each time.
    """
    from filelock import FileLock
    from safetensors.torch import save

    text = json.dumps(key, sort_keys=True)
    path = folder / f"{kind}-{sha256(text.encode())[:32]}.safetensors"
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(str(path.with_suffix(".lock"))))
            problem = None
        except (OSError, NotImplementedError) as error:  # the second where a file system has no locks
            problem = error
        tensors = _cached(path, json.loads(text))
        if tensors is None:
            if problem is None:
                _remove_leftovers(path)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
            try:
                if problem is not None:
                    raise problem
                data = save(tensors)
                write_whole(path, data)
                write_whole(path.with_suffix(".json"), json.dumps({"key": json.loads(text), "sha256": sha256(data)}))
            except (OSError, NotImplementedError) as error:
                warnings.warn(
                    f"{path.name} cannot be kept in {folder} ({one_line(error)}); it is computed again next time",
                    stacklevel=2,
                )
    return tensors


def _cached(path: Path, key: object) -> dict[str, Tensor] | None:
    """The tensors of a file, or None where it is not there, is damaged, or its note is of another key."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        note = json.loads(path.with_suffix(".json").read_bytes())
        if not isinstance(note, dict) or note.get("key") != key or note.get("sha256") != sha256(data):
            return None
        return load(data)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None


def _remove_leftovers(path: Path) -> None:
    """Removes what processes that were killed in `write_whole` left of a file and its note; its lock must be held."""
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.*"):
        with contextlib.suppress(OSError):
            leftover.unlink()
