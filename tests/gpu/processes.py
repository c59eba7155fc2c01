"""Part of the GPU script: two processes of torchrun against one process, each with a GPU of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from ganlab.run.run_folder import read_info
from gpu import tables
from gpu.commands import ganlab, last_state
from gpu.part import Part
from step_cases import changed

PROCESSES = 2
CLOSE = 1e-3
"""How far weights may lie apart: sums over two processes are added in another order."""


def run(part: Part) -> None:
    if not part.rehearsed and torch.cuda.device_count() < PROCESSES:
        part.leave_out(f"two processes on NCCL: there is {torch.cuda.device_count()} GPU")
        return
    if part.rehearsed:
        part.leave_out("NCCL: the two processes use gloo")
    steps = 4 if part.rehearsed else 40
    table = changed(
        tables.mlp(16 if part.rehearsed else 1024),
        train={"steps": steps, "sample_count": 4, "log_every": 2, "ema": 0.9},
    )
    file = tables.write(table, part.folder, "two")
    one, two = part.folder / "one", part.folder / "both"
    ganlab("run", file, "--device", part.device, "--out", one)
    codes, said = _start_both(file, part.device, two)
    if any(codes):
        part.fault(f"two processes ended with exit codes {codes}: {said[-500:]}")
        return
    states = last_state(one), last_state(two)
    weights = [name for name in states[0] if name in states[1] and name.startswith("networks")]
    furthest = max((float((states[0][name] - states[1][name]).abs().max()) for name in weights), default=float("inf"))
    part.row(processes=PROCESSES, steps=steps, device=read_info(two)["device"], weights_differ_at_most_by=furthest)
    if not furthest < CLOSE:
        part.fault(f"the weights of two processes are {furthest} from those of one")


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
