"""Reads images from an .npz file, as for `ganlab score`."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.utils.errors import UserError, one_line

# What numpy and the parsers that it uses raise on a file that is damaged, encrypted or in another format.
_NO_ARRAYS = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_npz(path: Path, channels: int = 3) -> Tensor:
    """Reads the images of an .npz file: its array `images`, or the first, as uint8 (N, C, H, W).

    They are uint8 (N, H, W, C), or (N, C, H, W) if only the second axis can be that of channels: there are 1 or 3 of
    them, or as many as `channels`. Raises UserError.
    """
    try:
        if not zipfile.is_zipfile(path) and path.is_file():
            raise UserError(f"{path}: is not a whole .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if not names:
                raise UserError(f"{path}: holds no array")
            name = "images" if "images" in names else names[0]
            array = arrays[name]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _NO_ARRAYS as error:
        raise UserError(f"{path}: cannot be read as an .npz file ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):  # what lies in the archive is not an .npy file
        raise UserError(f"{path}: {one_line(name, 60)} is not an array; write the file with numpy.savez")
    if array.dtype != np.uint8 or array.ndim != 4:
        values = _range_of(array)
        raise UserError(
            f"{path}: {name} is {array.dtype} {array.shape}{values}; wanted uint8, 0 to 255, (N, height, width, "
            "channels) or (N, channels, height, width)"
        )
    images = torch.from_numpy(array)
    known = {1, 3, channels}
    if array.shape[1] in known and array.shape[3] not in known:
        return images.contiguous()
    return images.permute(0, 3, 1, 2).contiguous()


def _range_of(array: np.ndarray[Any, Any]) -> str:
    """The range of an .npz file's numbers in words: it shows how they would have to be scaled to 0 to 255."""
    if not array.size or array.dtype.kind not in "uif":
        return ""
    return f" from {array.min():.4g} to {array.max():.4g}"
