"""Reads images and their conditions from an .npz file, as `ganlab sample` writes it and for `ganlab score`."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.data.load_dataset import condition_problem
from ganlab.utils.errors import UserError, one_line

# What numpy and the parsers that it uses raise on a file that is damaged, encrypted or in another format.
_NO_ARRAYS = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_npz(path: Path, channels: int = 3) -> tuple[Tensor, Tensor | None]:
    """Reads the images of an .npz file, its array `images` or the first, as uint8 (N, C, H, W), and their conditions.

    They are uint8 (N, H, W, C), or (N, C, H, W) if only the second axis can be that of channels: there are 1 or 3 of
    them, or as many as `channels`. Conditions are class labels int64 (N,), of an array `labels` of integers, or images
    like the others, of an array `condition`; None without either. Raises UserError.
    """
    try:
        if not zipfile.is_zipfile(path) and path.is_file():
            raise UserError(f"{path}: is no whole .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if not names:
                raise UserError(f"{path}: holds no array")
            name = "images" if "images" in names else names[0]
            array = arrays[name]
            given = next((key for key in ("labels", "condition") if key in names and key != name), None)
            condition = None if given is None else arrays[given]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _NO_ARRAYS as error:
        raise UserError(f"{path}: cannot be read as an .npz file ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):  # what lies in the archive is no .npy file
        raise UserError(f"{path}: {one_line(name, 60)} is no array; write the file with numpy.savez")
    if array.dtype != np.uint8 or array.ndim != 4:
        values = _range_of(array)
        raise UserError(
            f"{path}: {name} is {array.dtype} {array.shape}{values}; wanted uint8, 0 to 255, (N, height, width, "
            "channels) or (N, channels, height, width)"
        )
    images = _channels_first(array, {1, 3, channels})
    return images, None if given is None else _read_condition(path, given, condition, len(images))


def _channels_first(array: np.ndarray[Any, Any], known: Collection[int]) -> Tensor:
    """The images of an .npz file as (N, C, H, W), where C is one of the `known` numbers of channels."""
    images = torch.from_numpy(array)
    if array.shape[1] in known and array.shape[3] not in known:
        return images.contiguous()
    return images.permute(0, 3, 1, 2).contiguous()


def _read_condition(path: Path, name: str, array: Any, count: int) -> Tensor:
    """The conditions of an .npz file's images; raises UserError for what is no condition."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb":
        kind = array.dtype if isinstance(array, np.ndarray) else "no array"
        raise UserError(
            f"{path}: {name} is no condition: {kind}; wanted integers (N,), or uint8 (N, height, width, channels)"
        )
    if array.dtype.kind in "ui" and array.ndim == 1:
        condition = torch.from_numpy(array.astype(np.int64))
    elif array.dtype == np.uint8 and array.ndim == 4:
        condition = _channels_first(array, {1, 3})
    else:
        condition = torch.from_numpy(array)
    if problem := condition_problem(condition, count):
        raise UserError(f"{path}: {name} is no {problem}")
    return condition


def _range_of(array: np.ndarray[Any, Any]) -> str:
    """The range of an .npz file's numbers in words: it shows how they would have to be scaled to 0 to 255."""
    if not array.size or array.dtype.kind not in "uif":
        return ""
    return f" from {array.min():.4g} to {array.max():.4g}"
