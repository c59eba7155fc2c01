"""Moments of a reference, read from an .npz file: the mean `mu` and covariance `sigma` that others publish for FID.

Decisions:
- It is the form in which pytorch-fid, clean-fid, EDM and ADM write them, and `ganlab moments` too. ADM's files also
  have those of spatial features, `mu_s` and `sigma_s`, for sFID. Other arrays are not read; what is no such file is
  refused with what it has. Pickles are not read.
- Nobody can see in a file of whose images and features it is. So the score's protocol has the file's hash: two scores
  are comparable only with the same file.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganlab import ComponentError, file_sha256, one_line

if TYPE_CHECKING:
    from torch import Tensor

Keys = tuple[str, str]

KEYS: Keys = ("mu", "sigma")
"""The arrays of a file of moments that FID reads: mean (d,) and covariance (d, d)."""

SPATIAL_KEYS: Keys = ("mu_s", "sigma_s")
"""Those of spatial features, that sFID reads."""

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def about_moments(path: Path, keys: Keys = KEYS) -> dict[str, Any]:
    """The entry of a score's protocol for a file of moments as the reference: its hash, and which arrays are read."""
    try:
        return {"moments": {"sha256": file_sha256(path), "keys": list(keys)}}
    except OSError as error:
        raise ComponentError(f"moments: {path}: cannot be read ({one_line(error.strerror or error)})") from error


def read_moments(path: Path, of: str, dim: int, keys: Keys = KEYS) -> tuple[Tensor, Tensor]:
    """The mean (d,) and covariance (d, d) of a file of moments, float64, for `dim` features. Raises ComponentError.

    `of` names the features.
    """
    import numpy as np
    import torch

    try:
        if not zipfile.is_zipfile(path):
            path.open("rb").close()
            raise ComponentError(f"moments: {path}: is no .npz file; wanted one with the arrays {' and '.join(keys)}")
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if missing := [key for key in keys if key not in names]:
                has = ", ".join(one_line(name, 30) for name in names[:8])
                raise ComponentError(f"moments: {path}: has no array {missing[0]!r}; it has {has}")
            mean, cov = (torch.from_numpy(np.asarray(arrays[key], dtype=np.float64)) for key in keys)
    except _UNREADABLE as error:
        raise ComponentError(f"moments: {path}: cannot be read as an .npz file ({one_line(error)})") from error
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        shapes = f"{keys[0]} {tuple(mean.shape)} and {keys[1]} {tuple(cov.shape)}"
        raise ComponentError(f"moments: {path}: has {shapes}; wanted (d,) and (d, d)")
    if len(mean) != dim:
        raise ComponentError(f"moments: {path}: is of {len(mean):,} features, and {of} has {dim:,}: it is of others")
    if not (mean.isfinite().all() and cov.isfinite().all()):
        raise ComponentError(f"moments: {path}: has values that are NaN or infinite")
    if not torch.allclose(cov, cov.T, rtol=1e-4, atol=1e-6 * float(cov.abs().max())):
        raise ComponentError(f"moments: {path}: {keys[1]} is not symmetric, and so no covariance")
    return mean, (cov + cov.T) / 2
