"""The torch device: what `--device auto`, `cpu` and `cuda` select, and its name."""

from __future__ import annotations

import torch

from ganlab.utils.errors import UserError, counted, quote


def pick_device(wanted: str) -> torch.device:
    """Returns the torch device for `--device`: "auto" is CUDA if available, "cuda:1" the second CUDA device.

    Raises UserError for what is no device, and if CUDA is missing.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError):
        raise UserError(f"--device {quote(wanted)}: expected auto, cpu or cuda") from None
    if device.type == "cuda" and (device.index or 0) >= (known := torch.cuda.device_count()):
        there = counted(known, "CUDA device") if known else "no CUDA device"
        raise UserError(f"--device {device}: torch finds {there} here; use --device cpu or auto")
    return device


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
