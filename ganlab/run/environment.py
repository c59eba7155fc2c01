"""The environment that a run's bits depend on besides its experiment: versions, device, processor, plugins, data."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ganlab import __version__
from ganlab.config.converter import TableConverter
from ganlab.config.schema import Experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins
from ganlab.protocols import Dataset, named_conditions
from ganlab.training.loop import Training
from ganlab.utils import distributed
from ganlab.utils.device import device_name
from ganlab.utils.hashing import tensors_sha256


def versions() -> dict[str, str]:
    """The run environment's versions: those of ganlab, Python and torch, as run.json records them."""
    return {"ganlab": __version__, "python": platform.python_version(), "torch": torch.__version__}


def processor() -> str:
    """The run environment's CPU and the instructions torch uses of it: another CPU may sum in another order."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _origin_record(origin: Origin, plugins: Plugins) -> dict[str, str]:
    """The run environment's entry for a component's plugin: where it is from, with the hash of its file."""
    original = plugins.originals.get(origin.file) if origin.file else None
    return origin.record() | ({"file": str(original)} if original else {})


def plugin_code(experiment: Experiment, plugins: Plugins) -> dict[str, dict[str, Any]]:
    """The code in a run's environment: the plugins of its components, its observers, and the files that they import."""
    used = list(TableConverter(plugins.registry).components_in(experiment))
    imports = {origin: origin.imports() for origin in [*(part.origin for part in used), *plugins.observers]}
    return {
        "components": {f"{part.kind}.{part.name}": _origin_record(part.origin, plugins) for part in used},
        "observers": {origin.plugin: _origin_record(origin, plugins) for origin in plugins.observers},
        "imports": {origin.plugin: files for origin, files in imports.items() if files},
    }


def edited_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The files of a run's plugins that are not bundled, and of what they import, that differ in two of its records."""
    pairs = [(was, now[key][name]) for key in ("components", "observers") for name, was in before[key].items()]
    pairs = [(was, later) for was, later in pairs if was["source"] != "bundled"]
    for plugin, files in before["imports"].items():
        pairs += [(was, now["imports"].get(plugin, {}).get(module, was)) for module, was in files.items()]
    return sorted({was["file"] for was, later in pairs if was.get("sha256") != later.get("sha256")})


def run_environment(experiment: Experiment, plugins: Plugins, training: Training) -> dict[str, Any]:
    """The environment of a run, as run.json records it and a resume compares it: versions, device, plugins, data."""
    device = training.game.device
    streams = {name: _dataset_record(stream) for name, stream in training.streams.items()}
    return {
        "versions": versions(),
        "device": device_name(device),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
        **plugin_code(experiment, plugins),
        "weights_files": hashes_by_name(training.weights_files),
        "dataset": _dataset_record(training.dataset),
        **({"streams_data": streams} if streams else {}),
    }


def hashes_by_name(files: Mapping[str, str]) -> dict[str, str]:
    """The hashes of the weights files in a run's environment: by name, since a file may lie elsewhere; of one name all.

    What a network is initialised by is read once, and not among them.
    """
    hashes: dict[str, set[str]] = {}
    for file, sha256 in files.items():
        hashes.setdefault(Path(file).name, set()).add(sha256)
    return {name: ", ".join(sorted(of)) for name, of in hashes.items()}


def _dataset_record(dataset: Dataset) -> dict[str, Any]:
    """What a run's environment says of a data set."""
    condition = dataset.condition
    return {
        "name": dataset.name,
        "split": dataset.split,
        "count": len(dataset.images),
        "skipped": getattr(dataset, "skipped", 0),
        "left_out_files": dict(getattr(dataset, "left_out", {})),
        "fingerprint": dataset.fingerprint,
        # Apart from the pixels: a file that moved to another class's folder may leave those as they are.
        "condition_sha256": None if condition is None else tensors_sha256(named_conditions(condition)),
    }
