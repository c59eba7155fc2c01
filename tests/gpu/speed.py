"""Part of the GPU script: `ganlab bench` of three networks in each precision, with shares of the measured ceilings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ganlab.bench import benchmark
from ganlab.config.load import load_experiment
from ganlab.training.build import build
from ganlab.utils.errors import GanlabError
from ganlab.utils.paths import places
from gpu import tables
from gpu.ceilings import PRECISIONS, Ceilings, LeastTime, measure
from gpu.part import Part, text_of

SECONDS = 4.0
"""How long the loops of one experiment take turns, with five rounds at least."""


def run(part: Part) -> None:
    device = torch.device(part.device)
    precisions = ("float32",) if part.rehearsed else PRECISIONS
    ceilings = measure(device, precisions, part.rehearsed)
    for precision, rate in ceilings.products.items():
        part.row(ceiling=f"matrix products, {precision}", measured=rate / 1e12, unit="Tflop/s")
    part.row(ceiling="copies in memory, read and written", measured=ceilings.memory / 1e9, unit="GB/s")
    part.note(
        "Of the ceiling: the least time in which this machine could do the step's operations one after another, each "
        "reading its arguments and writing its results once, over the time that ganlab's step took."
    )
    benchmark.TURN_SECONDS = 0.05 if part.rehearsed else 0.2
    if part.rehearsed:
        benchmark.MIN_ROUNDS = 1
        experiments = [tables.mlp(64)]
        part.leave_out("DCGAN 32 and 64, tf32, bfloat16; the MLP is narrow")
    else:
        experiments = [tables.mlp(), tables.dcgan(32), tables.dcgan(64, count=1024)]
    for precision in precisions:
        for table in experiments:
            file = tables.write(table, part.folder)
            try:
                row = _bench(part, file, precision, ceilings)
            except (GanlabError, RuntimeError) as error:  # it is reported, and the others go on
                part.fault(f"{table['name']}, {precision}: {text_of(error)}")
                continue
            part.row(experiment=table["name"], precision=precision, **row)


def _bench(part: Part, file: Path, precision: str, ceilings: Ceilings) -> dict[str, Any]:
    options = (f"train.precision={precision!r}",)
    seconds = 0.1 if part.rehearsed else SECONDS
    found = benchmark.run_benchmark(file, options, part.device, seconds, (), lambda *_: None)
    rate = found["steps_per_second"]["ganlab"]
    experiment, plugins = load_experiment(file, options)
    training = build(experiment, plugins.registry, places(), torch.device(part.device))
    batches = [training.loader.batch(index) for index in range(training.train_step.batches_per_step)]
    training.train_step(batches, 0)
    with LeastTime(ceilings, precision) as least:
        training.train_step(batches, 1)
    if found["unfit_for_capture"]:
        part.fault(f"{experiment.name}, {precision}: {found['unfit_for_capture']}")
    return {
        "steps_per_second": rate,
        "milliseconds": 1000 / rate,
        "of_the_ceiling": f"{100 * least.seconds * rate:.1f}%",
        "Tflop_per_second": least.operations * rate / 1e12,
        "of_the_products": f"{100 * least.operations * rate / ceilings.products[precision]:.1f}%",
        "GB_per_second": least.bytes * rate / 1e9,
        "faster_than_tutorial": found["ratios"]["tutorial"],
        "than_by_hand": found["ratios"]["by hand"],
        "captured": str(found["levers"]["captured"]),
    }
