"""Resuming a run (`--resume`): what must be as it was, and restoring the latest checkpoint.

Decisions:
- A run is resumed only where it will be bitwise identical to an uninterrupted one, or where `--anyway` says that it
  need not be. What the bits depend on is written into run.json and compared, one line for each difference.
- Of a bundled plugin the release counts, as it does for the core: its file may be elsewhere or have changed. Of an
  installed or local plugin the content of its file counts, wherever it lies, and that of the local files it imports.
- Records and samples of steps after the checkpoint are dropped, since those steps are repeated.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import attrs

from ganlab.config.converter import InvalidTable
from ganlab.config.game_tables import file_path
from ganlab.config.load import convert_experiment, experiment_to_table
from ganlab.config.schema import NO_RESULTS, Experiment, InitFrom
from ganlab.config.toml import LONGEST_PATH, read_toml
from ganlab.plugin.component import MissingComponent
from ganlab.plugin.fields import COMPONENT, LOCATION
from ganlab.plugin.loader import Plugins
from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder
from ganlab.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.training.loop import Training
from ganlab.training.state import restore_training
from ganlab.utils import distributed
from ganlab.utils.errors import UserError, one_line
from ganlab.utils.files import remove_path
from ganlab.utils.hashing import file_sha256, sha256
from ganlab.viz.progress import ProgressView

MOST_DIFFERENCES = 20
"""How many differences between a run and the one to resume it as are reported, a line each."""


FREE = (
    *("train.steps", "train.epochs", "plugins", "components.tracker", "observers", "dataset.left_out_files"),
    *NO_RESULTS,
)
"""What may change on resume, since the finished steps do not depend on it."""

RELEASE = ("source", "distribution", "version")
"""What must not change on resume of what run.json says of a component from a bundled plugin."""


def asks_for_another_length(path: Path, experiment: Experiment) -> bool:
    """Whether a resume asks for another number of steps, or of epochs, than the run in the folder had."""
    before = read_toml(path / "experiment.toml").get("train")
    if not isinstance(before, Mapping):
        raise UserError(f"{path / 'experiment.toml'}: damaged: it has no table [train]")
    return (before.get("steps"), before.get("epochs")) != (experiment.train.steps, experiment.train.epochs)


def check_finished(path: Path, experiment: Experiment, plugins: Plugins, advice: str) -> None:
    """Refuses to take a finished run for that of another experiment; raises UserError, which ends in `advice`.

    Where plugin files and data lie does not matter, nor does the number of steps, for which there is
    `asks_for_another_length`.
    """
    now = _flat(experiment_to_table(experiment, plugins))
    before = read_toml(path / "experiment.toml")
    try:  # an option that a later release has added had its default
        was = _flat(experiment_to_table(convert_experiment(before, plugins), plugins))
    except InvalidTable:  # what a later release has dropped cannot be asked for
        was = _flat(before)
        now = {key: value for key, value in now.items() if key in was}
        was = {key: value for key, value in was.items() if key in now}
    if lines := _changed_values(path, was, now, set(location_keys(experiment))):
        raise UserError(
            *lines[:MOST_DIFFERENCES],
            f"{path}: has finished with the earlier options; {advice}",
        )


def experiment_identity(table: Mapping[str, Any], locations: Collection[str] = ()) -> str:
    """What must not change on resume, as a hash of the experiment without the options that are `locations`.

    Each checkpoint carries it. Checkpoints of earlier releases carry that with the locations.
    """
    flat = {key: value for key, value in _flat(table).items() if _is_bound(key) and key not in locations}
    return sha256(json.dumps(flat, sort_keys=True).encode())


def location_keys(experiment: Experiment) -> Iterator[str]:
    """What may change on resume of an experiment: the keys of its options that are paths (`ganlab.location`)."""
    game = experiment.game
    for path in _location_paths(experiment):
        yield ".".join(file_path(path, game)).replace(".[", "[")


def _location_paths(instance: Any) -> Iterator[tuple[str, ...]]:
    """Where an experiment to resume has options that are paths, as names of fields and indices of lists."""
    for f in attrs.fields(type(instance)):
        value = getattr(instance, f.name)
        if LOCATION in f.metadata:
            yield (f.alias,)
        elif isinstance(value, InitFrom):
            yield from ((f.alias, *path) for path in _location_paths(value))
        elif COMPONENT in f.metadata and value is not None and not isinstance(value, MissingComponent):
            for index, item in enumerate(value if isinstance(value, tuple) else (value,)):
                for path in _location_paths(item):
                    yield (f.alias, *((f"[{index}]",) if isinstance(value, tuple) else ()), *path)


def earlier_experiment(folder: RunFolder, view: ProgressView, anyway: bool) -> dict[str, Any]:
    """The experiment of the run to resume, as a table; with `anyway` empty where its file is damaged."""
    try:
        return read_toml(folder.experiment_file)
    except UserError as error:
        if not anyway:
            raise
        view.line(str(error))
        return {}


def check_resumable(
    folder: RunFolder,
    before: dict[str, Any],
    table: dict[str, Any],
    environment: dict[str, Any],
    training: Training,
    view: ProgressView,
    locations: Set[str],
    anyway: bool,
) -> None:
    """Refuses to resume a run that would not continue with the same bits; raises UserError.

    `folder.info` is run.json of the earlier run and `before` its experiment; `table` and `environment` are the
    experiment and environment now, and `locations` the keys of its paths. With `anyway` the differences are reported,
    and the run is resumed.
    """
    differences = _differences(folder, before, table, environment, training, locations)
    changed = _changed_schedules(folder, training)
    if anyway:
        for line in [*differences, *changed]:
            view.line(line)
    elif differences:
        raise UserError(
            *differences,
            f"{folder.path}: resuming would not repeat the run bitwise; to resume nevertheless: --resume --anyway",
        )
    elif changed:
        raise UserError(*(f"{line}; to resume nevertheless: --resume --anyway" for line in changed))
    was, now = _flat(before), _flat(table)
    for key in sorted(locations & was.keys()):
        if was[key] != now.get(key):
            old, new = (one_line(repr(values.get(key)), limit=LONGEST_PATH) for values in (was, now))
            view.line(f"{folder.path}: {key}: was {old}, is now {new}")
    if not anyway:
        _report_changed_bundled_files(folder, environment["components"], view)


def _differences(
    folder: RunFolder,
    before: dict[str, Any],
    table: dict[str, Any],
    environment: dict[str, Any],
    training: Training,
    locations: Set[str],
) -> list[str]:
    """Why a resume would not repeat the run: a line for each difference of the experiment and the environment."""
    path, earlier = folder.path, {key: folder.info.get(key) for key in environment}
    environment = dict(environment)
    if earlier["weights_files"] is None:  # of a run that began before they were recorded
        del environment["weights_files"]
    imports = earlier.pop("imports"), environment.pop("imports")
    changed = _changed_imports(path, *imports, environment["components"])
    earlier["components"], environment["components"] = _binding(earlier["components"], environment["components"])
    for values in (earlier, environment):  # a data set may be called after its folder; its fingerprint is compared
        if isinstance(of := values.get("dataset"), Mapping):
            values["dataset"] = {key: item for key, item in of.items() if key != "name"}
    if isinstance(optimizations := folder.info.get("step_levers"), Mapping):
        # Those of the game depend on the networks: a discriminator may declare `batch_independent` now and not have
        # done so before, or the other way round. The others depend on the device.
        now = training.game.rules.levers(training.game.networks)
        both = {name: value for name, value in now.items() if name in optimizations}
        earlier["step_levers"], environment["step_levers"] = {name: optimizations[name] for name in both}, both
    had, wanted = _flat(before) | _flat(earlier), _flat(table) | _flat(environment)
    if "dataset.condition_sha256" not in had:  # of a run that began before the labels' hash was recorded
        wanted.pop("dataset.condition_sha256", None)
    lines = [*changed, *_changed_values(path, had, wanted, locations)]
    left_out = len(lines) - MOST_DIFFERENCES
    return lines[:MOST_DIFFERENCES] + ([f"{path}: and {left_out} more"] if left_out > 0 else [])


def _changed_values(path: Path, had: Mapping[str, Any], wanted: Mapping[str, Any], locations: Set[str]) -> list[str]:
    """A line for each value, by dotted key, that must not change on resume and has changed."""
    keys = filter(_is_bound, (had.keys() | wanted.keys()) - locations)
    differing = sorted(key for key in keys if had.get(key) != wanted.get(key))
    was, now = ({key: one_line(repr(values.get(key))) for key in differing} for values in (had, wanted))
    return [f"{path}: {one_line(key)}: was {was[key]}, is now {now[key]}" for key in differing]


def _changed_imports(run: Path, before: Any, now: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each local file that a plugin of the run to resume imports, and that has changed.

    `before` and `now` are the imports of each plugin, by module. Runs of earlier releases have none. One that is not
    found now, since it is imported by a name that is computed, is looked for where it was.
    """
    bound = {origin.get("plugin") for label, origin in components.items() if _is_bound(f"components.{label}")}
    for plugin, files in (before if isinstance(before, Mapping) else {}).items():
        for module, was in files.items() if plugin in bound else ():
            file = was["file"]
            here = now.get(plugin, {}).get(module)
            if here is None and Path(file).is_file():
                here = {"file": file, "sha256": file_sha256(Path(file))}
            if here is None:
                yield f"{run}: {one_line(file, LONGEST_PATH)}, which plugin {plugin} imports: is gone"
            elif here["sha256"] != was["sha256"]:
                file = one_line(here["file"], LONGEST_PATH)
                yield f"{run}: {file}, which plugin {plugin} imports: has changed since the run began"


def _binding(before: Any, now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What must be equal of the components of a run and of its resume: of bundled ones the release, else the content.

    Where a plugin's file lies does not matter.
    """
    before = before if isinstance(before, Mapping) else {}
    bundled = _bundled_in_both(before, now)

    def binding(label: str, origin: Any) -> Any:
        if not isinstance(origin, Mapping):
            return origin
        return {key: item for key, item in origin.items() if (key in RELEASE if label in bundled else key != "file")}

    first, second = ({label: binding(label, origin) for label, origin in of.items()} for of in (before, now))
    return first, second


def _bundled_in_both(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The components that come from a bundled plugin both in the earlier run and in its resume."""

    def is_bundled(origin: Any) -> bool:
        return isinstance(origin, Mapping) and origin.get("source") == "bundled"

    return [label for label in now if is_bundled(now[label]) and is_bundled(before.get(label))]


def _report_changed_bundled_files(folder: RunFolder, now: Mapping[str, Any], view: ProgressView) -> None:
    """Reports in one line which bundled plugin files have changed since the run to resume began."""
    before = folder.info["components"]
    bundled = _bundled_in_both(before, now)
    bundled = [label for label in bundled if _is_bound(f"components.{label}")]
    changed = [label for label in bundled if before[label].get("sha256") != now[label].get("sha256")]
    if changed:
        view.line(
            f"{folder.path}: bundled files have changed since the run began, within the same release: "
            f"{', '.join(changed)}; going on"
        )


def _changed_schedules(folder: RunFolder, training: Training) -> list[str]:
    """Why a resume with another number of steps would not repeat the run: a schedule's earlier values depend on it."""
    before = folder.info.get("total_steps", training.total_steps)
    done = distributed.broadcast_json(lambda: max(list_checkpoints(folder.checkpoints), default=0))
    if changed := training.schedules.keys_changed_by_total(before, done):
        return [
            f"{folder.path}: {', '.join(changed)}: scheduled over the whole run, which had {before:,} steps and is now "
            f"to have {training.total_steps:,}: the values in the {done:,} finished steps would differ. Give the "
            "schedule an `end` in a new run"
        ]
    return []


def _is_bound(key: str) -> bool:
    """Whether a key of an experiment or environment must not change on resume: it is not in `FREE`, nor inside one."""
    return key not in FREE and not key.startswith(tuple(f"{free}{mark}" for free in FREE for mark in ".["))


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """Nested tables and lists, as dotted keys."""
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{at}.{key}" if at else str(key)).items()}
    if isinstance(value, list):
        return {k: v for index, item in enumerate(value) for k, v in _flat(item, f"{at}[{index}]").items()}
    return {at: value}


def restore_latest(
    folder: RunFolder, training: Training, view: ProgressView, identities: Collection[str], anyway: bool
) -> int | None:
    """Resumes a run from its latest whole checkpoint and drops later records; returns the step to resume at.

    None where there is no checkpoint, or with `anyway` no whole one: the run begins again.
    `identities` are those that a checkpoint of this experiment may have. A damaged checkpoint is reported and renamed.
    """
    damaged: dict[Path, str] = {}
    for step, path in reversed(list_checkpoints(folder.checkpoints).items()):
        try:
            state = load_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
            continue
        for line in damaged.values():
            view.line(f"{line}; using the one before")
        if step > training.total_steps:
            raise UserError(f"{folder.path}: is at step {step:,} already; {training.total_steps:,} are asked for")
        progress = state.get("progress", {})
        if progress.get("experiment") not in identities and not anyway:
            raise UserError(f"{path}: belongs to another experiment; to resume from it nevertheless: --resume --anyway")
        try:
            begin_anew = restore_training(training, state, new_options=anyway)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if begin_anew:
            view.line(f"{path}: begin anew, since it has no state that fits: {', '.join(begin_anew)}")
        _report_missing_records(folder, progress.get("records", {}), step, view)
        _rename_damaged(folder, damaged)
        folder.forget_after(step)
        view.line(f"resuming {folder.path} at step {step:,}")
        return step
    if damaged and not anyway:
        raise UserError(
            *damaged.values(), f"{folder.path}: no checkpoint is whole; to start again from step 0: --resume --anyway"
        )
    _rename_damaged(folder, damaged)
    folder.forget_after(-1)
    view.line(f"{folder.path}: no checkpoint to resume from; starting at step 0")
    return None


def _rename_damaged(folder: RunFolder, damaged: Iterable[Path]) -> None:
    """Renames damaged checkpoints on resume: as the latest ones they would be kept, and whole ones be removed."""
    for path in damaged if folder.writes else ():
        aside = path.with_name(f"damaged-{path.name}")
        remove_path(aside)
        path.rename(aside)


def _report_missing_records(folder: RunFolder, counts: Mapping[str, int], step: int, view: ProgressView) -> None:
    """Reports on resume that there are fewer records than when the checkpoint was saved."""
    for file, count in counts.items():
        records = read_records(folder.path / file)
        left = sum(record["step"] <= step and not record.get("eval") for record in records)
        if left < count:
            view.line(f"{folder.path / file}: {count - left} of {count} records up to step {step:,} are gone")
