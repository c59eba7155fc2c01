"""Pretrained networks, for feature extractors and warm starts: reads weights files without running code in them.

Feature extractors compute in full float32: a score then depends on the weights alone, not on the training's precision.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab.utils.errors import ComponentError, error_text, one_line
from ganlab.utils.hashing import file_sha256
from ganlab.utils.paths import expand_home

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError, struct.error),
)
"""Errors that torch.load raises, or may, for truncated or damaged files."""


_noted: ContextVar[dict[str, str] | None] = ContextVar("weights files that were read", default=None)


@contextlib.contextmanager
def noted_weights() -> Iterator[dict[str, str]]:
    """Notes which weights files of pretrained networks are read in the body: their hashes by absolute path."""
    files: dict[str, str] = {}
    token = _noted.set(files)
    try:
        yield files
    finally:
        _noted.reset(token)


def note_weights(path: Path) -> None:
    """Notes a weights file that is read, where `noted_weights` asks for it."""
    files = _noted.get()
    if files is not None:
        files[str(path.absolute())] = file_sha256(path)


def read_weights(path: Path, nested: bool = False) -> dict[str, Tensor]:
    """Reads the named tensors of a pretrained network's weights file, at least one, without running any code in it.

    With `nested` it may be a checkpoint: a dictionary that also has state_dicts of networks, whose names come before
    those of their tensors, and other things, which are left out. The hash of a file that is read to initialise a
    network is in run.json (`initialised`).
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        there = path.is_file()
    except OSError as error:  # such as a name that is too long, or a failing disk
        raise ComponentError(f"weights: {one_line(repr(str(path)), 60)} cannot be read ({error.strerror})") from error
    if not there:
        raise ComponentError(f"there is no weights file {one_line(path)}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # which is refused if it matters
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ComponentError(
            f"{path} was refused: a weights file must hold tensors only, and no code; where it is from, save "
            "network.state_dict() alone with torch.save"
        ) from error
    except (*UNREADABLE, SafetensorError) as error:
        raise ComponentError(
            f"{path} cannot be read as a weights file: {error_text(error)}; wanted .safetensors, "
            "or what torch.save makes of a state_dict"
        ) from error
    found = _state_dicts(found) if nested else found
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items())
    ):
        raise ComponentError(f"{path} must hold a dictionary of named tensors (a state_dict)")
    note_weights(path)
    return dict(found)


def _state_dicts(found: Any) -> Any:
    """The tensors of a checkpoint of pretrained networks, by the names of networks and tensors."""
    import torch

    if not isinstance(found, dict) or all(isinstance(value, torch.Tensor) for value in found.values()):
        return found
    own = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    inner = {name: _state_dicts(value) for name, value in found.items() if isinstance(value, dict)}
    inner = {name: value for name, value in inner.items() if value and all(isinstance(key, str) for key in value)}
    return own | {f"{name}.{key}": tensor for name, part in inner.items() for key, tensor in part.items()}


def load_weights(network: nn.Module, weights: str | Path, partly: bool = False) -> None:
    """Loads a weights file, of an earlier run or pretrained, into a network in place: for `initialise`.

    With `partly` the file may hold more than the network does, such as later layers. Raises `ComponentError` for a file
    that cannot be read, or that does not fit.
    """
    path = expand_home(weights)
    found, own = read_weights(path), network.state_dict()
    problems = []
    if missing := [name for name in own if name not in found]:
        problems.append(f"it has no {_listed(missing)}, and holds {_listed(list(found))}")
    if not partly and (more := [name for name in found if name not in own]):
        problems.append(f"the network has no {_listed(more)}")
    for name in [name for name in own if name in found and found[name].shape != own[name].shape][:1]:
        problems.append(f"{name} is {tuple(found[name].shape)}, and the network's is {tuple(own[name].shape)}")
    if problems:
        raise ComponentError(f"{path} does not fit: {'; '.join(problems)}")
    try:
        network.load_state_dict({name: tensor for name, tensor in found.items() if name in own})
    except RuntimeError as error:
        raise ComponentError(f"{path} does not fit: {one_line(error, limit=300)}") from error


def _listed(names: list[str]) -> str:
    """Names of a network's tensors in words, few of many."""
    shown = ", ".join(one_line(name, 80) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Runs a pretrained network in full float32: TensorFloat-32 and autocast are off in the body, then restored."""
    import torch

    backends: Any = torch.backends
    settings = (backends.cudnn.conv, backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
