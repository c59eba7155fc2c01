"""ganlab.utils.cache."""

from __future__ import annotations

import contextlib
import glob
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab.utils.errors import one_line
from ganlab.utils.hashing import sha256

if TYPE_CHECKING:
    from torch import Tensor
from ganlab.utils.files import write_whole


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
