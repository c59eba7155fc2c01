"""Part of the GPU script: experiments/cifar_dcgan.toml for three minutes, with grids and FID.

On the photographs where GANLAB_DATA has them, else on the offline digits, enlarged.
"""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path
from typing import Any

import torch

from ganlab.config.load import load_experiment
from ganlab.run.records import read_records
from ganlab.training.build import build
from ganlab.training.loop import take_step
from ganlab.utils.device import synchronize
from ganlab.utils.paths import places
from gpu import tables
from gpu.commands import ganlab
from gpu.part import Part
from step_cases import changed
from support import REPOSITORY

SECONDS = 180.0
BESIDES = 0.75
"""The share of the time that is for steps; the rest is for the classifier, grids and scores."""


def run(part: Part) -> None:
    file = tables.write(_table(part), part.folder, "cifar_dcgan")
    rate = _steps_per_second(file, part)
    seconds = min(SECONDS, part.seconds_left - 15)
    steps = 6 if part.rehearsed else max(20, int(rate * seconds * BESIDES))
    out = part.folder / "run"
    for step in (0, steps // 2, steps):
        part.picture(out / "samples" / f"step-{step:08}.png")
    part.row(steps=steps, steps_per_second=rate, seconds=seconds)
    options = [f"train.steps={steps}", f"train.sample_every={max(1, steps // 2)}", f"train.checkpoint_every={steps}"]
    ganlab("run", file, "--device", part.device, "--out", out, *(word for one in options for word in ("--set", one)))
    for record in read_records(out / "metrics.jsonl"):
        part.row(score=record["name"], step=record["step"], value=record["value"])
    last = list(read_records(out / "log.jsonl"))[-1]
    keys = ("step", "loss_generator", "loss_discriminator", "d_real", "d_fake", "images_per_second")
    part.row(**{key: last.get(key) for key in keys})


def _table(part: Part) -> dict[str, Any]:
    table = tomllib.loads((REPOSITORY / "experiments/cifar_dcgan.toml").read_text())
    del table["train"]["epochs"]
    samples = 64 if part.rehearsed else 5000
    metric = {"name": "fid", "features": "classifier", "samples": samples}
    table = changed(table, metric=[metric], train={"checkpoint_keep": 2, "sample_count": 64, "log_every": 50})
    data = Path(os.environ.get("GANLAB_DATA") or "/nowhere")
    if not data.is_dir() or part.rehearsed:
        table = changed(table, dataset={"name": "digits", "size": 32})
        part.leave_out("real photographs: GANLAB_DATA names none, so these are the offline digits, enlarged")
    if part.rehearsed:
        small = {"name": "dcgan", "channels": 4}
        metric = {"name": "fid", "features": {"name": "classifier", "updates": 20}, "samples": samples}
        table = changed(table, generator=small, discriminator=small, metric=[metric], train={"batch_size": 16})
        part.leave_out("three minutes, and a classifier that has learnt its classes: six steps of narrow networks")
    return table


def _steps_per_second(file: Path, part: Part) -> float:
    experiment, plugins = load_experiment(file, ("train.steps=100",))
    training = build(experiment, plugins.registry, places(), torch.device(part.device))
    warm, count = (1, 2) if part.rehearsed else (10, 60)
    for step in range(warm):
        take_step(training, step)
    synchronize(training.game.device)
    began = time.perf_counter()
    for step in range(warm, warm + count):
        take_step(training, step)
    synchronize(training.game.device)
    training.loader.close()
    return count / (time.perf_counter() - began)
