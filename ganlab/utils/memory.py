"""How much memory is free, and work on many rows that is halved where it runs out, and goes on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")

WORDS = ("allocate memory", "Storage size calculation overflowed")
"""What torch says on the CPU where memory runs out, or where it could not even be counted."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a class of its own on CUDA, the words of a RuntimeError on the CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken now: of the device on CUDA, else of this machine, less where a cgroup allows less.

    What the system only keeps in case it is read again counts as free. 0 where the system does not tell.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = (line.split() for line in (PROC / "meminfo").read_text().splitlines())
        free = next(1024 * int(line[1]) for line in lines if line[0] == "MemAvailable:")
    except (OSError, StopIteration):
        try:
            # What is free is not told everywhere, but how much there is.
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return 0
    return max(0, min([free, *_left_in_cgroups()]))


def _left_in_cgroups() -> Iterator[int]:
    """What each memory limit that this process is under leaves, in bytes."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, usage, kept = CGROUPS, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            mount, limit, usage, kept = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        # In a container the path may be one outside, and the container's own group lie at the mount.
        here = mount / path.strip("/")
        for group in (here, *(parent for parent in here.parents if parent.is_relative_to(mount))):
            try:
                most = int((group / limit).read_text())
                used = int((group / usage).read_text())
                entries = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group, or "max": no limit
                continue
            files = sum(int(entries.get(f"{kept}{name}", 0)) for name in ("active_file", "inactive_file"))
            yield most - used + min(files, used)


@define
class FittingBatches:
    """Calls a function on rows (N, …) by batches of `size` and puts the results together.

    Where memory runs out, batches are half as large from then on, down to one row. So it is only for functions of
    which a row's result does not depend on the others: networks in eval mode.
    """

    function: Callable[[Tensor], Tensor]
    size: int

    def __call__(self, rows: Tensor) -> Tensor:
        import torch

        done = [self.function(rows[:0])] if len(rows) == 0 else []
        start = 0
        while start < len(rows):
            part = rows[start : start + self.size]
            try:
                done.append(self.function(part))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                self.size = len(part) // 2
                warnings.warn(
                    f"memory ran out at {len(part)} images at a time; going on with {self.size}", stacklevel=2
                )
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start += len(part)
        return torch.cat(done)
