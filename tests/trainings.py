"""Trainings of experiments in a process of its own, which may be one of several, and the weights that they end with."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from children import set_environment
from ganlab.config.load import load_experiment
from ganlab.training.build import build
from ganlab.training.loop import take_step
from ganlab.utils import distributed
from ganlab.utils.distributed import process_group
from ganlab.utils.paths import places
from stubs import CPU


class Trainings:
    """The work of a process: a few steps of each experiment, and the weights of all of its networks into a file."""

    def __init__(self, files: list[Path], out: Path, environment: dict[str, str] | None = None) -> None:
        self.files, self.out, self.environment = files, out, environment or {}

    def __call__(self) -> None:
        set_environment(self.environment)
        with process_group(CPU):
            for file in self.files:
                experiment, plugins = load_experiment(file)
                training = build(experiment, plugins.registry, places(), CPU)
                for step in range(training.total_steps):
                    take_step(training, step)
                networks = training.game.networks.values()
                weights = [value.double().flatten() for network in networks for value in network.state_dict().values()]
                if distributed.rank() == 0:
                    save_file({"weights": torch.cat(weights)}, self.out / f"{file.stem}.safetensors")
