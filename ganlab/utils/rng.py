"""Random number generators: separate streams by label, and saving and restoring the global state.

Training latents and dropout draw from torch's default generators, the only ones that CUDA graphs advance. Everything
else has its own generator, seeded from the run's seed and a label. Code outside the training step runs in
`preserve_random_state()`, so that sampling and scoring never change the training that follows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ganlab.utils.device import random_state, random_states, set_random_state, set_random_states


def derived_seed(seed: int, *labels: object) -> int:
    """Derives a 63-bit seed from the run's seed and labels; other labels give independent random streams."""
    text = "/".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds the global RNGs of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def global_state(device: torch.device | None = None) -> dict[str, Any]:
    """The global RNG state: that of torch, Python and NumPy, as tensors and JSON values only.

    That of `device`, if it is not the CPU, is in it once more by itself, for a resume on a device of another index.
    """
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": list(map(_tuple_to_list, random.getstate())),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }
    own = None if device is None else random_state(device)
    return state | random_states() | ({} if own is None else {"device": own})


def set_global_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Restores the global RNG state that `global_state` returned, and on `device` that of the device it was of."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    set_random_states(state)
    if device is not None and device.type in state and "device" in state:
        set_random_state(device, state["device"])


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restores the global RNG state after the body, whatever it draws."""
    state = global_state()
    try:
        yield
    finally:
        set_global_state(state)


def _tuple_to_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
