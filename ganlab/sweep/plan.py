"""Sweeps: variants of a base experiment times seeds, each an ordinary run in a folder of its own.

Decisions:
- A sweep file says what differs; every variant is resolved and checked before anything starts.
- A run of a sweep is `ganlab run FILE --out FOLDER --resume`: starting a sweep again skips what has finished and
  resumes the rest, wherever the launcher runs it.
- The folder is OUT/VARIANT/seed-N; `sweep.json` says which runs are wanted, so that a comparison shows what is missing.
- The launcher is a component like any other, a name or a table with its options; no result depends on it, so it is
  neither in a run's experiment nor in `sweep.json`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from ganlab.config.converter import NAMED, Problem, Problems, Structurer
from ganlab.config.load import differences, resolve, to_toml
from ganlab.config.schema import NAME
from ganlab.config.toml import override, parse_override, read_toml
from ganlab.plugin.fields import DEFAULT, component
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Launcher
from ganlab.run.run_folder import read_info
from ganlab.sweep.sweep_dir import _are_seeds
from ganlab.utils.errors import UserError, did_you_mean, quote, quote_key

SAYS_NAME = "a name is letters, digits, '.', '_' and '-', at most 100, the first a letter or digit"
MOST_RUNS = 10_000


@frozen
class SweepFile:
    """What a sweep file may say: every variant is trained with every seed.

    base: the experiment file that the variants are made from, relative to this file.
    variants: a table `[variants.NAME]` for each, with the keys of the experiment file in which it differs from the
        base. A list, such as `penalty`, is given whole; the files of `plugins` are relative to this file.
    name: of the sweep, and of its folder in `runs/`.
    seeds: different whole numbers from 0 on; each replaces the experiment's `seed`.
    launcher: what starts the runs, and where.
    """

    base: str
    variants: dict[str, Any]
    name: str | None = field(default=None, metadata={DEFAULT: "the file's name without `.toml`"})
    seeds: tuple[int, ...] = (0,)
    launcher: Launcher = component("launcher", default="local")


@frozen
class Planned:
    """One run that a sweep wants: its variant, its seed, and its resolved experiment file."""

    variant: str
    seed: int
    toml: str

    def folder(self, out: Path) -> Path:
        return out / self.variant / f"seed-{self.seed}"

    def log(self, out: Path) -> Path:
        return self.folder(out).with_suffix(".log")

    def last_words(self, out: Path) -> str:
        """The last line that the run printed, and where the others are."""
        log = self.log(out)
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        return f"{said}; see {log}"

    def finished(self, out: Path) -> bool:
        """Whether the run has ended; raises UserError where what ended is another experiment."""
        folder = self.folder(out)
        if not (folder / "run.json").is_file() or read_info(folder)["status"] != "finished":
            return False
        keys = differences(read_toml(folder / "experiment.toml"), tomllib.loads(self.toml))
        if keys:
            raise UserError(f"{folder}: has finished with another {keys[0]}; choose another --out, or remove it")
        return True


@frozen
class Sweep:
    """A sweep file: its name, the runs it wants, what each variant changes, and what starts the runs."""

    name: str
    seeds: tuple[int, ...]
    variants: Mapping[str, Mapping[str, Any]]
    planned: tuple[Planned, ...]
    launcher: Launcher


def load_sweep(path: Path, overrides: Iterable[str] = (), launcher: str | None = None) -> Sweep:
    """Reads and resolves a sweep file; `overrides` are applied to every variant after its own changes.

    `launcher` is the command's, and overrides the name of the file's; another name drops the file's options.
    Raises UserError with a line for every problem in any variant and in the launcher.
    """
    table = read_toml(path)
    keys: dict[str, Any] = {f.name: f.default for f in attrs.fields(SweepFile)}
    unknown = [key for key in table if key not in keys]
    problems = [f"{path}: {quote_key(key)}: unknown key{did_you_mean(key, keys)}" for key in unknown[:NAMED]]
    if len(unknown) > NAMED:
        problems.append(f"{path}: and {len(unknown) - NAMED:,} more unknown keys")
    base, seeds, variants = (
        table.get("base"),
        table.get("seeds", list(keys["seeds"])),
        table.get("variants", {}),
    )
    if not isinstance(base, str):
        base = ""
        problems.append(f"{path}: base: expected the path of an experiment file, got {quote(table.get('base'))}")
    if not _are_seeds(seeds):
        problems.append(f"{path}: seeds: expected different whole numbers of at least 0, got {quote(seeds)}")
    if not isinstance(variants, dict) or not variants:
        problems.append(f"{path}: variants: expected a table [variants.NAME] for each variant, got {quote(variants)}")
        variants = {}
    own = table.get("name", path.stem)
    if not isinstance(own, str) or not re.fullmatch(NAME, own):
        problems.append(f"{path}: name: {SAYS_NAME}, got {quote(own)}")
    if isinstance(seeds, list) and len(seeds) * len(variants) > MOST_RUNS:
        runs = f"{len(variants):,} variants times {len(seeds):,} seeds"
        raise UserError(*problems, f"{path}: {runs}: a sweep has at most {MOST_RUNS:,} runs")
    strange = []
    for name, changes in variants.items():
        if not re.fullmatch(NAME, name):
            strange.append(f"{path}: variants.{quote_key(name)}: {SAYS_NAME}")
        elif not isinstance(changes, dict):
            strange.append(f"{path}: variants.{name}: expected a table, got {quote(changes)}")
    problems += _first(strange, path)
    found = None
    try:
        found = _launcher(table.get("launcher", keys["launcher"]), launcher, path)
    except UserError as error:
        problems += error.problems
    if problems or found is None:
        raise UserError(*problems)

    settings = [parse_override(text) for text in overrides]
    planned = []
    resolved: dict[str, str] = {}
    failed = 0
    for name, changes in variants.items():
        for seed in seeds:
            try:
                toml = _resolved(path.parent / base, _beside(path, changes), seed, settings)
            except UserError as error:
                problems += [f"{path}: variants.{name}: {line}" for line in error.problems]
                failed += 1
                break
            planned.append(Planned(name, seed, toml))
            if seed == seeds[0]:
                twin = next((other for other, text in resolved.items() if text == toml), None)
                if twin is not None:
                    problems.append(f"{path}: variants.{name}: resolves to the same experiment as {twin!r}")
                resolved[name] = toml
        if failed == NAMED:
            problems.append(f"{path}: variants: {failed} are wrong; the others were not looked at")
            break
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return Sweep(own, tuple(seeds), variants, tuple(planned), found)


def _first(problems: list[str], path: Path) -> list[str]:
    """The first of many problems, and how many more there are."""
    more = [f"{path}: and {len(problems) - NAMED:,} more such variants"] if len(problems) > NAMED else []
    return [*problems[:NAMED], *more]


def _launcher(table: object, wanted: str | None, path: Path) -> Launcher:
    """The launcher that the sweep file at `path` describes, or by its defaults another that the command wants."""
    named = table.get("name") if isinstance(table, Mapping) else table
    other = wanted is not None and isinstance(named, str) and wanted != named
    plugins = load_plugins()
    try:
        launcher: Launcher = Structurer(plugins.registry).component("launcher", wanted if other else table)
    except Problems as error:
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


def _resolved(base: Path, changes: Mapping[str, Any], seed: int, settings: list[tuple[list[str], Any]]) -> str:
    """The resolved experiment file of one variant with one seed."""
    table = read_toml(base)
    table.setdefault("name", base.stem)
    for parts, value in [*_flat(changes, []), *settings]:
        override(table, parts, value)
    table["seed"] = seed
    return to_toml(*resolve(table, base))


def _beside(path: Path, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a variant changes, its plugin files being relative to the sweep file that names them, not to the base."""
    files = changes.get("plugins")
    if not isinstance(files, list):
        return changes
    folder = path.parent.absolute()
    moved = [str(folder / file) if isinstance(file, str) and not file.startswith("~") else file for file in files]
    return {**changes, "plugins": moved}


def _flat(changes: Mapping[str, Any], at: list[str]) -> Iterator[tuple[list[str], Any]]:
    """A table of changes as overrides; a component's name comes first, because it drops the options before it."""
    for key, value in sorted(changes.items(), key=lambda item: item[0] != "name"):
        if isinstance(value, Mapping):
            yield from _flat(value, [*at, key])
        else:
            yield [*at, key], value
