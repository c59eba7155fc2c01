"""Part of the GPU script: the same run twice, with and without `train.deterministic`."""

from __future__ import annotations

from typing import Any

from gpu import tables
from gpu.commands import differences, ganlab, in_words, last_state
from gpu.part import Part
from step_cases import changed


def table_of(part: Part) -> dict[str, Any]:
    """A DCGAN with an average and a score."""
    small = part.rehearsed
    table = tables.dcgan(channels=4 if small else 64, batch_size=8 if small else 64, count=64 if small else 2048)
    samples = 32 if small else 512
    kid = {"name": "kid", "samples": samples, "features": "pixels", "subsets": 5, "subset_size": samples // 2}
    steps = 4 if small else 100
    return changed(table, metric=[kid], train={"steps": steps, "log_every": 2, "ema": 0.9, "sample_count": 4})


def run(part: Part) -> None:
    file = tables.write(table_of(part), part.folder)
    for wanted in (True,) if part.rehearsed else (True, False):
        runs = [part.folder / f"{'deterministic' if wanted else 'free'}{number}" for number in range(2)]
        for folder in runs:
            ganlab(
                *("run", file, "--device", part.device, "--out", folder),
                *("--set", f"train.deterministic={str(wanted).lower()}"),
            )
        different = differences(*map(last_state, runs))
        part.row(deterministic=wanted, two_runs=in_words(different))
        if wanted and different:
            part.fault(f"two runs with train.deterministic: {in_words(different)}")
    if part.rehearsed:
        part.leave_out("the kernels of a GPU, and two runs without the option, which on the CPU changes nothing")
