"""`ganlab.load_run`: reads a run folder from Python, with the generator of a checkpoint."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.load import load_experiment
from ganlab.config.schema import Experiment
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.load_dataset import load_dataset
from ganlab.evaluation.latents import check_truncation
from ganlab.evaluation.sampling import sample
from ganlab.nn.pretrained import note_weights
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
    overrides: tuple[str, ...] = ()
    plugin_files: tuple[Path, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a run that `load_run` read: the names of the classes by label; () where its networks or data have none."""
        return self.conditions.names

    def sample(
        self, count: int, seed: int = 0, label: int | str | None = None, truncation: float | None = None
    ) -> Tensor:
        """Samples a run that `load_run` read: uint8 images (count, C, H, W) on the CPU; equal seeds give equal images.

        `label` asks for images of one class, by its number or its name. `truncation` is the distance from 0 at which
        the normal distribution of latents is cut off: the smaller, the more alike the images. Raises UserError where
        the run has no such class, for a truncation that is not above 0, or for a count below 1.
        """
        return self.sample_with_condition(count, seed, label, truncation)[0]

    def sample_with_condition(
        self, count: int, seed: int = 0, label: int | str | None = None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `sample` of a run that `load_run` read, with conditions: class labels (count,), images, or None."""
        check_truncation(truncation)
        if count < 1:
            raise UserError(f"--count {count}: expected at least 1")
        device = next(self.generator.parameters()).device
        conditions = self.conditions if label is None else self.conditions.of_class(label)
        images = drawn = None
        done = 0
        for part, condition in sample(self.generator, count, seed, device, conditions, truncation=truncation):
            if images is None:  # made once, since parts that are put together at the end take the memory twice
                images = torch.empty(count, *part.shape[1:], dtype=part.dtype)
                drawn = None if condition is None else condition.new_empty(count, *condition.shape[1:])
            images[done : done + len(part)] = part
            if drawn is not None and condition is not None:
                drawn[done : done + len(part)] = condition
            done += len(part)
        assert images is not None
        return images, drawn

    def __copy__(self) -> Run:
        return attrs.evolve(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        """Copies a run that `load_run` read: its network and records; experiment and plugins are fixed, and shared."""
        own = {name: copy.deepcopy(getattr(self, name), memo) for name in ("info", "log", "metrics", "generator")}
        return attrs.evolve(self, **own)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles a run that `load_run` read: where its folder is, by which it is loaded again, and its weights.

        Classes of plugin files have no importable name, so what was made from them is not in the pickle.
        """
        device = str(next(self.generator.parameters()).device)
        files = tuple(str(file.absolute()) for file in self.plugin_files)
        arguments = (str(self.path.absolute()), self.step, device, self.overrides, files)
        return _load_pickled, (arguments, self.generator.state_dict())


def _load_pickled(arguments: tuple[Any, ...], weights: dict[str, Tensor]) -> Run:
    """Loads a run that was pickled from its folder, with the weights that it had."""
    run = load_run(*arguments)
    run.generator.load_state_dict(weights)
    return run


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
    overrides, plugin_files = tuple(overrides), tuple(plugin_files)
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
    locate = kept_plugin_finder(path, info, instead_of_changed=True)
    try:
        experiment, plugins = load_experiment(
            path / "experiment.toml", overrides, plugin_files, locate=locate, optional=optional
        )
    except UserError as error:
        raise UserError(*error.problems, *_missing_components(info, needed)) from None
    network = experiment.generator.build(ImageSpec(**info["images"]))
    state = load_checkpoint(saved[step], {"generator", "ema"})
    weights = "ema" if "ema" in state else "plain"
    part = "ema" if "ema" in state else "generator"
    note_weights(saved[step] / f"{part}.safetensors")  # where another run is initialised by these
    try:
        network.load_state_dict(state[part])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{saved[step]}: does not fit the experiment: {one_line(error)}") from None
    return Run(
        path=path,
        step=step,
        experiment=experiment,
        info=info,
        log=read_records(path / "log.jsonl"),
        metrics=read_records(path / "metrics.jsonl"),
        generator=_callable_with_latents(network, info).requires_grad_(False).eval().to(pick_device(device)),
        weights=weights,
        plugins=plugins,
        conditions=_conditions(experiment, info),
        overrides=overrides,
        plugin_files=plugin_files,
    )


def _callable_with_latents(network: nn.Module, info: dict[str, Any]) -> nn.Module:
    """Lets the generator of a run that `load_run` reads be called as `generator(z)`, if it does not use conditions.

    Bundled networks have a default for the condition; one of a plugin may not.
    """
    if info.get("condition") is None:
        try:
            inspect.signature(network.forward).bind(None)
        except TypeError:
            network.register_forward_pre_hook(_without_condition, with_kwargs=True)
        except ValueError:  # no signature, as of a compiled function
            pass
    return network


def _without_condition(
    network: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Gives the generator of a run that `load_run` read the condition None where it is called without one."""
    return ((*inputs, None), named) if len(inputs) == 1 and not named else (inputs, named)


def _missing_components(info: dict[str, Any], kinds: Collection[str]) -> list[str]:
    """Of a run that `load_run` refuses: the components of these kinds whose plugins are missing, and their origins."""
    registry = load_plugins().registry
    missing = []
    for label, origin in info.get("components", {}).items():
        kind, _, name = label.partition(".")
        if kind not in kinds:
            continue
        there = {part.name for part in registry.of_kind(kind)} if kind in KINDS else {name}
        if name not in there and not Path(origin.get("file") or ".").is_file():
            whose = f"{origin.get('distribution', '')} {origin.get('version', '')}".strip() or origin.get("file", "")
            missing.append(f"the run had the {kind} {name!r} from {origin.get('plugin')} ({whose})")
    return missing


def _conditions(experiment: Experiment, info: dict[str, Any]) -> ConditionSampler:
    """Of a run that `load_run` read, its samples' conditions: classes as often as run.json says, or images.

    Runs of earlier releases have no names of classes in run.json.
    """
    known = info.get("condition")
    if known == "images":
        return ConditionSampler.of(load_dataset(experiment.dataset, places(), "train"))
    names = info.get("classes")
    return ConditionSampler.counted(known or (), tuple(map(str, names)) if isinstance(names, list) else ())
