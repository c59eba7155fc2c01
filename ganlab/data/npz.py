"""Reads images and their conditions from an .npz file, as `ganlab sample` writes it and for `ganlab score`.

Of images the layout is that in which they have the shape of the reference, or the only one with 1 to 4 channels.
Where that does not tell the file is refused: images that are read in the wrong layout have a score too.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.data.load_dataset import condition_problem
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import UserError, one_line

CHANNELS = (1, 2, 3, 4)
"""The numbers of channels that images usually have: grey, grey with alpha, colour, colour with alpha."""

LARGEST_NUMBER = 8
"""Bytes of the largest numbers that torch has; numpy's long double has more."""

NO_ARRAYS = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What numpy and the parsers that it uses raise on a file that is damaged, encrypted or in another format."""


def read_npz(path: Path, reference: Sequence[int] | None = None, dtype: str = "uint8") -> tuple[Tensor, Condition]:
    """Reads the images of an .npz file as uint8 (N, C, H, W), and their conditions.

    They are its array `images`, or the only one that could be: uint8 (N, H, W, C) or (N, C, H, W) in the file.
    `reference` is the shape (C, H, W) of the images that they are to be compared with, or that of a signal (C, T) or of
    a row of a table (D,), and `dtype` the type. Conditions are class labels int64 (N,), of an array `labels` of
    integers, or images like the others or float32 attributes, of an array `condition`, or of several arrays
    `condition.NAME`; None without any. Raises UserError, also where the layout cannot be told.
    """
    sides = 3 if reference is None else len(reference)
    try:
        if not zipfile.is_zipfile(path) and path.is_file():
            raise UserError(f"{path}: is not a whole .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if not names:
                raise UserError(f"{path}: holds no array")
            name = _images_among(path, arrays, dtype, sides + 1)
            array = arrays[name]
            several = [key for key in names if key.startswith("condition.")]
            given = several or [key for key in ("labels", "condition") if key in names and key != name][:1]
            conditions = {key: arrays[key] for key in given}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except NO_ARRAYS as error:
        raise UserError(f"{path}: cannot be read as an .npz file ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):  # what lies in the archive is not an .npy file
        raise UserError(f"{path}: {one_line(name, 60)} is not an array; write the file with numpy.savez")
    if array.dtype != np.dtype(dtype) or array.ndim != sides + 1:
        values = _range_of(array)
        wanted = f"{dtype} (N, {', '.join(map(str, reference or ()))})"
        if sides == 3:
            limits = {"uint8": ", 0 to 255", "uint16": ", 0 to 65535"}.get(dtype, "")
            wanted = f"{dtype}{limits}, (N, height, width, channels) or (N, channels, height, width)"
        raise UserError(f"{path}: {name} is {array.dtype} {array.shape}{values}; wanted {wanted}")
    if dtype == "float32" and not np.isfinite(array).all():
        raise UserError(f"{path}: {name} has values that are NaN or infinite")
    is_first = _is_channels_first(path, array.shape, reference) if sides == 3 else None
    images = _channels_first(array, is_first is not False)
    read = {key: _read_condition(path, key, part, len(images), is_first) for key, part in conditions.items()}
    if several:
        return images, {key.removeprefix("condition."): part for key, part in read.items()}
    return images, next(iter(read.values()), None)


def _images_among(path: Path, arrays: Mapping[str, Any], dtype: str, ndim: int) -> str:
    """The name of the array that holds an .npz file's images: `images`, or the only one that could be."""
    names = [name for name in arrays if name not in ("labels", "condition") and not name.startswith("condition.")]
    if "images" in names or len(names) < 2:
        return "images" if "images" in names else (names or list(arrays))[0]
    found = {name: array for name in names if isinstance(array := arrays[name], np.ndarray)}
    fit = [name for name, array in found.items() if array.dtype == np.dtype(dtype) and array.ndim == ndim]
    if len(fit) != 1:
        held = ", ".join(f"{one_line(name, 60)} {array.dtype} {array.shape}" for name, array in list(found.items())[:8])
        raise UserError(
            f"{path}: holds {len(names)} arrays and none named images: {held}; save the wanted one by this name, as "
            f"numpy.savez(FILE, images=array) does"
        )
    return fit[0]


def check_no_single_array(path: Path) -> None:
    """Refuses an .npy file where an .npz file of images is meant; raises UserError."""
    if path.suffix.lower() == ".npy":
        raise UserError(
            f"{path}: is one array without a name; wanted an .npz file: numpy.savez({path.stem + '.npz'!r}, "
            f"images=numpy.load({path.name!r})) makes one of it"
        )


def _channels_first(array: np.ndarray[Any, Any], is_first: bool) -> Tensor:
    """The images of an .npz file as (N, C, H, W), where they are that already, or (N, H, W, C)."""
    images = torch.from_numpy(array)
    return (images if is_first else images.permute(0, 3, 1, 2)).contiguous()


def _is_channels_first(path: Path, shape: Sequence[int], reference: Sequence[int] | None) -> bool:
    """Whether images of this shape in an .npz file are (N, C, H, W), and not (N, H, W, C); UserError if unknown."""
    first, last = tuple(shape[1:]), (shape[3], *shape[1:3])
    if first == last == (1, 1, 1):
        return True
    wanted = None if reference is None else tuple(reference)
    for is_likely in (lambda images: images == wanted, lambda images: images[0] in CHANNELS):
        if is_likely(first) != is_likely(last):
            return is_likely(first)
    ways = ", ".join(
        f"{name} {channels} channels of {height}x{width}"
        for name, (channels, height, width) in (("channels first they are", first), ("channels last", last))
    )
    instead = "" if wanted is None or wanted == first else f", wanted {wanted[0]} of {wanted[1]}x{wanted[2]}"
    as_array = "" if first == last else "as (N, height, width, channels) of the wanted shape, or "
    raise UserError(
        f"{path}: images of {tuple(shape)} can be read in two layouts: {ways}{instead}; write them {as_array}"
        "as PNG files into a folder"
    )


def _read_condition(path: Path, name: str, array: Any, count: int, is_first: bool | None) -> Tensor:
    """The conditions of an .npz file's images, in the layout of those; raises UserError for what is no condition.

    Of other data than images, where `is_first` is None, condition images are (N, height, width, channels).
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb" or array.dtype.itemsize > LARGEST_NUMBER:
        kind = array.dtype if isinstance(array, np.ndarray) else "no array"
        raise UserError(
            f"{path}: {name} is no condition: {kind}; wanted integers (N,), uint8 (N, height, width, channels), or "
            "float32 (N, K)"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind in "ui" and array.ndim == 1:
        condition = torch.from_numpy(array.astype(np.int64))
    elif array.dtype in (np.uint8, np.uint16, np.float32) and array.ndim == 4:
        condition = _channels_first(array, bool(is_first))
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
