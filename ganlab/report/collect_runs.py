"""Collecting the runs of a comparison from sweep folders, run folders and files of scores.

A file of scores is what `ganlab score --json` printed, of images of any origin, or what `ganlab eval --out` wrote, of a
run's checkpoint. The second says which run it scores, and is a variant "NAME at step STEP".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ganlab.config.differing_options import compared_options_sha256, differing_options
from ganlab.config.toml import read_toml
from ganlab.run.records import read_records
from ganlab.run.run_folder import SWEEP_FILE, read_info, variant_of
from ganlab.sweep.sweep_folder import wanted_runs
from ganlab.utils.errors import UserError, one_line, printable

SCORES = "`ganlab score --json` or `ganlab eval --out`"
"""The commands whose files of scores are compared."""


@frozen
class ComparedRun:
    """A run collected for a comparison; or one a sweep lists and has no folder (`status` "missing"); or a score file.

    A file of `ganlab score --json` has no seed and no experiment. `scores` is what one of `ganlab eval --out` says of
    the run that it scores: variant, seed, step and the hash of its experiment; empty for all others.
    """

    variant: str
    seed: int | None
    path: Path
    status: str
    info: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    log: Sequence[Mapping[str, Any]]
    experiment: Mapping[str, Any]
    scores: Mapping[str, Any] = field(factory=dict)

    def curve(self, metric: str) -> list[Mapping[str, Any]]:
        """Of a run that `collect_runs` found: its own records of one metric, in the order of steps.

        Where it wrote none, such as of scores per class, those of `ganlab eval`: the last record of each step, if the
        run's last step has one. Where it wrote none of its last step, since the metric failed there, that of `eval`.
        A record of what was changed for `eval`, such as a truncation, counts only where there is no other.
        """
        records = [record for record in self.records if record["name"] == metric]
        own = [record for record in records if not record.get("eval")]
        by_eval = [record for record in records if record.get("eval")]
        later = {record["step"]: record for record in sorted(by_eval, key=_is_as_trained)}
        last = self.info.get("step")
        if last not in later or any(record["step"] == last for record in own):
            return own
        return [*own, later[last]] if own else [later[step] for step in sorted(later)]

    def has_final(self, metric: str) -> bool:
        """Whether the last of the run's records of a metric is of its last step; so is that of a score file."""
        last = self.info.get("total_steps")
        return last is None or self.curve(metric)[-1]["step"] == last


def _is_as_trained(record: Mapping[str, Any]) -> bool:
    """Whether nothing was changed for a score of `ganlab eval`, such as the latents by `--truncation`."""
    return not {"truncation", "overrides", "code", "conditions"} & record["protocol"].keys()


def collect_runs(paths: Iterable[Path]) -> list[ComparedRun]:
    """Collects the runs below the paths: all that a sweep folder lists, and single run folders.

    The variant of a single one is that of its sweep, or the experiment's name. A path can also be a file that
    `ganlab score --json` printed, whose name without .json is the variant, or one that `ganlab eval --out` wrote.

    Raises UserError where a path holds no run, or where two runs of one variant differ in more than their seed.
    """
    entries: dict[Path, ComparedRun] = {}
    problems = []
    for path in paths:
        found = list(_runs_below(path))
        if not found:
            problems.append(f"{path}: no run or sweep folder, and no file of {SCORES}")
        entries |= {entry.path.resolve(): entry for entry in found}
    problems += _variant_conflicts(entries.values())
    if problems:
        raise UserError(*problems)
    return list(entries.values())


def _runs_below(path: Path) -> Iterable[ComparedRun]:
    if path.is_file():
        yield _read_score_file(path)
        return
    sweeps = sorted(file.parent for file in path.rglob(SWEEP_FILE)) if path.is_dir() else []
    for sweep in sweeps:
        for variant, seed in wanted_runs(sweep):
            yield _read_run(sweep / variant / f"seed-{seed}", variant, seed)
    for file in sorted(path.rglob("run.json")) if path.is_dir() else []:
        if not any(file.is_relative_to(sweep) for sweep in sweeps):
            info = read_info(file.parent)
            yield _read_run(file.parent, variant_of(file.parent, info), info["seed"])


def _read_score_file(path: Path) -> ComparedRun:
    """Collects the records of a file of `ganlab score --json` or `ganlab eval --out` for a comparison."""
    try:
        records = json.loads(path.read_bytes())  # also in UTF-16, as some shells write what is redirected to a file
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as the JSON of `ganlab score` ({one_line(error)})") from None
    if not isinstance(records, list) or not records or not all(map(_is_record, records)):
        raise UserError(f"{path}: expected the list of records that {SCORES} writes")
    scores = records[0].get("run", {})
    if any(record.get("run", {}) != scores for record in records):
        raise UserError(f"{path}: holds scores of more than one run; compare a file for each")
    if not scores:
        return ComparedRun(printable(path.stem), None, path, "finished", {}, records, [], {})
    variant = f"{scores['variant']} at step {scores['step']:,}"
    return ComparedRun(variant, scores["seed"], path, "finished", {}, records, [], {}, scores)


def _is_record(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        return False
    # JSON has no NaN or infinity; they are written as text.
    value = record.get("value")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    named = "run" not in record or (_is_run(record["run"]) and type(record.get("step")) is int)
    return isinstance(record.get("protocol"), dict) and named and (number or value in ("nan", "inf", "-inf"))


def _is_run(scores: object) -> bool:
    """Whether this is what `ganlab eval --out` says of the run whose scores are collected."""
    known = {"variant": str, "seed": int, "step": int, "experiment_sha256": str}
    return isinstance(scores, dict) and all(type(scores.get(key)) is kind for key, kind in known.items())


def _read_run(path: Path, variant: str, seed: int) -> ComparedRun:
    if not (path / "run.json").is_file():
        return ComparedRun(variant, seed, path, "missing", {}, [], [], {})
    info = read_info(path)
    experiment = read_toml(path / "experiment.toml")
    records, log = read_records(path / "metrics.jsonl"), read_records(path / "log.jsonl")
    return ComparedRun(variant, seed, path, info["status"], info, records, log, experiment)


def _variant_conflicts(entries: Iterable[ComparedRun]) -> list[str]:
    """Problems of the runs collected: variants whose runs have different experiments, or that have a seed twice."""
    runs = {(entry.variant, entry.seed): entry for entry in entries if entry.experiment}
    first: dict[str, ComparedRun] = {}
    taken: dict[tuple[str, int | None], ComparedRun] = {}
    problems = []
    for entry in entries:
        if entry.status == "missing":
            continue
        other = first.setdefault(entry.variant, entry)
        of = entry.scores.get("variant", "")
        run = runs.get((of, entry.seed))
        if run is not None and compared_options_sha256(run.experiment) != entry.scores["experiment_sha256"]:
            problems.append(f"{entry.path}: scores a run {of!r} of another experiment than that in {run.path}")
        if (other.seed is None) != (entry.seed is None):
            problems.append(
                f"{other.path} and {entry.path}: a file and runs are both called {entry.variant!r}; rename it"
            )
            continue
        keys = differing_options(other.experiment, entry.experiment)
        if other.scores.get("experiment_sha256") != entry.scores.get("experiment_sha256"):
            problems.append(f"{other.path} and {entry.path}: score runs of different experiments called {of!r}")
        elif keys:
            where = f"{other.path} and {entry.path} differ in {one_line(keys[0], 100)}"
            what = f"{entry.variant!r} is two experiments: {where}"
            problems.append(f"{what}; runs that are to be told apart need names of their own (--set name=…)")
        twin = taken.setdefault((entry.variant, entry.seed), entry)
        if twin is not entry:
            what = "is" if entry.seed is None else f"has seed {entry.seed}"
            problems.append(f"{entry.variant!r} {what} twice: {twin.path} and {entry.path}")
    return problems
