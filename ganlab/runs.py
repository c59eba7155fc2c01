"""Reading a run folder from Python: `ganlab.load_run`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.build import pick_device
from ganlab.checkpoint import list_checkpoints, load_checkpoint
from ganlab.config import Experiment, load_experiment
from ganlab.errors import UserError, one_line
from ganlab.evaluation import sample
from ganlab.plugins import Plugins
from ganlab.protocols import ImageSpec
from ganlab.runfolder import read_info, read_records


@frozen
class Run:
    """A run that was read back: what it was told, what it recorded, and the generator of one checkpoint.

    `weights` says whose weights the generator has: "ema" where the run kept an average, else "plain".
    """

    path: Path
    step: int
    experiment: Experiment
    info: dict[str, Any]
    log: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    generator: nn.Module
    weights: str
    plugins: Plugins

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """uint8 images (count, C, H, W) on the CPU; equal seeds give equal images."""
        device = next(self.generator.parameters()).device
        return torch.cat([images.cpu() for images in sample(self.generator, count, seed, device)])


def load_run(path: str | Path, step: int | None = None, device: str = "cpu", overrides: Iterable[str] = ()) -> Run:
    """Reads a run folder: its experiment, records, and the generator of a checkpoint (the latest one by default).

    Raises UserError where the folder is no run or has no checkpoint of that step.
    """
    path = Path(path)
    info = read_info(path)
    saved = list_checkpoints(path / "checkpoints")
    if not saved:
        raise UserError(f"{path}: this run has no checkpoint yet")
    step = max(saved) if step is None else step
    if step not in saved:
        steps = [str(known) for known in saved]
        raise UserError(f"--step {step}: {path} has no such checkpoint; there are: {', '.join(steps)}")
    experiment, plugins = load_experiment(path / "experiment.toml", overrides)
    network = experiment.generator.build(ImageSpec(**info["images"]))
    state = load_checkpoint(saved[step], {"generator", "ema"})
    weights = "ema" if "ema" in state else "plain"
    try:
        network.load_state_dict(state["ema" if "ema" in state else "generator"])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{saved[step]}: does not fit the experiment: {one_line(error)}") from None
    return Run(
        path=path,
        step=step,
        experiment=experiment,
        info=info,
        log=read_records(path / "log.jsonl"),
        metrics=read_records(path / "metrics.jsonl"),
        generator=network.requires_grad_(False).eval().to(pick_device(device)),
        weights=weights,
        plugins=plugins,
    )
