"""Separate streams of randomness, so that looking at a run never changes it.

Training noise (and dropout) draws from torch's default generators: the only ones that CUDA graphs advance. Everything
else has a generator of its own, seeded from the run's seed and a label, and whatever happens beside the step runs under
`untouched()`, which puts the global states back.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.utils.errors import UserError


def derived_seed(seed: int, *labels: object) -> int:
    """A 63-bit seed for one labelled stream; streams with other labels are independent of it."""
    text = "/".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def latents(count: int, latent_dim: int, generator: torch.Generator, truncation: float | None = None) -> Tensor:
    """Standard normal latents (count, latent_dim), drawn on the CPU so that they are the same on every device.

    `truncation` cuts the normal off: every value lies in [-truncation, truncation], as if it were drawn again wherever
    it does not (Brock et al. 2019, arXiv:1809.11096). Of equal generators the one with the smaller truncation gives the
    same values nearer to 0.
    """
    if truncation is None:
        return torch.randn(count, latent_dim, generator=generator)
    # By the inverse of its distribution function, in terms of erf, which is exact near 0 too; what rounds to infinity
    # at the edges is put on them.
    uniform = 2 * torch.rand(count, latent_dim, generator=generator, dtype=torch.float64) - 1
    drawn = math.sqrt(2) * torch.erfinv(uniform * math.erf(truncation / math.sqrt(2)))
    return drawn.clamp_(-truncation, truncation).float()


def check_truncation(truncation: float | None) -> None:
    """Refuses what no normal can be cut off at. Raises UserError."""
    if truncation is not None and not 0 < truncation < math.inf:
        raise UserError(f"--truncation {truncation:g}: expected a finite number above 0, such as 0.5")


def global_state() -> dict[str, Any]:
    """The state of every global generator: tensors and JSON values only."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": list(map(_listed, random.getstate())),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = list(torch.cuda.get_rng_state_all())
    return state


def set_global_state(state: dict[str, Any]) -> None:
    """Puts back what `global_state` gave."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Whatever the body draws from the global generators, they stand afterwards where they stood before."""
    state = global_state()
    try:
        yield
    finally:
        set_global_state(state)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
