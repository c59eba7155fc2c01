"""Reads images from an .npz file, as for `ganlab score`."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlab.utils.errors import UserError, one_line

# What numpy and the parsers that it uses raise on a file that is damaged, encrypted or in another format.
_NO_ARRAYS = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_npz(path: Path) -> Tensor:
    """Reads the images of an .npz file: its array `images`, or the first, uint8 (N, H, W, C), as uint8 (N, C, H, W)."""
    try:
        if not zipfile.is_zipfile(path) and path.is_file():
            raise UserError(f"{path}: is no whole .npz file; write one with numpy.savez")
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
    if not isinstance(array, np.ndarray):  # what lies in the archive is no .npy file
        raise UserError(f"{path}: {one_line(name, 60)} is no array; write the file with numpy.savez")
    if array.dtype != np.uint8 or array.ndim != 4:
        raise UserError(f"{path}: {name} is {array.dtype} {array.shape}; wanted uint8 (N, height, width, channels)")
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
