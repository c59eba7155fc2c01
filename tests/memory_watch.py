"""A plugin that writes down, after each score of a run, what memory holds: tensors, and the process as a whole."""

from __future__ import annotations

import gc
import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ganlab import hookimpl
from ganlab.protocols import RunView

FILE = "memory.jsonl"
EVERY = 20
"""Every how many scores it looks: that takes longer than a score of small networks."""

_scores = 0


@hookimpl
def evaluation_finished(run: RunView, record: Mapping[str, Any]) -> None:
    global _scores  # noqa: PLW0603 - of the one run in its process
    _scores += 1
    if _scores % EVERY == 0:
        with (run.path / FILE).open("a") as file:
            file.write(json.dumps({"scores": _scores, **in_use()}) + "\n")


def in_use() -> dict[str, int]:
    """How many tensors live in this process, their bytes on the CPU and on accelerators, and the resident set."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    on_cpu = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    kinds = {tensor.device.type for tensor in tensors} - {"cpu", "meta"}
    return {
        "tensors": len(tensors),
        "cpu_bytes": sum({storage.data_ptr(): storage.nbytes() for storage in on_cpu}.values()),
        "device_bytes": sum(int(torch.get_device_module(kind).memory_allocated()) for kind in kinds),
        "resident_set": resident_set(),
    }


def resident_set() -> int:
    """The bytes of memory that this process has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def growth(run: Path) -> dict[str, int]:
    """How much each has grown from the second look on, by which all that is made once has been made."""
    looks = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    return {name: looks[-1][name] - looks[1][name] for name in looks[0]}
