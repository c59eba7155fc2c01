"""Part of the GPU script: captured steps against eager ones, to the bit.

Eager and captured steps run with torch's deterministic algorithms, since without them two eager trainings differ too. A
case that has an operation without such an algorithm is compared without, and says so.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import attrs
import torch

from ganlab.config.load import load_experiment
from ganlab.plugin.loader import Plugins
from ganlab.training.build import build, captured_train_step
from ganlab.training.loop import Training, take_step
from ganlab.training.state import training_state
from ganlab.utils.determinism import deterministic
from ganlab.utils.errors import GanlabError, NotDeterministic
from ganlab.utils.paths import places
from ganlab.utils.state_tree import tensors_with_paths
from gpu import tables
from gpu.commands import differences, in_words
from gpu.part import Part, text_of
from step_cases import as_files, changed, component_tables, experiment_tables, method_tables

STEPS = 8
"""Three eager steps of a kind come before its capture."""

READING = ("schedule of augmentation.0.shift", "schedule of augmentation.0.hole")
"""Cases that read values back, as docs/zoo.md says: their steps must stay eager."""

REHEARSED = (
    *("mlp", "method bigan", "method cyclegan", "penalty gradient_penalty", "augmentation diffaugment"),
    *("optimizer adam", "schedule of augmentation.0.shift", "stopped, averaged, in parts"),
)


def run(part: Part) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # is read once, by the first product
    cases = _cases(part.folder)
    if part.rehearsed:
        part.leave_out(f"{len(cases) - len(REHEARSED)} of {len(cases)} cases; CUDA's graphs, which a replay stands for")
        cases = {name: cases[name] for name in REHEARSED}
    for name, file in as_files(cases, part.folder).items():
        began = time.monotonic()
        try:
            row = _compared(part, name, Path(file))
        except (GanlabError, RuntimeError) as error:  # it is reported, and the other cases go on
            row = {"steps": "", "bits": text_of(error), "with": ""}
            part.fault(f"{name}: {row['bits']}")
        part.row(case=name, **row, seconds=round(time.monotonic() - began, 2))


def _cases(folder: Path) -> dict[str, dict[str, Any]]:
    """Games first, since they are the least tried."""
    small = tables.DIGITS
    balanced = {"accumulate": 2, "clip_norm": 1.0, "stop_discriminator_under": 1.3, "ema": 0.9}
    cases = {
        "mlp": small,
        "stopped, averaged, in parts": changed(small, train=balanced),
        "dcgan in bfloat16": changed(
            tables.dcgan(channels=16, batch_size=16, count=64), train={"precision": "bfloat16"}
        ),
        "dropout": changed(small, discriminator={"dropout": 0.3}),
        "streamed": changed(small, train={"resident_gb": 0.0}),
    }
    cases |= {f"method {name}": table for name, table in method_tables(small).items()}
    cases |= component_tables(small, folder)
    cases |= {f"experiment {name}": table for name, table in experiment_tables().items()}
    return cases


def _compared(part: Part, name: str, file: Path) -> dict[str, Any]:
    repeating = "deterministic algorithms"
    try:
        with deterministic(True):
            eager, captured = _both(part, file)
    except NotDeterministic as error:
        repeating = str(error).partition("; ")[0].removeprefix("train.deterministic: ")
        eager, captured = _both(part, file)
    different = differences(eager[0], captured[0])
    reason = captured[1]
    if different and repeating == "deterministic algorithms":
        part.fault(f"{name}: {in_words(different)}")
    if (reason != "captured") != (name in READING or captured[2]):
        part.fault(f"{name}: {reason}")
    return {"steps": reason, "bits": in_words(different), "with": repeating}


State = tuple[dict[str, torch.Tensor], str, bool]


def _both(part: Part, file: Path) -> tuple[State, State]:
    return _trained(part, file, False), _trained(part, file, True)


def _trained(part: Part, file: Path, capture: bool) -> State:
    """The tensors of a training after some steps, what has become of its capture, and whether there can be none.

    There can be none where a schedule moves what the optimiser takes as a number.
    """
    experiment, plugins = load_experiment(file, (f"train.capture={str(capture).lower()}",))
    training = build(experiment, plugins.registry, places(), torch.device(part.device))
    if capture and part.rehearsed:
        training = _with_replays(training, plugins)
    for step in range(STEPS):
        take_step(training, step)
    state = {path: tensor.detach().cpu() for path, tensor in tensors_with_paths(training_state(training, STEPS), "")}
    training.loader.close()
    used = training.capture
    if used is None:
        return state, "no capture", False
    how = used.refusal or ("captured" if used.captured else "no step was captured")
    return state, how, training.schedules.eager_reason is not None


def _with_replays(training: Training, plugins: Plugins) -> Training:
    from replay import ReplayRecorder

    step = captured_train_step(
        training.game, training.train_step, plugins.registry, ReplayRecorder(), training.schedules.eager_reason
    )
    return attrs.evolve(training, capture=step)
