"""Checkpoints: writes and reads folders of safetensors and JSON, never pickle, that are whole or not there.

Decisions:
- A checkpoint is written under a temporary name, hashed, flushed and renamed, so that a crash leaves the previous one.
- `manifest.json` holds a sha256 of every file: otherwise a flipped bit would load silently.
- A state is any nesting of dicts, lists, tuples, numbers, strings and tensors. A part that is a module's `state_dict`
  becomes a safetensors file that other tools can read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ganlab.utils.errors import GanlabError, one_line
from ganlab.utils.files import flush_folder, raise_cannot_write, remove_path
from ganlab.utils.hashing import sha256
from ganlab.utils.state_tree import copies_on_cpu, tensors_with_paths

PATTERN = re.compile(r"step-(\d{8,})")

FORMAT = 1
"""The version of the checkpoint format, in manifest.json."""


class DamagedCheckpoint(GanlabError):
    """A checkpoint whose files do not match its manifest."""

    exit_code = 2


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def list_checkpoints(folder: Path) -> dict[int, Path]:
    """Returns the finished checkpoints in a folder by their step, oldest first."""
    if not folder.is_dir():
        return {}
    found = {int(match[1]): path for path in folder.iterdir() if (match := PATTERN.fullmatch(path.name))}
    return dict(sorted(found.items()))


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Writes a checkpoint of a state below `folder`, replacing an earlier one of that step. Raises CannotWrite."""
    final = folder / folder_name(step)
    temporary = folder / f".{final.name}-{os.getpid()}"
    with raise_cannot_write(final, sum(sizes(state).values())):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            hashes = {}
            skeletons = {}
            for part, value in state.items():
                tensors: dict[str, Tensor] = {}
                skeletons[part] = _pack(value, "", tensors)
                tensors = copies_on_cpu(tensors)
                if tensors:
                    hashes[f"{part}.safetensors"] = _write(temporary / f"{part}.safetensors", save(tensors))
            hashes["state.json"] = _write(temporary / "state.json", json.dumps(skeletons).encode())
            _write(temporary / "manifest.json", json.dumps({"format": FORMAT, "step": step, "sha256": hashes}).encode())
            flush_folder(temporary)
            remove_path(final)
            os.rename(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        flush_folder(folder)
    return final


def sizes(state: Mapping[str, Any]) -> dict[str, int]:
    """Returns the bytes of the tensors in each part of a checkpoint's state."""
    return {part: sum(tensor.nbytes for _, tensor in tensors_with_paths(value, part)) for part, value in state.items()}


def load_checkpoint(path: Path, parts: set[str] | None = None) -> dict[str, Any]:
    """Reads a checkpoint's state, or some parts of it; raises DamagedCheckpoint where a hash does not match."""
    try:
        hashes = _hashes(path, json.loads((path / "manifest.json").read_bytes()))
        data = {
            name: (path / name).read_bytes()
            for name in hashes
            if parts is None or name.removesuffix(".safetensors") in parts or name == "state.json"
        }
    except (OSError, *_MALFORMED) as error:
        raise DamagedCheckpoint(f"{path}: not a whole checkpoint: {one_line(error)}") from None
    for name, content in data.items():
        if sha256(content) != hashes[name]:
            raise DamagedCheckpoint(f"{path / name}: damaged: its sha256 is not the one in manifest.json")
    try:
        skeletons = json.loads(data.pop("state.json"))
        tensors = {name.removesuffix(".safetensors"): load(content) for name, content in data.items()}
        return {
            part: _unpack(skeleton, tensors.get(part, {}))
            for part, skeleton in skeletons.items()
            if parts is None or part in parts
        }
    except _MALFORMED as error:
        raise DamagedCheckpoint(f"{path}: not a ganlab checkpoint: {one_line(error)}") from None


# Errors that JSON of an unexpected form and damaged safetensors have raised; endless nesting is a RecursionError, which
# is a RuntimeError.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)


def _hashes(path: Path, manifest: Any) -> dict[str, str]:
    """Returns the hashes of a checkpoint's files from its manifest; raises ValueError for a manifest it cannot use."""
    if type(manifest["format"]) is not int or manifest["format"] != FORMAT:
        raise ValueError(f"manifest.json: format is {one_line(manifest['format'], 60)}; this ganlab reads {FORMAT}")
    match = PATTERN.fullmatch(path.name)
    if match and (type(manifest["step"]) is not int or manifest["step"] != int(match[1])):
        raise ValueError(f"manifest.json: step is {one_line(manifest['step'], 60)}, not the folder's")
    hashes: dict[str, str] = manifest["sha256"]
    for name in hashes:
        # Only regular files of this folder are opened: no paths elsewhere, and no pipes, which would block.
        if Path(name).name != name or not (path / name).is_file():
            raise ValueError(f"manifest.json: {one_line(name, 60)} is not a file of this folder")
    return hashes


def check_state(state: Any) -> None:
    """Raises TypeError for a state that a checkpoint would not give back; copies no tensor."""
    tensors: dict[str, Tensor] = {}
    _unpack(json.loads(json.dumps(_pack(state, "", tensors))), tensors)


def to_bytes(state: Any) -> bytes:
    """Serialises a nested state as a checkpoint does, but to bytes that another process can read."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_pack(state, "", tensors)).encode()
    return len(skeleton).to_bytes(8, "big") + skeleton + save(copies_on_cpu(tensors))


def from_bytes(data: bytes) -> Any:
    """Deserialises the state of `to_bytes`."""
    end = 8 + int.from_bytes(data[:8], "big")
    return _unpack(json.loads(data[8:end]), load(data[end:]))


def _write(path: Path, data: bytes) -> str:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return sha256(data)


def _pack(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """Splits a state into JSON and `tensors`."""
    if isinstance(value, Tensor):
        name = at or "value"
        while name in tensors:  # {"a": {"b": …}} and {"a.b": …} have one path
            name += "_"
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _pack(item, f"{at}.{key}" if at else str(key), tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        if all(type(item) is int for item in value):
            return {kind: list(value)}
        return {kind: [_pack(item, f"{at}.{index}" if at else str(index), tensors) for index, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values; {at or 'the state'} is a {type(value).__name__}")


def _unpack(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        # JSON has made lists of keys that were tuples.
        return {tuple(key) if isinstance(key, list) and key else key: _unpack(item, tensors) for key, item in content}
    if kind not in ("list", "tuple") or not isinstance(content, list):
        raise ValueError(f"state.json: {one_line(kind, 60)} is not a kind of value")
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
