"""Part of the GPU script: what is resident on the device, the peak of a step, and the growth over evaluations."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

import memory_watch
from ganlab.config.load import load_experiment
from ganlab.run.run_folder import read_info
from ganlab.training.build import build
from ganlab.training.loop import take_step
from ganlab.utils.paths import places
from gpu import tables
from gpu.commands import ganlab
from gpu.part import Part
from step_cases import changed

MIB = 2**20


def run(part: Part) -> None:
    device = torch.device(part.device)
    if part.device == "cpu":
        part.leave_out("memory of a device: there is no pretend device with this torch")
    else:
        _resident(part, device)
    if device.type == "cuda":
        _peaks(part, device)
    else:
        part.leave_out("peaks, and growth that is not of tensors: only CUDA's allocator knows them")
    _growth(part)


def _resident(part: Part, device: torch.device) -> None:
    """Images larger than the networks: what the device holds after the build, beside what run.json says."""
    count = 1024 if part.rehearsed else 2**15
    table = changed(tables.dcgan(channels=4, batch_size=16, count=count), train={"steps": 1, "sample_count": 4})
    file = tables.write(table, part.folder, "resident")
    ganlab("run", file, "--device", part.device, "--out", part.folder / "resident")
    said = read_info(part.folder / "resident")["resident_bytes"]["dataset"]
    experiment, plugins = load_experiment(file)
    gc.collect()
    allocated = torch.get_device_module(device).memory_allocated
    before = allocated()
    training = build(experiment, plugins.registry, places(), device)
    gc.collect()
    held = allocated() - before
    networks = [*training.game.networks.values(), *(training.ema.networks.values() if training.ema else ())]
    state = sum(tensor.nbytes for network in networks for tensor in network.state_dict().values())
    part.row(what="resident images, MiB", run_json=said / MIB, on_the_device=(held - state) / MIB)
    if not said <= held < said + state + said / 4:
        part.fault(f"run.json says {said:,} bytes of images; the device holds {held:,}, of which networks {state:,}")


def _peaks(part: Part, device: torch.device) -> None:
    cases = {"dcgan 32": tables.dcgan(32), "dcgan 64": tables.dcgan(64, count=1024), "mlp": tables.mlp()}
    for name, table in cases.items():
        for capture in (False, True):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            file = tables.write(table, part.folder, "peak")
            experiment, plugins = load_experiment(file, (f"train.capture={str(capture).lower()}",))
            training = build(experiment, plugins.registry, places(), device)
            for step in range(8):
                take_step(training, step)
            torch.cuda.synchronize(device)
            part.row(
                experiment=name,
                captured=capture,
                peak_allocated_MiB=torch.cuda.max_memory_allocated(device) / MIB,
                reserved_MiB=torch.cuda.memory_reserved(device) / MIB,
            )
            del training
            gc.collect()


def _growth(part: Part) -> None:
    scores = 40 + 2 * memory_watch.EVERY if part.rehearsed else 200
    growth = grown(part.device, scores, part.folder)
    part.row(evaluations=scores, **{f"{name}_grown_by": value for name, value in growth.items() if name != "scores"})
    if growth["tensors"] > 0 or growth["device_bytes"] > 0:
        part.fault(f"over {growth['scores']} evaluations there are {growth['tensors']} more tensors: {growth}")


def grown(device: str, scores: int, folder: Path) -> dict[str, int]:
    """The growth of memory over a run's evaluations, one after each step, once the first are done."""
    metrics = [{"name": "fid", "every": 1, "samples": 32, "features": "pixels"}]
    train = {"steps": scores, "log_every": scores, "sample_every": 10, "checkpoint_every": 0}
    table = changed(tables.DIGITS, plugins=[memory_watch.__file__], metric=metrics, train=train)
    out = folder / "evaluations"
    ganlab("run", tables.write(table, folder, "evaluations"), "--device", device, "--out", out)
    return memory_watch.growth(out)
