"""The processes that torchrun starts for one job: which one this is, and rows put together from all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the other processes, where torchrun started this one, and gives this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; the first one writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(count: int) -> tuple[int, int]:
    """The part of `count` things that is this process's: from the first number to before the second."""
    return count * rank() // world(), count * (rank() + 1) // world()


def gathered(rows: Tensor) -> Tensor:
    """The rows (n, …) of every process in the order of their ranks; n need not be the same. Every process must call."""
    if world() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world())]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
