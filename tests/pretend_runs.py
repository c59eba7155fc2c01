"""Runs, commands and all components on the pretend device, as the work of children."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import ganlab
from children import Child, set_environment
from ganlab.cli import main
from ganlab.config.load import load_experiment
from ganlab.config.schedule_targets import schedulable_options
from ganlab.plugin.loader import load_plugins
from ganlab.run.records import read_records
from ganlab.testing.pretend import record_events
from ganlab.testing.pretend.tensor import PretendTensor
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.state_tree import tensors_with_paths
from pretend_work import _work, as_files, changed, compare_trainings, is_allowed
from support import REPOSITORY

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

OTHER_LAST_BITS = ("stylegan2", "vqgan", "penalty path_length", "cifar_r3gan", "schedule of optimizer.lr")
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
    registry = load_plugins([]).registry
    small = {"name": "dcgan", "channels": 4}
    dcgan = changed(mlp, generator={**small, "latent_dim": 8}, discriminator=small)
    network = {"name": "conditional", "network": small}
    judged = changed(
        dcgan,
        generator={"name": "conditional", "network": {**small, "latent_dim": 8}},
        discriminator=network,
    )
    classes = changed(judged, discriminator={**small, "head": "class_logits"})
    resnet = {"name": "resnet", "channels": 4}
    tables: dict[str, dict[str, Any]] = {
        "resnet": changed(mlp, generator={**resnet, "latent_dim": 8}, discriminator=resnet),
        "packed": changed(mlp, discriminator={"name": "packed", "network": {"name": "mlp", "hidden": [16]}}),
        "conditional": judged,
    }
    for part in registry.of_kind("loss"):
        tables[f"loss {part.name}"] = changed(mlp, loss={"name": part.name})
    for part in registry.of_kind("optimizer"):
        tables[f"optimizer {part.name}"] = changed(mlp, optimizer={"name": part.name, "lr": 1e-3})
    for part in registry.of_kind("augmentation"):
        tables[f"augmentation {part.name}"] = changed(dcgan, augmentation=[{"name": part.name}])
    for part in registry.of_kind("penalty"):
        base = classes if part.name == "class_loss" else dcgan
        tables[f"penalty {part.name}"] = changed(base, penalty=[{"name": part.name}])
    targets = changed(mlp, loss={"name": "least_squares"})
    several = changed(
        targets,
        loss_wrapper=[{"name": "label_smoothing", "real": 0.9}],
        penalty=[{"name": "gradient_penalty"}, {"name": "l2_generator"}, {"name": "orthogonal"}],
        augmentation=[{"name": "diffaugment"}, {"name": "flip", "probability": 0.4}],
        train={"ema": 0.0, "ema_half_life": 100.0},
    )
    for base in (targets, changed(mlp, penalty=[{"name": "r1"}]), several):
        (file,) = as_files({"base": base}, Path(folder)).values()
        for key, target in schedulable_options(load_experiment(Path(file))[0]).items():
            replaced = base is several and key.startswith("loss.")  # by the wrapper
            if replaced or key.startswith(("generator.optimizer", "discriminator.optimizer")):
                continue
            to = target.first / 2 if target.first else 0.25
            tables[f"schedule of {key}"] = changed(base, schedule=[{"name": "linear", "key": key, "to": to}])
    return compare_trainings(as_files(tables, Path(folder)), steps=3)


STAND_IN = """
import torch
from attrs import frozen
from ganlab import ImageDataset, hookimpl

@frozen
class StandIn:
    channels: int = 3
    size: int = 32
    def build(self, places, split):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (64, self.channels, self.size, self.size), generator=generator, dtype=torch.uint8)
        names = tuple(map(str, range(10)))
        return ImageDataset(images, "stand_in", split, torch.arange(64) % 10, names)

@hookimpl
def register_datasets(register): register("stand_in", StandIn)
"""

SHAPES = {"celeba": (3, 64), "cifar10": (3, 32), "image_folder": (3, 32), "mnist": (1, 28), "stacked_mnist": (3, 28)}
"""Channels and size of the data that have to be had first."""


def compare_experiments(folder: str) -> dict[str, list[str]]:
    """Every experiment file with narrow networks, on noise in the place of data that have to be had first."""
    plugin = Path(folder) / "stand_in.py"
    plugin.write_text(STAND_IN)
    tables = {}
    for file in sorted((REPOSITORY / "experiments").glob("*.toml")):
        table = tomllib.loads(file.read_text())
        if "dataset" not in table:
            continue
        of = table["dataset"]["name"]
        if of in SHAPES:
            channels, size = SHAPES[of]
            size = table["dataset"].get("size", size)
            table["dataset"] = {"name": "stand_in", "channels": channels, "size": size}
            table["plugins"] = [str(plugin)]
        table["metric"] = []
        table["train"] |= {"batch_size": 4, "steps": 2}
        table["train"].pop("epochs", None)
        for part in ("generator", "discriminator"):
            _narrow(table[part])
        tables[file.stem] = table
    return compare_trainings(as_files(tables, Path(folder)), steps=2)


def _narrow(network: dict[str, Any]) -> None:
    """Makes a network narrow and, since that is another stream of numbers on the CPU, without dropout."""
    for name, value in list(network.items()):
        if isinstance(value, Mapping):
            _narrow(value)
        elif name == "dropout":
            network[name] = 0.0
    if network["name"] in ("dcgan", "resnet"):
        network["channels"] = 4
