"""`ganlab.load_run`: reads a run folder from Python, with the networks of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.load import load_experiment
from ganlab.config.schema import Experiment
from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampler_options import sampler_options
from ganlab.evaluation.sampling import check_sampling, ignores_truncation, room_for_samples, sample
from ganlab.plugin.component import MissingComponent
from ganlab.plugin.kinds import KINDS, NETWORK_KINDS
from ganlab.plugin.loader import Plugins
from ganlab.protocols import Dataset, DataSpec, ImageSpec, Rules, Sampler, map_condition, named_conditions
from ganlab.run.checkpoint_networks import CheckpointNetworks, callable_with_latents
from ganlab.run.images_to_project import FileOptions, project_given
from ganlab.run.kept_plugins import kept_plugin_finder
from ganlab.run.latents_file import latents_for, read_latents
from ganlab.run.missing_components import missing_components
from ganlab.run.mix import mix
from ganlab.run.notebook import run_frame, run_html
from ganlab.run.project import Projection, ProjectionOptions
from ganlab.run.records import read_records
from ganlab.run.run_conditions import run_conditions
from ganlab.run.run_folder import read_info
from ganlab.run.scheduled_game import game_at_step
from ganlab.run.translate import translate
from ganlab.run.walk import WalkRequest, walk_film
from ganlab.training.checkpoint import list_checkpoints
from ganlab.utils.device import pick_device, set_float32_precision
from ganlab.utils.errors import UserError, did_you_mean, quote, whole_number
from ganlab.utils.from_python import from_python
from ganlab.viz.film import Film

NEEDED_TO_SAMPLE = ("game",)
"""The kinds of components that a run's samples depend on, besides networks; with images as conditions, data sets."""


@frozen
class Run:
    """A run read from its folder by `load_run`: its experiment, records, and the networks of one checkpoint.

    `networks` are all networks of the game by name, in eval mode; each is also an attribute of its name, such as
    `run.generator`. `weights` says which weights the sampled ones have: "ema" where the run has an EMA, else "plain".
    `sampler` makes images of latents and conditions. `condition_data` is the data set that conditions are drawn from,
    None where run.json has what is needed of it. `sampler_name` is that of a further sampler, empty for the main one.
    """

    path: Path
    step: int
    experiment: Experiment
    info: dict[str, Any]
    log: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    networks: CheckpointNetworks
    sampler: NetworkSampler
    rules: Rules
    weights: str
    plugins: Plugins
    conditions: ConditionSampler
    overrides: tuple[str, ...] = ()
    plugin_files: tuple[Path, ...] = ()
    condition_data: Dataset | None = None
    sampler_name: str = ""

    def __getattr__(self, name: str) -> nn.Module:
        if name != "networks" and name in self.networks:
            return self.networks[name]
        there = "" if name.startswith("_") else f"; the run's networks are: {', '.join(self.networks)}"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{there}")

    @property
    def device(self) -> torch.device:
        """Of a run that `load_run` read: the device of its networks."""
        return next(self.sampler.parameters()).device

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a run that `load_run` read: the names of the classes by label; () where its networks or data have none."""
        return self.conditions.names

    @property
    def sampled(self) -> ImageSpec:
        """Of a run that `load_run` read: the shape and type of the images that it samples."""
        return _made_by(self.sampler.sampler, self.info)

    @from_python
    def with_sampler(self, name: str = "", options: Mapping[str, Any] | None = None) -> Run:
        """Returns a run that `load_run` read with another of its game's samplers, by name, and with these options.

        The main sampler has the empty name. Raises UserError for a sampler or an option that there is not.
        """
        samplers = {"": self.rules.main_sampler, **self.rules.samplers}
        if name not in samplers:
            known = list(self.rules.samplers)
            listed = f"; the further samplers are: {', '.join(known)}" if known else "; it has none but the main one"
            near = did_you_mean(name, known) or listed
            raise UserError(f"--sampler {quote(name)}: the game of this run has no such sampler{near}")
        sampler = samplers[name]
        values = sampler_options(sampler, options or {})
        if missing := [network for network in sampler.networks if network not in self.networks]:
            lines = missing_components(self.info, NETWORK_KINDS)
            raise UserError(f"--sampler {name}: the network {missing[0]!r} is missing", *lines)
        conditions, data = self.conditions, self.condition_data
        if name != self.sampler_name:
            conditions, data = run_conditions(self.experiment, self.info, sampler, name)
        made = NetworkSampler(sampler, self.networks, _made_by(sampler, self.info).dtype, values)
        return attrs.evolve(self, conditions=conditions, condition_data=data, sampler_name=name, sampler=made)

    @from_python
    def sample(
        self,
        count: int,
        seed: int = 0,
        label: int | str | None = None,
        truncation: float | None = None,
        sampler: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Samples a run that `load_run` read: uint8 images (count, C, H, W) on the CPU; equal seeds give equal images.

        Of other data the samples have the data's own type and shape.

        `label` asks for images of one class, by its number or its name. `truncation` is the distance from 0 at which
        the normal distribution of latents is cut off: the smaller, the more alike the images. `sampler` is a further
        sampler of the game, and `options` are the sampler's own. Raises UserError where the run makes no samples or has
        no such class, sampler or option, for a truncation that is not above 0 or that the sampler does not take, a
        count that is not above 0 or too large for memory, and a seed below 0.
        """
        return self.sample_with_condition(count, seed, label, truncation, sampler, options)[0]

    @from_python
    def sample_with_condition(
        self,
        count: int,
        seed: int = 0,
        label: int | str | None = None,
        truncation: float | None = None,
        sampler: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, Any]:
        """As `sample` of a run that `load_run` read, with conditions: class labels (count,), images, … or None."""
        if sampler is not None or options:
            chosen = self.with_sampler(self.sampler_name if sampler is None else sampler, options)
            return chosen.sample_with_condition(count, seed, label, truncation)
        count, seed = check_sampling(count, seed, truncation)
        self.check_samples(truncation)
        conditions = self.conditions if label is None else self.conditions.of_class(label)
        images: Tensor | None = None
        drawn: Any = None
        done = 0
        for part, condition in sample(self.sampler, count, seed, self.device, conditions, truncation=truncation):
            if images is None:  # made once, since parts that are put together at the end take the memory twice
                images = room_for_samples(count, part)
                drawn = map_condition(lambda of: of.new_empty(count, *of.shape[1:]), condition)
            images[done : done + len(part)] = part
            for room, given in zip(named_conditions(drawn).values(), named_conditions(condition).values(), strict=True):
                room[done : done + len(part)] = given
            done += len(part)
        assert images is not None
        return images, drawn

    @from_python
    def translate(
        self, images: Tensor, to: str = "", options: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        """Translates images by a run that `load_run` read: of the data's type, (n, C, H, W), on the CPU.

        `images` are uint8 (n, C, H, W), or of the type of the data that the run was trained with, of any size that its
        networks take. `to` is the direction: "a" for the sampler `b_to_a`; by default the main one. `options` are the
        sampler's, and `seed`, by default 0, is of latents, for networks that have any. Raises UserError where the run
        translates nothing, has no such direction, or was trained with other channels or sizes.
        """
        return translate(self, images, to, options, seed)

    @from_python
    def walk(
        self,
        seeds: int | Sequence[int] | None = None,
        labels: Sequence[int | str] = (),
        latents: Tensor | str | Path | None = None,
        count: int | None = None,
        frames: int | None = None,
        fps: float = 30.0,
        loop: bool = True,
        truncation: float | None = None,
    ) -> Film:
        """Walks through the latents of a run that `load_run` read: a film, as of `ganlab sample --walk`.

        seeds: the samples that it passes: the first `count` of one seed, by default 8 of 0, or the first of several.
        labels: classes that it passes, by number or name, along with the samples. latents: (N, …) to pass instead, or a
        file of them. frames: the length, by default 60 from one to the next. loop: it ends where it begins. Raises
        UserError for a walk that leads nowhere and for what the run has not.
        """
        given = read_latents(self, Path(latents)) if isinstance(latents, (str, Path)) else None
        if isinstance(latents, Tensor):
            given = latents_for(self, latents)
        seeds = (seeds,) if isinstance(seeds, int) else seeds
        return walk_film(self, WalkRequest(frames, fps, loop, seeds, tuple(labels), count, truncation, given))

    @from_python
    def mix(self, layers: str | Sequence[int], count: int = 6, seed: int = 0, label: int | str | None = None) -> Tensor:
        """Mixes the styles of samples of a run that `load_run` read, as `ganlab sample --mix`.

        Returns images (count + 1, count + 1, C, H, W): sources in the first row and column, `layers` of the column's.
        """
        return mix(self, layers, count, seed, label)

    @from_python
    def project(
        self,
        images: Tensor | str | Path | Sequence[str | Path],
        updates: int = 500,
        starts: int = 256,
        lr: float = 0.1,
        seed: int = 0,
        label: int | str | None = None,
        features: str | None = None,
        overrides: Sequence[str] = (),
        feature_weight: float = 1.0,
        range: Sequence[float] | None = None,
        frame_step: int = 1,
        one_style: bool = False,
    ) -> Projection:
        """Projects images into the latents of a run that `load_run` read: which latents make them, by Adam.

        images: (N, C, H, W), of the type and shape that the run samples; or image files, or folders of them, with
        `range` and `frame_step` as of an `image_folder`. updates: of Adam, from the best of `starts` random latents.
        lr: the learning rate, in standard deviations of the latents. label: the class; by default that of the best
        random ones. features: a component of the kind `features` that is compared besides pixels, with options such as
        "features.weights=FILE" as `overrides`. one_style: latents that are styles are the same in all layers. Raises
        UserError for what cannot be projected.
        """
        options = ProjectionOptions(updates, starts, lr, seed, label, None, feature_weight, one_style)
        return project_given(self, images, options, features, overrides, FileOptions.of(range, frame_step))

    def check_samples(self, truncation: float | None = None) -> None:
        """Raises UserError where a run that `load_run` read makes no samples, or its sampler takes no truncation."""
        if why := self.rules.why_no_samples:
            raise UserError(f"{self.path}: {why}")
        if truncation is not None and ignores_truncation(self.sampler, truncation):
            of = f"the sampler {quote(self.sampler_name)}" if self.sampler_name else "the game's sampler"
            raise UserError(f"--truncation {truncation:g}: {of} takes none: its latents are the same with any")

    @from_python
    def frame(self, library: str | None = None) -> Any:
        """The records of a run that `load_run` read as a data frame of pandas or polars, a row a step.

        Its columns are `step`, `train/…` and `score/…`; raises UserError where neither library is installed.
        """
        return run_frame(self.log, self.metrics, library)

    def _repr_html_(self) -> str:
        return run_html(self.path, self.step, self.info, self.metrics)

    def __copy__(self) -> Run:
        return attrs.evolve(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        """Copies a run that `load_run` read: its networks and records; experiment and plugins are fixed, and shared."""
        own = {name: copy.deepcopy(getattr(self, name), memo) for name in ("info", "log", "metrics", "networks")}
        sampler = NetworkSampler(self.sampler.sampler, own["networks"], self.sampler.dtype, self.sampler.options)
        return attrs.evolve(self, **own, sampler=sampler)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles a run that `load_run` read: where its folder is, by which it is loaded again, and its weights.

        Classes of plugin files have no importable name, so what was made from them is not in the pickle.
        """
        files = tuple(str(file.absolute()) for file in self.plugin_files)
        arguments = (str(self.path.absolute()), self.step, str(self.device), self.overrides, files)
        weights = {name: net.state_dict() for name, net in self.networks.loaded.items()}
        return _load_pickled, (arguments, weights, self.sampler_name, self.sampler.options)


def _made_by(sampler: Sampler, info: Mapping[str, Any]) -> ImageSpec:
    """Of a run that `load_run` read: the shape and type of the images that one of its samplers makes."""
    return ImageSpec.recorded(info["streams"][sampler.makes] if sampler.makes else info["images"])


def _load_pickled(
    arguments: tuple[Any, ...], weights: dict[str, dict[str, Tensor]], sampler: str, options: dict[str, Any]
) -> Run:
    """Loads a run that was pickled from its folder, with the weights and the sampler that it had."""
    run = load_run(*arguments).with_sampler(sampler, options)
    for name, state in weights.items():
        run.networks[name].load_state_dict(state)
    return run


@from_python
def load_run(
    path: str | Path,
    step: int | None = None,
    device: str = "cpu",
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
) -> Run:
    """Loads a run from its folder: its experiment, records, and the networks of a checkpoint, by default the latest.

    `plugins` are plugin files to load besides those that the run names. A plugin file that is gone is replaced by the
    copy in the run folder. Components that samples do not need may be missing: the experiment has a `MissingComponent`
    for each, and `networks` lacks their networks. Raises UserError where the folder is not a run, or has no checkpoint
    of that step.
    """
    return load_run_for(NEEDED_TO_SAMPLE, Path(path), step, device, overrides, map(Path, plugins))


def load_run_for(
    kinds: Collection[str],
    path: Path,
    step: int | None,
    device: str,
    overrides: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    metrics: Iterable[str] = (),
    has_conditions: bool = True,
    check: Callable[[Run], None] | None = None,
) -> Run:
    """As `load_run`, for a command that needs the components of these kinds, and the data set for its conditions.

    `metrics` are names of those that the experiment is to have, where any are given. Without `has_conditions` no data
    set is needed or read, and the run has no conditions to sample for. `check` may refuse the run before data are read.
    """
    overrides, plugin_files = tuple(overrides), tuple(plugin_files)
    info = read_info(path)
    saved = list_checkpoints(path / "checkpoints")
    if not saved:
        raise UserError(f"{path}: this run has no checkpoint yet")
    step = max(saved) if step is None else whole_number("--step", step, 0)
    if step not in saved:
        steps = [str(known) for known in saved]
        raise UserError(f"--step {step}: {path} has no such checkpoint; there are: {', '.join(steps)}")
    needed = {*kinds, "dataset"} if has_conditions and isinstance(info.get("condition"), str) else set(kinds)
    optional = KINDS.keys() - needed
    locate = kept_plugin_finder(path, info, instead_of_changed=True)

    def load(optional: Collection[str]) -> tuple[Experiment, Plugins]:
        file = path / "experiment.toml"
        return load_experiment(file, overrides, plugin_files, (), locate, optional, metrics)

    try:
        experiment, plugins = load(optional)
        rules = game_at_step(experiment, step, info).build(_data_spec(info))
        configs: dict[str, Any] = {name: rules.network(name).config for name in rules.networks}
        missing = {name: config for name, config in configs.items() if isinstance(config, MissingComponent)}
        for name in configs:  # a network that is made of a missing one is missing too
            missing.update((name, missing[given]) for given in rules.network(name).given if given in missing)
        if lacking := {missing[name].kind for name in rules.main_sampler.networks if name in missing}:
            needed |= lacking
            load(optional - lacking)  # raises, and says what is missing
    except UserError as error:
        raise UserError(*error.problems, *missing_components(info, needed)) from None
    set_float32_precision(experiment.train.precision)  # as the run had it, so that its scores are the same again
    data = ImageSpec.recorded(info["images"])
    networks = CheckpointNetworks(rules, data, saved[step], pick_device(device))
    for name in rules.sampler.networks if rules.sampler else ():
        callable_with_latents(networks[name], info)
    run = Run(
        path=path,
        step=step,
        experiment=experiment,
        info=info,
        log=read_records(path / "log.jsonl"),
        metrics=read_records(path / "metrics.jsonl"),
        networks=networks,
        sampler=NetworkSampler(rules.main_sampler, networks, data.dtype),
        rules=rules,
        weights=networks.weights,
        plugins=plugins,
        conditions=UNCONDITIONAL,
        overrides=overrides,
        plugin_files=plugin_files,
    )
    if check is not None:
        check(run)
    if not has_conditions:
        return run
    conditions, condition_data = run_conditions(experiment, info, rules.main_sampler)
    return attrs.evolve(run, conditions=conditions, condition_data=condition_data)


def _data_spec(info: Mapping[str, Any]) -> DataSpec:
    """Of a run that `load_run` read: the shapes of the images that its game was built for."""
    streams = {name: ImageSpec.recorded(images) for name, images in info.get("streams", {}).items()}
    return DataSpec(ImageSpec.recorded(info["images"]), streams)
