"""Runs, commands and all components on the pretend device, as the work of children."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import ganlab
from children import Child, set_environment
from ganlab.cli import main
from ganlab.plugin.loader import load_plugins
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.run.sample_spread import spread
from ganlab.testing.pretend import record_events
from ganlab.testing.pretend.events import FROM_CPU, READ, TO_CPU
from ganlab.testing.pretend.tensor import PretendTensor
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint, to_bytes
from ganlab.training.loop import take_step
from ganlab.training.state import training_state
from ganlab.utils.state_tree import tensors_with_paths
from pretend_work import _work, built, compare_trainings, is_allowed
from step_cases import as_files, component_tables, experiment_tables

CROSSING = """import torch
from attrs import frozen
from ganlab import hookimpl

@frozen
class Crossing:
    generator_uses_real = False
    def discriminator(self, real, fake):
        return (torch.ones(len(real)) * (1 - real)).relu().mean() + (1 + fake).relu().mean()
    def generator(self, real, fake): return -fake.mean()

@hookimpl
def register_losses(register): register("crossing", Crossing)
"""


def said_of(*arguments: str) -> tuple[int, str]:
    """Calls a command; its exit code and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main.call(list(arguments))
    return code, said.getvalue()


def said_of_run(file: str) -> tuple[int, str, bool]:
    code, said = said_of("run", file, "--device", "pretend", "--out", "refused")
    return code, said, Path("refused").exists()


def said_of_both(files: Mapping[str, str]) -> dict[str, list[tuple[int, str]]]:
    """What the run of each experiment says that does not end well, on the CPU and on the device."""
    return {
        name: [said_of("run", file, "--device", device, "--out", f"{name} {device}") for device in ("cpu", "pretend")]
        for name, file in files.items()
    }


def scores_of_both(files: Mapping[str, str]) -> dict[str, list[dict[str, float]]]:
    """The last scores of each experiment's run, on the CPU and on the device."""
    found: dict[str, list[dict[str, float]]] = {}
    for name, file in files.items():
        for device in ("cpu", "pretend"):
            out = f"{name} {device}"
            code, said = said_of("run", file, "--device", device, "--out", out)
            assert code == 0, said
            records = read_records(Path(out) / "metrics.jsonl")
            found.setdefault(name, []).append({record["name"]: record["value"] for record in records})
    return found


def said_of_check(file: str) -> tuple[int, str]:
    return said_of("check", file, "--device", "pretend")


def said_of_devices(file: str) -> dict[str, tuple[int, str]]:
    found = {}
    for device in ("pretend:7", "xpu", "mps", "meta", "pretend:1"):
        code, said = said_of("run", file, "--device", device, "--out", "there")
        found[device] = code, said.strip() if code else ""
    return found


NOT_SCORED = ("seconds", "device", "protocol", "versions", "floor")


def _states(run: str) -> dict[str, torch.Tensor]:
    """All tensors of a run's checkpoints but random states, by path."""
    return {
        f"{step}.{path}": tensor
        for step, folder in list_checkpoints(Path(run) / "checkpoints").items()
        for path, tensor in tensors_with_paths(load_checkpoint(folder), "")
        if not path.startswith("random")
    }


def _differences(one: str, other: str) -> Iterator[str]:
    """Where two runs differ: tensors of their checkpoints, pictures, records."""
    yield from state_differences(one, other)
    for file in sorted(Path(one).glob("samples/*.png")):
        if file.read_bytes() != (Path(other) / "samples" / file.name).read_bytes():
            yield str(file)
    for name, ignored in (("log.jsonl", ("seconds", "images_per_second")), ("metrics.jsonl", NOT_SCORED)):
        for before, after in zip(*(read_records(Path(run) / name) for run in (one, other)), strict=True):
            for key in before.keys() - set(ignored):
                near = isinstance(before[key], float) and abs(before[key] - after[key]) <= 1e-9 * abs(before[key])
                if before[key] != after[key] and not near:
                    yield f"{name}: {key} is {before[key]} and {after[key]}"


def _stop_earlier(run: str, copied: str, step: int) -> None:
    """Copies a run as it would be if it had been stopped after the checkpoint of a step."""
    shutil.copytree(run, copied)
    for saved, folder in list_checkpoints(Path(copied) / "checkpoints").items():
        if saved > step:
            shutil.rmtree(folder)
    info = json.loads((Path(copied) / "run.json").read_text())
    (Path(copied) / "run.json").write_text(json.dumps(info | {"status": "interrupted", "step": step}))


def run_and_read(file: str) -> list[str]:
    """A run on both devices, one stopped and resumed, and what reads it; what differs, and events in its steps."""
    wrong = []
    with record_events() as events:
        for arguments in (
            ("run", file, "--device", "cpu", "--out", "cpu"),
            ("run", file, "--device", "pretend", "--out", "there"),
            ("run", file, "--device", "pretend", "--out", "resumed", "--resume"),
            ("eval", "there", "--device", "pretend", "--out", "eval.json"),
            ("sample", "there", "--device", "pretend", "--count", "6", "--out", "there.png"),
            ("sample", "there", "--device", "cpu", "--count", "6", "--out", "cpu.png"),
        ):
            if "--resume" in arguments:
                _stop_earlier("there", "resumed", 4)
            code, said = said_of(*arguments)
            if code:
                wrong.append(f"{arguments}: {said}")
    wrong += [str(event) for event in events if event.in_step and not is_allowed(event)]
    wrong += _differences("cpu", "there")
    wrong += _differences("there", "resumed")
    if Path("there.png").read_bytes() != Path("cpu.png").read_bytes():
        wrong.append("sample draws other images")
    samples = [ganlab.load_run(Path("there"), device=device).sample(5) for device in ("cpu", "pretend")]
    if not torch.equal(*(images.cpu() for images in samples)):
        wrong.append("load_run draws other images")
    # With the alarm's gap of the scheduled loss on the device, which was None there.
    from ganlab.run.loss_optimum import optimal_gap

    gaps = []
    for device in ("cpu", "pretend"):
        loss = (
            load_plugins([]).registry.find("loss", "least_squares").cls(real_target=torch.full((), 0.9, device=device))
        )
        gaps.append(optimal_gap(loss, torch.device(device)))
    if gaps[0] is None or gaps[0] != gaps[1]:
        wrong.append(f"the loss asks for gaps of {gaps}")
    return wrong


# ---------------------------------------------------------------------------------------------------------------------
# Waiting for the device
# ---------------------------------------------------------------------------------------------------------------------


def count_waits(file: str) -> dict[str, Any]:
    """How often the host waits for the device, for a copy or a value: to save a state, and for the spread of images."""
    training = built(Path(file), "pretend")
    for step in range(2):
        take_step(training, step)
    training.loader.close()
    state = training_state(training, 2)
    there = [tensor for _, tensor in tensors_with_paths(state, "") if tensor.device.type == "pretend"]
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    classes = torch.arange(64) % 4

    def waits(work: Callable[[], object]) -> int:
        with record_events() as events:
            work()
        return sum(event.what in (READ, TO_CPU) for event in events)

    def spread_of(*parts: tuple[torch.Tensor, torch.Tensor | None]) -> int:
        return waits(lambda: spread((images.to("pretend"), labels) for images, labels in parts))

    return {
        "tensors": len(there),
        "types": len({tensor.dtype for tensor in there}),
        "checkpoint": waits(lambda: to_bytes(state)),
        "spread": spread_of((images, None)),
        "spread of parts": spread_of(*((part, None) for part in images.split(16))),
        "spread of four classes": spread_of(*zip(images.split(16), classes.split(16), strict=True)),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Memory
# ---------------------------------------------------------------------------------------------------------------------


def look_at_images(file: str) -> dict[str, Any]:
    """Bytes of a training on the pretend device: held by it, and copied to it."""
    allocated = torch.get_device_module("pretend").memory_allocated
    code, said = said_of("run", file, "--device", "pretend", "--out", "r")
    assert code == 0, said
    before = allocated()
    with record_events() as events:
        training = built(Path(file), "pretend")
        take_step(training, 0)
        began = len(events)
        for step in range(1, 4):
            take_step(training, step)
    networks = training.game.networks.values()
    return {
        "run_json": read_info(Path("r"))["resident_bytes"],
        "held": allocated() - before,
        "networks": sum(tensor.nbytes for network in networks for tensor in network.state_dict().values()),
        "copied": sum(event.nbytes for event in events if event.what == FROM_CPU),
        "copied_in_steps": sum(event.nbytes for event in events[began:] if event.what == FROM_CPU),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Two processes
# ---------------------------------------------------------------------------------------------------------------------


def on_two(work: Callable[..., Any], folder: Path, environments: list[dict[str, str]], *arguments: Any) -> list[Any]:
    """Does the work in two processes with torchrun's environment; returns their results."""
    files = [folder / f"result{rank}.json" for rank in range(2)]
    children = [
        Child(partial(_with_environment, environment, work, arguments, str(file)), folder / f"{file.stem}.log")
        for environment, file in zip(environments, files, strict=True)
    ]
    codes = [child.ended(300) for child in children]
    assert codes == [0, 0], "\n".join(child.said for child in children)
    return [json.loads(file.read_text()) for file in files]


def _with_environment(environment: dict[str, str], work: Callable[..., Any], arguments: Any, result: str) -> int:
    set_environment(environment)
    return _work(work, arguments, result)


def one_command(*arguments: str) -> list[str]:
    """Calls a command in one of two processes; the devices on which it made a tensor, were it only for a moment."""
    devices: set[str] = set()
    make = PretendTensor.__new__

    def noting(cls: Any, data: torch.Tensor, index: int = 0, requires_grad: bool = False) -> Any:
        devices.add(f"pretend:{index}")
        return make(cls, data, index, requires_grad)

    PretendTensor.__new__ = staticmethod(noting)  # type: ignore[assignment]
    code, said = said_of(*arguments)
    assert code == 0, said
    return sorted(devices)


def state_differences(one: str, other: str) -> list[str]:
    """Where the checkpoints of two runs differ."""
    a, b = _states(one), _states(other)
    return [path for path in a.keys() | b.keys() if path not in a or path not in b or not torch.equal(a[path], b[path])]


# ---------------------------------------------------------------------------------------------------------------------
# Every component, every experiment
# ---------------------------------------------------------------------------------------------------------------------

LAST_BITS = 1e-3
"""How far weights may lie apart after some steps where the last bits of a gradient are others."""

OTHER_LAST_BITS = (
    "stylegan2",
    "vqgan",
    "cifar_vqgan",
    "penalty path_length",
    "cifar_r3gan",
    "cifar_dcgan_best",
    "stacked_mnist_fast",
    "schedule of optimizer.lr",
)
"""Trainings whose last bits are others on a device.

Autograd runs its backward passes in a thread, whose nodes it numbers by themselves: where gradients of gradients are
sums of several, it sums in another order. A scheduled learning rate is a double on the CPU.
"""


def wrong_lines(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What is wrong with the trainings that were compared, without the last bits of those in `OTHER_LAST_BITS`."""
    wrong = {}
    for name, lines in found.items():
        left = [line for line in lines if not (name in OTHER_LAST_BITS and _of_last_bits(line))]
        if left:
            wrong[name] = left
    return wrong


def _of_last_bits(line: str) -> bool:
    number = line.partition(" differs by ")[2]
    return bool(number) and float(number) < LAST_BITS


READ_BACK = ("schedule of augmentation.0.shift", "schedule of augmentation.0.hole")
"""Options of `diffaugment` whose values are read back, as docs/zoo.md says."""


def compare_all_components(mlp: dict[str, Any], folder: str) -> dict[str, list[str]]:
    """Every bundled component of the step, and a schedule of every option that may move."""
    return compare_trainings(as_files(component_tables(mlp, Path(folder)), Path(folder)), steps=3)


def compare_experiments(folder: str) -> dict[str, list[str]]:
    """Every experiment file with narrow networks."""
    return compare_trainings(as_files(experiment_tables(), Path(folder)), steps=2)
