"""The disk cache: tensors that are expensive to compute, stored as safetensors files under a hash of their key.

A cached value is used only if its key and its hash match what the note next to it says. A file lock ensures that of
several processes only one computes a value.
"""

from __future__ import annotations

import contextlib
import glob
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab.utils.cache_folder import make_cache_room, note_cache_use
from ganlab.utils.errors import one_line
from ganlab.utils.files import write_whole
from ganlab.utils.hashing import sha256

if TYPE_CHECKING:
    from torch import Tensor


def cached_tensors(
    folder: Path, kind: str, key: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Returns the tensors of `compute()` from the disk cache, computing and storing them on a miss.

    `key` must be JSON-serialisable and must contain everything that the result depends on. If several processes ask for
    the same value, one computes it and the others wait. A file that is damaged, truncated or has another key is
    recomputed. If the cache folder cannot be written, a warning says so and the value is computed each time.
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
        except (OSError, NotImplementedError) as error:  # NotImplementedError: the file system has no locks
            problem = error
        tensors = _read_cached(path, json.loads(text))
        if tensors is None:
            if problem is None:
                _remove_leftovers(path)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
            try:
                if problem is not None:
                    raise problem
                data = save(tensors)
                make_cache_room(path, len(data))
                write_whole(path, data)
                write_whole(path.with_suffix(".json"), json.dumps({"key": json.loads(text), "sha256": sha256(data)}))
            except (OSError, NotImplementedError) as error:
                warnings.warn(
                    f"{path.name} cannot be stored in {folder} ({one_line(error)}); it will be recomputed next time",
                    stacklevel=2,
                )
        note_cache_use(path)
    return tensors


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
