"""Part of the GPU script: how long it takes from the command to the first steps, with and without capture."""

from __future__ import annotations

import subprocess
import sys
import time

from gpu import tables
from gpu.part import Part
from step_cases import changed


def run(part: Part) -> None:
    small = part.rehearsed
    table = tables.dcgan(channels=4 if small else 64, batch_size=8 if small else 128, count=64 if small else 2048)
    file = tables.write(changed(table, train={"sample_count": 4, "log_every": 1}), part.folder)
    ganlab = [sys.executable, "-m", "ganlab", "run", str(file), "--device", part.device]
    works = {"import torch": [sys.executable, "-c", "import torch"]}
    if part.rehearsed:
        part.leave_out("a tensor on the GPU, and capture, which the CPU has not")
    else:
        works["a tensor on the device"] = [sys.executable, "-c", f"import torch; torch.ones(1, device={part.device!r})"]
        works["20 steps, captured"] = [*ganlab, "--set", "train.steps=20"]
        works["20 steps, eager"] = [*ganlab, "--set", "train.steps=20", "--set", "train.capture=false"]
    works["1 step"] = [*ganlab, "--set", "train.steps=1"]
    for name, command in works.items():
        where = ["--out", str(part.folder / name)] if "ganlab" in command else []
        began = time.monotonic()
        result = subprocess.run([*command, *where], capture_output=True, text=True, check=False)
        part.row(work=name, seconds=time.monotonic() - began)
        if result.returncode:
            part.fault(f"{name}: {result.stderr[-300:]}")
