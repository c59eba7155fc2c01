"""Latents that images are sampled from, drawn with a generator of their own, and the truncation of their normal."""

from __future__ import annotations

import math
import numbers
import sys

import torch
from torch import Tensor

from ganlab.utils.errors import UserError, quote


def latents(count: int, latent_dim: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
    """Draws latents on the CPU: standard normal (count, latent_dim), the same on every device.

    `truncation` gives a truncated normal: every value lies in [-truncation, truncation], as if values outside were
    redrawn (Brock et al. 2019, arXiv:1809.11096). With the same generator state, a smaller truncation gives the same
    latents closer to 0.
    """
    if truncation is None:
        return torch.randn(count, latent_dim, generator=generator)
    # The inverse of the truncated normal's CDF, written with erf, which is accurate near 0 too. Values at the edges can
    # round to infinity and are clamped.
    uniform = 2 * torch.rand(count, latent_dim, generator=generator, dtype=torch.float64) - 1
    drawn = math.sqrt(2) * torch.erfinv(uniform * math.erf(truncation / math.sqrt(2)))
    return drawn.clamp_(-truncation, truncation).float()


def check_truncation(truncation: float | None) -> None:
    """Checks the truncation of latents (`--truncation`): UserError unless it is a finite number above 0."""
    if truncation is None:
        return
    is_number = isinstance(truncation, numbers.Real) and not isinstance(truncation, bool)
    if not is_number or not 0 < truncation < sys.float_info.max:
        shown = f"{truncation:g}" if isinstance(truncation, float) else quote(truncation)
        raise UserError(f"--truncation {shown}: expected a finite number above 0, such as 0.5")
