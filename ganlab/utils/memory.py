"""Free memory of a device or the host, out-of-memory errors, and batches that shrink when memory runs out."""

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

CPU_MESSAGES = ("allocate memory", "Storage size calculation overflowed")
"""Parts of torch's messages for a failed or overflowing allocation on the CPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory: torch.OutOfMemoryError on CUDA, a RuntimeError's message on the CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in CPU_MESSAGES)


def free_memory(device: torch.device) -> int:
    """Returns the free memory in bytes: of the device's own memory, or of the host's, limited by cgroups.

    The page cache counts as free. Returns 0 if the system does not report it.
    """
    import torch

    from ganlab.utils.device import has_own_memory

    if has_own_memory(device):
        return int(torch.get_device_module(device).mem_get_info(device)[0])
    try:
        lines = (line.split() for line in (PROC / "meminfo").read_text().splitlines())
        free = next(1024 * int(line[1]) for line in lines if line[0] == "MemAvailable:")
    except (OSError, StopIteration):
        try:
            # Without /proc/meminfo only the total is known.
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return 0
    return max(0, min([free, *_left_in_cgroups()]))


def _left_in_cgroups() -> Iterator[int]:
    """Yields the bytes of memory that are left under each cgroup limit of this process."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, usage, prefix = CGROUPS, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            mount, limit, usage, prefix = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        # In a container the path may be the host's, and the container's own group is then at the mount.
        here = mount / path.strip("/")
        for group in (here, *(parent for parent in here.parents if parent.is_relative_to(mount))):
            try:
                most = int((group / limit).read_text())
                used = int((group / usage).read_text())
                entries = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group, or "max": no limit
                continue
            page_cache = sum(int(entries.get(f"{prefix}{name}", 0)) for name in ("active_file", "inactive_file"))
            yield most - used + min(page_cache, used)


@define
class FittingBatches:
    """Batches that fit in memory: calls a function on rows (N, …) in batches of `size` and concatenates the results.

    When memory runs out, the batch size is halved for the rest, down to one row. The result of a row must therefore not
    depend on the other rows, as for networks in eval mode.
    """

    function: Callable[[Tensor], Tensor]
    size: int

    def __call__(self, rows: Tensor) -> Tensor:
        import torch

        from ganlab.utils.device import free_cached_memory

        done = [self.function(rows[:0])] if len(rows) == 0 else []
        start = 0
        while start < len(rows):
            part = rows[start : start + self.size]
            try:
                done.append(self.function(part))
                start += len(part)
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                self.size = len(part) // 2
                warnings.warn(
                    f"out of memory at {len(part)} images at a time; continuing with {self.size}", stacklevel=2
                )
            free_cached_memory()  # not where the error is handled, whose traceback holds what was computed
        return torch.cat(done)
