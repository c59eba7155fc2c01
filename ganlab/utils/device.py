"""The torch device: what `--device auto`, `cpu` and `cuda` select, and its name."""

from __future__ import annotations

import torch

from ganlab.utils.errors import UserError


def pick_device(wanted: str) -> torch.device:
    """Returns the torch device for `--device`: "auto" is CUDA if available. Raises UserError if CUDA is missing."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu or auto")
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
