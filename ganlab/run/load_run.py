"""`ganlab.load_run`: reads a run folder from Python, with the generator of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.load import load_experiment
from ganlab.config.schema import Experiment
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.evaluation.latents import check_truncation
from ganlab.evaluation.sampling import sample
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.protocols import ImageSpec
from ganlab.run.kept_plugins import kept_plugin_finder
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.device import pick_device
from ganlab.utils.errors import UserError, one_line
from ganlab.utils.paths import places

NEEDED_TO_SAMPLE = ("generator",)
"""The kinds of components that a run's samples depend on; if its conditions are images, the data set too."""


@frozen
class Run:
    """A run read from its folder by `load_run`: its experiment, records, and the generator of one checkpoint.

    `weights` says which weights the generator has: "ema" where the run has an EMA, else "plain".
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
    conditions: ConditionSampler

    def sample(self, count: int, seed: int = 0, label: int | None = None, truncation: float | None = None) -> Tensor:
        """Samples a run that `load_run` read: uint8 images (count, C, H, W) on the CPU; equal seeds give equal images.

        `label` asks for images of one class. `truncation` is the distance from 0 at which the normal distribution of
        latents is cut off: the smaller, the more alike the images. Raises UserError where the run has no such class, or
        for a truncation that is not above 0.
        """
        return self.sample_with_condition(count, seed, label, truncation)[0]

    def sample_with_condition(
        self, count: int, seed: int = 0, label: int | None = None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `sample` of a run that `load_run` read, with conditions: class labels (count,), images, or None."""
        check_truncation(truncation)
        device = next(self.generator.parameters()).device
        conditions = self.conditions if label is None else self.conditions.of_class(label)
        batches = sample(self.generator, count, seed, device, conditions, truncation=truncation)
        drawn = [(images.cpu(), condition) for images, condition in batches]
        conditions_drawn = [condition for _, condition in drawn if condition is not None]
        return torch.cat([images for images, _ in drawn]), torch.cat(conditions_drawn) if conditions_drawn else None


def load_run(
    path: str | Path,
    step: int | None = None,
    device: str = "cpu",
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
) -> Run:
    """Loads a run from its folder: its experiment, records, and the generator of a checkpoint, by default the latest.

    `plugins` are plugin files to load besides those that the run names. A plugin file that is gone is replaced by the
    copy in the run folder. Components other than the generator may be missing: the experiment has a `MissingComponent`
    for each. Raises UserError where the folder is no run or has no checkpoint of that step.
    """
    return load_run_for(NEEDED_TO_SAMPLE, Path(path), step, device, overrides, map(Path, plugins))


def load_run_for(
    kinds: Collection[str],
    path: Path,
    step: int | None,
    device: str,
    overrides: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
) -> Run:
    """As `load_run`, for a command that needs the components of these kinds, and the data set for its conditions."""
    info = read_info(path)
    saved = list_checkpoints(path / "checkpoints")
    if not saved:
        raise UserError(f"{path}: this run has no checkpoint yet")
    step = max(saved) if step is None else step
    if step not in saved:
        steps = [str(known) for known in saved]
        raise UserError(f"--step {step}: {path} has no such checkpoint; there are: {', '.join(steps)}")
    needed = {*kinds, "dataset"} if info.get("condition") == "images" else kinds
    optional = KINDS.keys() - needed
    locate = kept_plugin_finder(path, info)
    try:
        experiment, plugins = load_experiment(
            path / "experiment.toml", overrides, plugin_files, locate=locate, optional=optional
        )
    except UserError as error:
        raise UserError(*error.problems, *_missing_components(info)) from None
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
        conditions=_conditions(experiment, info),
    )


def _missing_components(info: dict[str, Any]) -> list[str]:
    """Of a run that `load_run` refuses: the components whose plugins are missing now, and where they came from."""
    registry = load_plugins().registry
    missing = []
    for label, origin in info.get("components", {}).items():
        kind, _, name = label.partition(".")
        there = {part.name for part in registry.of_kind(kind)} if kind in KINDS else {name}
        if name not in there and not Path(origin.get("file") or ".").is_file():
            whose = f"{origin.get('distribution', '')} {origin.get('version', '')}".strip() or origin.get("file", "")
            missing.append(f"the run had the {kind} {name!r} from {origin.get('plugin')} ({whose})")
    return missing


def _conditions(experiment: Experiment, info: dict[str, Any]) -> ConditionSampler:
    """Of a run that `load_run` read, its samples' conditions: classes as often as run.json says, or images."""
    known = info.get("condition")
    if known == "images":
        return ConditionSampler.of(experiment.dataset.build(places(), "train"))
    return ConditionSampler.counted(known or ())
