"""The disk cache: tensors that are expensive to compute, stored as safetensors files under a hash of their key.

Decisions:
- A cached value is used only if its key and its hash match what the note next to it says.
- Values are read without a lock, since they may lie in a folder that one may only read. Files are written whole, and
  the note after the value, so what is read while another process writes does not match its note.
- A file lock ensures that of several processes only one computes a value. While the others wait they report it, and a
  signal ends the waiting.
"""

from __future__ import annotations

import contextlib
import glob
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab.utils.cache_folder import make_cache_room, note_cache_use
from ganlab.utils.errors import one_line
from ganlab.utils.files import write_whole
from ganlab.utils.hashing import sha256
from ganlab.utils.progress import PAUSE, Progress, no_progress, paced

if TYPE_CHECKING:
    from torch import Tensor


def cached_tensors(
    folder: Path,
    kind: str,
    key: Mapping[str, Any],
    compute: Callable[[], dict[str, Tensor]],
    progress: Progress = no_progress,
) -> dict[str, Tensor]:
    """Returns the tensors of `compute()` from the disk cache, computing and storing them on a miss.

    `key` must be JSON-serialisable and must contain everything that the result depends on. If several processes ask for
    the same value, one computes it and the others wait, which they report to `progress`. A file that is damaged,
    truncated or has another key is recomputed. A cache that may only be read is read. If a value cannot be stored, a
    warning says so and it is computed each time.
    """
    from safetensors.torch import save

    text = json.dumps(key, sort_keys=True)
    path = folder / f"{kind}-{sha256(text.encode())[:32]}.safetensors"
    tensors = _read_cached(path, json.loads(text))
    if tensors is not None:
        note_cache_use(path)
        return tensors
    with cache_lock(path, progress) as problem:
        tensors = _read_cached(path, json.loads(text))  # another process may have computed it meanwhile
        if tensors is None:
            if problem is None:
                _remove_leftovers(path)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
            try:
                data = save(tensors)
                make_cache_room(path, len(data))
                write_whole(path, data)
                write_whole(path.with_suffix(".json"), json.dumps({"key": json.loads(text), "sha256": sha256(data)}))
            except OSError as error:
                warnings.warn(
                    f"{path.name} cannot be stored in {folder} ({one_line(error)}); it will be recomputed next time",
                    stacklevel=2,
                )
        note_cache_use(path)
    return tensors


@contextlib.contextmanager
def cache_lock(path: Path, progress: Progress = no_progress) -> Iterator[Exception | None]:
    """Holds the lock of a cache's file `path` in the body, and yields None, or why it cannot be held.

    It cannot be held where the folder cannot be written to, and on file systems without locks. The body then runs
    without it: it may write files under temporary names that it renames, and removes none of other processes. While
    another process holds the lock, `progress` is called several times a second; what it raises ends the waiting.
    """
    from filelock import FileLock, Timeout

    lock, report, began = FileLock(str(path.with_suffix(".lock"))), paced(progress), time.monotonic()
    problem: Exception | None = None
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PAUSE, poll_interval=PAUSE / 4)
            break
        except Timeout:
            pass
        except (OSError, NotImplementedError) as error:  # NotImplementedError: the file system has no locks
            problem = error
            break
        report(
            f"waiting for {time.monotonic() - began:.0f} s: another process makes {path.parent.name}/{path.name}", 0, 0
        )
    try:
        yield problem
    finally:
        if problem is None:
            lock.release()


def _read_cached(path: Path, key: object) -> dict[str, Tensor] | None:
    """Reads a cache file; returns None if it is missing or damaged, or if its note has another key."""
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
    """Removes temporary files of a cache entry that killed processes left behind; the entry's lock must be held."""
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.*"):
        with contextlib.suppress(OSError):
            leftover.unlink()
