"""Part of the GPU script: two processes of torchrun against one process, each with a GPU of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.state_tree import tensors_with_paths
from gpu import tables
from gpu.commands import ganlab
from gpu.part import Part
from step_cases import changed

PROCESSES = 2
CLOSE = 0.1
"""How far weights may lie apart, of how far they have moved: sums over two processes are added in another order."""


def run(part: Part) -> None:
    if not part.rehearsed and torch.cuda.device_count() < PROCESSES:
        part.leave_out(f"two processes on NCCL: there is {torch.cuda.device_count()} GPU")
        return
    if part.rehearsed:
        part.leave_out("NCCL: the two processes use gloo")
    steps, width = (4, 16) if part.rehearsed else (20, 1024)
    train = {"steps": steps, "sample_count": 4, "log_every": 2, "ema": 0.9, "checkpoint_every": 1, "checkpoint_keep": 0}
    # Dropout has a stream for each process.
    table = changed(tables.mlp(width), discriminator={"dropout": 0.0}, train=train)
    file = tables.write(table, part.folder, "two")
    one, two = part.folder / "one", part.folder / "both"
    ganlab("run", file, "--device", part.device, "--out", one)
    codes, said = _start_both(file, part.device, two)
    if any(codes):
        part.fault(f"two processes ended with exit codes {codes}: {said[-500:]}")
        return
    before, alone, together = _weights(one, 0), _weights(one, -1), _weights(two, -1)
    apart, moved = float((alone - together).norm()), float((alone - before).norm())
    part.row(processes=PROCESSES, steps=steps, device=read_info(two)["device"], apart=apart, moved_since_step_1=moved)
    if not apart < CLOSE * moved:
        part.fault(f"the weights of two processes are {apart} from those of one, which have moved by {moved}")


def _weights(run: Path, index: int) -> torch.Tensor:
    """All weights of a checkpoint of a run, the first or the last, in one row."""
    state = load_checkpoint(list(list_checkpoints(run / "checkpoints").values())[index])
    found = dict(tensors_with_paths(state, ""))
    names = sorted(name for name in found if name.startswith(("generator", "discriminator")))
    return torch.cat([found[name].flatten().float() for name in names])


def _start_both(file: Path, device: str, out: Path) -> tuple[list[int], str]:
    """Starts the two processes as torchrun would; their exit codes, and what they said."""
    with socket.create_server(("localhost", 0)) as found:
        port = found.getsockname()[1]
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)} | dict.fromkeys(
        ("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(PROCESSES)
    )
    command = [sys.executable, "-m", "ganlab", "run", str(file), "--device", device, "--out", str(out)]
    logs = [out.with_name(f"rank{rank}.log") for rank in range(PROCESSES)]
    both = []
    for rank, log in enumerate(logs):
        environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with log.open("wb") as output:
            both.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
    codes = [process.wait() for process in both]
    return codes, "\n".join(log.read_text(errors="replace") for log in logs)
