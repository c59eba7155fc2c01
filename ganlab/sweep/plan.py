"""Planning a sweep: a sweep file is read, and its variants times its seeds become resolved experiment files.

Decisions:
- A sweep file says only what differs from the base. All variants are resolved and checked before a run starts.
- A run of a sweep is `ganlab run FILE --out FOLDER --resume`: starting the sweep again skips the runs that have
  finished and resumes the others, wherever the launcher runs them.
- The run folder is OUT/VARIANT/seed-N. `sweep.json` lists the runs, so that a comparison can show which are missing.
- The launcher is a component like any other, a name or a table with its options. No result depends on it, so it is
  neither in a run's experiment nor in `sweep.json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from ganlab.config.base_files import read_experiment_table, with_absolute_plugins
from ganlab.config.converter import MAX_NAMED_PROBLEMS, InvalidTable, Problem, TableConverter
from ganlab.config.load import add_name, experiment_from_table, experiment_to_toml
from ganlab.config.overrides import apply_changes, apply_override, parse_override
from ganlab.config.schema import NAME, NAME_RULE, Experiment
from ganlab.config.toml import read_toml
from ganlab.plugin.fields import DEFAULT, component
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.protocols import Launcher
from ganlab.run.resume import asks_for_another_length, check_finished
from ganlab.run.run_folder import read_info
from ganlab.sweep.matrix import matrix_variants
from ganlab.sweep.sweep_folder import are_seeds
from ganlab.utils.errors import UserError, did_you_mean, quote, quote_key

MAX_RUNS = 10_000

OF_THE_SWEEP = ("base", "variants", "matrix", "launcher", "seeds", "seed")
"""Keys that the plan of a sweep takes from the sweep file alone; `--set` changes the experiments."""


@frozen
class SweepFile:
    """The keys of a sweep file, from which the runs are planned: every variant is trained with every seed.

    base: the experiment file that the variants are made from, relative to this file.
    variants: a table `[variants.NAME]` for each, with the keys of the experiment file in which it differs from the
        base. A list, such as `penalty`, replaces that of the base; the files of `plugins` are relative to this file.
        At least one, unless there is a matrix.
    matrix: further variants: for each dotted key of the experiment file a list of values, all of whose combinations
        become variants with names made from keys and values.
    name: the name of the sweep, and of its folder in `runs/`.
    seeds: different whole numbers from 0 on; each replaces the experiment's `seed`.
    launcher: the component that starts the runs.
    """

    base: str
    variants: dict[str, Any] = field(factory=dict)
    matrix: dict[str, Any] = field(factory=dict)
    name: str | None = field(default=None, metadata={DEFAULT: "the file's name without `.toml`"})
    seeds: tuple[int, ...] = (0,)
    launcher: Launcher = component("launcher", default="local")


@frozen
class PlannedRun:
    """One planned run of a sweep: its variant, its seed, its experiment, and the plugins that this was read with."""

    variant: str
    seed: int
    experiment: Experiment
    plugins: Plugins = field(eq=False, repr=False)

    @property
    def toml(self) -> str:
        """The resolved experiment file."""
        return experiment_to_toml(self.experiment, self.plugins)

    def folder(self, out: Path) -> Path:
        return out / self.variant / f"seed-{self.seed}"

    def log(self, out: Path) -> Path:
        return self.folder(out).with_suffix(".log")

    def last_output_line(self, out: Path) -> str:
        """The last line that a run of the plan printed, and its log."""
        log = self.log(out)
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        return f"{said}; see {log}"

    def finished(self, out: Path) -> bool:
        """Sweep plan: whether a planned run has finished; raises UserError for a folder of another experiment."""
        folder = self.folder(out)
        if not (folder / "run.json").is_file() or read_info(folder)["status"] != "finished":
            return False
        advice = "choose another --out, or remove it"
        if asks_for_another_length(folder, self.experiment):
            raise UserError(f"{folder}: has finished with another number of steps; {advice}")
        check_finished(folder, self.experiment, self.plugins, advice)
        return True


@frozen
class Sweep:
    """The plan of a sweep, from a sweep file that was checked: its name, seeds, variants, planned runs and launcher."""

    name: str
    seeds: tuple[int, ...]
    variants: Mapping[str, Mapping[str, Any]]
    planned: tuple[PlannedRun, ...]
    launcher: Launcher


def load_sweep(path: Path, overrides: Iterable[str] = (), launcher: str | None = None) -> Sweep:
    """Plans a sweep from its file, every variant resolved; `overrides` (`--set`) come after the variant's own changes.

    `launcher` (`--launcher`) replaces the launcher of the file; where its name differs, the file's options are dropped.
    Raises UserError with a line for every problem in any variant and in the launcher.
    """
    table = read_toml(path)
    keys: dict[str, Any] = {f.name: f.default for f in attrs.fields(SweepFile)}
    unknown = [key for key in table if key not in keys]
    others = f"; a sweep has {', '.join(keys)}; an experiment's keys are for its base or a variant"
    problems = [
        f"{path}: {quote_key(key)}: unknown key{did_you_mean(key, keys) or others}"
        for key in unknown[:MAX_NAMED_PROBLEMS]
    ]
    if len(unknown) > MAX_NAMED_PROBLEMS:
        problems.append(f"{path}: and {len(unknown) - MAX_NAMED_PROBLEMS:,} more unknown keys")
    base, seeds, variants, matrix = (
        table.get("base"),
        table.get("seeds", list(keys["seeds"])),
        table.get("variants", {}),
        table.get("matrix"),
    )
    if not isinstance(base, str):
        base = ""
        problems.append(f"{path}: base: expected the path of an experiment file, got {quote(table.get('base'))}")
    if not are_seeds(seeds):
        problems.append(f"{path}: seeds: expected different whole numbers of at least 0, got {quote(seeds)}")
    if not isinstance(variants, dict) or not (variants or "matrix" in table):
        problems.append(f"{path}: variants: expected a table [variants.NAME] for each variant, got {quote(variants)}")
        variants = {}
    written, combined = list(variants), _combined(matrix, path, problems) if "matrix" in table else {}
    problems += [f"{path}: matrix: it makes a variant {name!r} too" for name in combined if name in variants]
    variants = {**variants, **combined}
    problems += add_name(table, path)
    own = table["name"]
    if not isinstance(own, str) or not re.fullmatch(NAME, own):
        problems.append(f"{path}: name: {NAME_RULE}, got {quote(own)}")
    if isinstance(seeds, list) and len(seeds) * len(variants) > MAX_RUNS:
        runs = f"{len(variants):,} variants times {len(seeds):,} seeds"
        raise UserError(*problems, f"{path}: {runs}: a sweep has at most {MAX_RUNS:,} runs")
    strange = []
    for name, changes in variants.items():
        if not re.fullmatch(NAME, name):
            strange.append(f"{path}: variants.{quote_key(name)}: {NAME_RULE}")
        elif not isinstance(changes, dict):
            strange.append(f"{path}: variants.{name}: expected a table, got {quote(changes)}")
        elif "seed" in changes:
            strange.append(f"{path}: variants.{name}.seed: cannot be varied; give the seeds by the sweep's key seeds")
    problems += _limit_problems(strange, path)
    found = None
    load = cache(load_plugins)  # once, and not for every run
    try:
        found = _build_launcher(table.get("launcher", keys["launcher"]), launcher, path, load((), ()))
    except UserError as error:
        problems += error.problems
    if problems or found is None:
        raise UserError(*problems)

    settings = [parse_override(text) for text in overrides]
    if own_keys := [parts[0] for parts, _ in settings if parts[0] in OF_THE_SWEEP]:
        raise UserError(*dict.fromkeys(_why_not_set(key, path, seeds) for key in own_keys))
    planned = []
    resolved: dict[str, str] = {}
    failed = 0
    for name, changes in variants.items():
        at = f"variants.{name}" if name in written else f"matrix, {name}"
        for seed in seeds:
            try:
                own_changes = with_absolute_plugins(path, changes)
                run = PlannedRun(name, seed, *_resolve_run(path.parent / base, own_changes, seed, settings, load))
            except UserError as error:
                problems += [f"{path}: {at}: {line}" for line in error.problems]
                failed += 1
                break
            planned.append(run)
            if seed == seeds[0]:
                toml = run.toml
                twin = next((other for other, text in resolved.items() if text == toml), None)
                if twin is not None:
                    problems.append(f"{path}: {at}: resolves to the same experiment as {twin!r}")
                resolved[name] = toml
        if failed == MAX_NAMED_PROBLEMS:
            problems.append(f"{path}: variants: {failed} are wrong; the others were not looked at")
            break
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return Sweep(own, tuple(seeds), variants, tuple(planned), found)


def _why_not_set(key: str, path: Path, seeds: list[int]) -> str:
    """Why `--set` has no key that is of the sweep's plan itself, and what to do instead."""
    if key == "launcher":
        return f"--set launcher: is of the sweep, and --set changes its experiments; use --launcher, or edit {path}"
    if key == "seed":
        return f"--set seed: each variant is trained with the seeds of {path}, {quote(seeds)}; edit seeds there"
    return f"--set {key}: is a key of the sweep file, and --set changes its experiments; edit {key} in {path}"


def _combined(matrix: object, path: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """The variants of the matrix in a sweep's plan; adds what is wrong with it to `problems`."""
    try:
        if not isinstance(matrix, dict):
            raise UserError(f"matrix: expected a table with a list of values for each key, got {quote(matrix)}")
        return matrix_variants(matrix, MAX_RUNS)
    except UserError as error:
        problems += _limit_problems([f"{path}: {line}" for line in error.problems], path, "keys")
    return {}


def _limit_problems(problems: list[str], path: Path, of: str = "variants") -> list[str]:
    """Cuts a long list of problems."""
    more = (
        [f"{path}: and {len(problems) - MAX_NAMED_PROBLEMS:,} more such {of}"]
        if len(problems) > MAX_NAMED_PROBLEMS
        else []
    )
    return [*problems[:MAX_NAMED_PROBLEMS], *more]


def _build_launcher(table: object, wanted: str | None, path: Path, plugins: Plugins) -> Launcher:
    """The launcher in a sweep's plan: that of the sweep file at `path`, or of `--launcher` with its default options."""
    named = table.get("name") if isinstance(table, Mapping) else table
    other = wanted is not None and isinstance(named, str) and wanted != named
    try:
        launcher: Launcher = TableConverter(plugins.registry).component("launcher", wanted if other else table)
    except InvalidTable as error:
        problems = error.problems
    except ValueError as error:
        problems = [Problem("", str(error))]
    else:
        return launcher
    if other:
        lines = [f"--launcher {wanted}: {str(problem).removeprefix('name: ')}" for problem in problems]
    else:
        lines = [f"{path}: {problem.under('launcher')}" for problem in problems]
    if any("unknown" in problem.message for problem in problems):
        lines += [f"{failure} (so what it registers is unknown)" for failure in plugins.failures]
    raise UserError(*lines)


def _resolve_run(
    base: Path,
    changes: Mapping[str, Any],
    seed: int,
    settings: list[tuple[list[str], Any]],
    load: Callable[[tuple[Path, ...], tuple[str, ...]], Plugins],
) -> tuple[Experiment, Plugins]:
    """Plans one run: resolves the experiment file of one variant of a sweep with one seed."""
    read = read_experiment_table(base)
    table = read.table
    problems = [] if any(parts == ["name"] for parts, _ in settings) or "name" in changes else add_name(table, base)
    apply_changes(table, changes)
    for parts, value in settings:
        apply_override(table, parts, value)
    table["seed"] = seed
    return experiment_from_table(table, base, problems, load=load, bases=read.bases)
