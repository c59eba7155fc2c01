"""Small experiments that have every bundled component of the step, every experiment file and every game."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import noise_data
from ganlab.config.load import load_experiment
from ganlab.config.schedule_targets import schedulable_options
from ganlab.plugin.loader import load_plugins
from support import REPOSITORY


def as_files(tables: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Writes experiments, by name, as files."""
    import tomli_w

    files = {}
    for name, table in tables.items():
        file = folder / f"{name.replace(' ', '_')}.toml"
        file.write_text(tomli_w.dumps(table))
        files[name] = str(file)
    return files


def changed(table: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """A copy of a table with other parts; tables without a name change single keys."""
    copied = copy.deepcopy(dict(table))
    for key, part in parts.items():
        single = isinstance(part, dict) and isinstance(copied.get(key), dict) and "name" not in part
        copied[key] = {**copied[key], **part} if single else part
    return copied


def component_tables(mlp: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
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
        (file,) = as_files({"base": base}, folder).values()
        for key, target in schedulable_options(load_experiment(Path(file))[0]).items():
            replaced = base is several and key.startswith("loss.")  # by the wrapper
            if replaced or key.startswith(("generator.optimizer", "discriminator.optimizer")):
                continue
            to = target.first / 2 if target.first else 0.25
            tables[f"schedule of {key}"] = changed(base, schedule=[{"name": "linear", "key": key, "to": to}])
    return tables


SHAPES = {"celeba": (3, 64), "cifar10": (3, 32), "image_folder": (3, 32), "mnist": (1, 28), "stacked_mnist": (3, 28)}
"""Channels and size of the data that have to be had first."""


def experiment_tables() -> dict[str, dict[str, Any]]:
    """Every experiment file with narrow networks, on noise in the place of data that have to be had first."""
    tables = {}
    for file in sorted((REPOSITORY / "experiments").glob("*.toml")):
        table = tomllib.loads(file.read_text())
        if "dataset" not in table:
            continue
        of = table["dataset"]["name"]
        if of in ("image_pairs", "unpaired"):  # one's own pictures; glyphs have these games and networks
            continue
        if of == "blended" and table["dataset"]["dataset"]["name"] in SHAPES:  # digits have its game and networks
            continue
        if "pixelda" in file.stem:
            table["game"]["dropout"] = 0.0
        if of in SHAPES:
            channels, size = SHAPES[of]
            size = table["dataset"].get("size", size)
            table["dataset"] = {"name": "noise", "channels": channels, "size": size}
            table["plugins"] = [noise_data.__file__]
        table["metric"] = []
        table["train"] |= {"batch_size": 4, "steps": 2}
        table["train"].pop("epochs", None)
        for part in ("game", "generator", "discriminator"):
            if isinstance(table.get(part), dict):
                _narrow(table[part])
        tables[file.stem] = table
    return tables


def _narrow(network: dict[str, Any]) -> None:
    """Makes a network narrow and, since that is another stream of numbers on the CPU, without dropout."""
    for name, value in list(network.items()):
        if isinstance(value, Mapping):
            _narrow(value)
        elif name == "dropout":
            network[name] = 0.0
    if network.get("name") in ("dcgan", "resnet"):  # a network's optimiser has no name
        network["channels"] = 4


def method_tables(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every game of the published methods in one file, but those of tables, in the place of the networks of a table."""
    from test_methods import FILES, TABLES

    tables = {}
    for name, own in copy.deepcopy(TABLES).items():
        if name in ("ctgan", "mixed_table"):
            continue
        common = {key: table[key] for key in ("name", "dataset", "optimizer", "train")}
        plugins = [str(FILES[name]), *own.pop("plugins", [])]
        options = own.pop("game", {})
        game = options if isinstance(options, str) else {"name": name, **options}
        tables[name] = {**common, **own, "plugins": plugins, "game": game}
    return tables
