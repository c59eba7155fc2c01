"""`ganlab compare`: variants over seeds in one table, or a refusal.

Decisions:
- The truth is the run folders; a sweep's `sweep.json` only says which of them are wanted.
- Values of different protocols never share a table. Runs that differ in more than their seed never share a row.
- What is missing, diverged or unfinished is shown, and never averaged away: a variant of which a seed diverged is never
  called better.
- Final and best are told apart: the best of a curve is optimistic, and hides a collapse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from ganlab.config import differences
from ganlab.errors import UserError, did_you_mean, one_line
from ganlab.runfolder import read_info, read_records
from ganlab.statistics import Estimate, estimate, p_value, paired, verdicts
from ganlab.sweeps import FILE, wanted_runs
from ganlab.tables import read_toml


@frozen
class Entry:
    """One run, or one that is wanted and is not there (`status` "missing"), or the scores of given images.

    Given images have no seed and no experiment: `ganlab score` wrote their records.
    """

    variant: str
    seed: int | None
    path: Path
    status: str
    info: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    log: Sequence[Mapping[str, Any]]
    experiment: Mapping[str, Any]

    def curve(self, metric: str) -> list[Mapping[str, Any]]:
        """The values that the run itself took of a metric, by step.

        Of what it never took, such as the scores of each class, those of `ganlab eval`: the last of each step, if there
        is one of the run's last step.
        """
        records = [record for record in self.records if record["name"] == metric]
        own = [record for record in records if not record.get("eval")]
        later = {} if own else {record["step"]: record for record in records}
        return own or [later[step] for step in sorted(later) if self.info.get("step") in later]


@frozen
class Row:
    """One variant. `best_steps` are the steps of each finished seed's best value; `others` counts those not finished.

    `difference` is the one to the baseline, `p` its p value taken alone; the verdict is one of all rows together, and
    `held_back` says whether it would be told were this row the only one.
    """

    variant: str
    finished: int
    wanted: int
    others: Mapping[str, int]
    final: Estimate
    best: Estimate
    best_steps: tuple[int, ...]
    difference: Estimate | None
    p: float | None
    verdict: str
    held_back: bool
    seconds: float
    images_per_second: float
    paths: tuple[Path, ...]


@frozen
class Table:
    """Rows, best first, of one metric under one protocol; `given` names the variants of which only images are known."""

    metric: str
    better: str | None
    protocol: Mapping[str, Any]
    floor: Mapping[str, Any] | None
    baseline: str
    given: tuple[str, ...]
    rows: tuple[Row, ...]


def collect(paths: Iterable[Path]) -> list[Entry]:
    """The runs below the paths: all that sweep folders want, and single run folders under their experiment's name.

    A path can also be a file that `ganlab score --json` printed; its name without .json is the variant.

    Raises UserError where there is none, or where two runs of one variant differ in more than their seed.
    """
    entries: dict[Path, Entry] = {}
    problems = []
    for path in paths:
        found = list(_below(path))
        if not found:
            problems.append(f"{path}: no run or sweep folder, and no file of `ganlab score --json`")
        entries |= {entry.path.resolve(): entry for entry in found}
    problems += _differing(entries.values())
    if problems:
        raise UserError(*problems)
    return list(entries.values())


def _below(path: Path) -> Iterable[Entry]:
    if path.is_file():
        yield Entry(path.stem, None, path, "finished", {}, _given(path), [], {})
        return
    sweeps = sorted(file.parent for file in path.rglob(FILE)) if path.is_dir() else []
    for sweep in sweeps:
        for variant, seed in wanted_runs(sweep):
            yield _entry(sweep / variant / f"seed-{seed}", variant, seed)
    for file in sorted(path.rglob("run.json")) if path.is_dir() else []:
        if not any(file.is_relative_to(sweep) for sweep in sweeps):
            info = read_info(file.parent)
            yield _entry(file.parent, info["name"], info["seed"])


def _given(path: Path) -> list[dict[str, Any]]:
    """The records of a file of `ganlab score --json`."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as the JSON of `ganlab score` ({one_line(error)})") from None
    if not isinstance(records, list) or not records or not all(map(_is_record, records)):
        raise UserError(f"{path}: expected the list of records that `ganlab score --json` prints")
    return records


def _is_record(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        return False
    # JSON has no NaN or infinity; they are written as text.
    value = record.get("value")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(record.get("protocol"), dict) and (number or value in ("nan", "inf", "-inf"))


def _entry(path: Path, variant: str, seed: int) -> Entry:
    if not (path / "run.json").is_file():
        return Entry(variant, seed, path, "missing", {}, [], [], {})
    info = read_info(path)
    experiment = read_toml(path / "experiment.toml")
    records, log = read_records(path / "metrics.jsonl"), read_records(path / "log.jsonl")
    return Entry(variant, seed, path, info["status"], info, records, log, experiment)


def _differing(entries: Iterable[Entry]) -> list[str]:
    """A line for each variant whose runs are not of one experiment, or that has a seed twice."""
    first: dict[str, Entry] = {}
    taken: dict[tuple[str, int | None], Entry] = {}
    problems = []
    for entry in entries:
        if entry.status == "missing":
            continue
        other = first.setdefault(entry.variant, entry)
        if (other.seed is None) != (entry.seed is None):
            problems.append(
                f"{other.path} and {entry.path}: a file and runs are both called {entry.variant!r}; rename it"
            )
            continue
        keys = differences(other.experiment, entry.experiment)
        if keys:
            where = f"{other.path} and {entry.path} differ in {one_line(keys[0], 100)}"
            what = f"{entry.variant!r} is two experiments: {where}"
            problems.append(f"{what}; runs that are to be told apart need names of their own (--set name=…)")
        twin = taken.setdefault((entry.variant, entry.seed), entry)
        if twin is not entry:
            what = "is" if entry.seed is None else f"has seed {entry.seed}"
            problems.append(f"{entry.variant!r} {what} twice: {twin.path} and {entry.path}")
    return problems


def tables(entries: Sequence[Entry], metric: str | None, baseline: str | None, split: bool) -> list[Table]:
    """One table, or with `split` one for each protocol. Raises UserError where values would not compare."""
    names = list(dict.fromkeys(record["name"] for entry in entries for record in entry.records))
    if not names:
        raise UserError(
            "these runs have no scores; give their experiments a [[metric]], or score them by `ganlab eval`"
        )
    metric = metric or names[0]
    if metric not in names:
        near = did_you_mean(metric, names) or f"; there are {', '.join(names)}"
        raise UserError(f"--metric {metric}: no run has it{near}")
    without = [e for e in entries if e.status == "finished" and not e.curve(metric)]
    if without:
        raise UserError(*(f"{entry.path}: finished without {metric!r}" for entry in without))
    variants = list(dict.fromkeys(entry.variant for entry in entries))
    if baseline is not None and baseline not in variants:
        near = did_you_mean(baseline, variants) or f"; there are {', '.join(variants)}"
        raise UserError(f"--baseline {baseline}: no such variant{near}")

    groups = _by_protocol(entries, metric)
    if len(groups) > 1 and not split:
        raise UserError(*_protocol_problems(metric, groups))
    result = []
    for group in groups.values():
        inside = {entry.variant for entry in group}
        mine = [entry for entry in entries if entry in group or (entry.variant in inside and not entry.curve(metric))]
        result.append(_table(mine, metric, baseline if baseline in inside else mine[0].variant))
    return result


def _by_protocol(entries: Sequence[Entry], metric: str) -> dict[str, list[Entry]]:
    """Runs by the protocol of their values; a run whose own values differ in protocol is refused.

    Whose weights made given images is not known, so they stand beside averaged weights and beside plain ones.
    """
    groups: dict[str, list[Entry]] = {}
    # Runs come first, so that there is a group that given images can join.
    for entry in sorted(entries, key=lambda entry: entry.seed is None):
        protocols = {json.dumps(record["protocol"], sort_keys=True) for record in entry.curve(metric)}
        if len(protocols) > 1:
            raise UserError(f"{entry.path}: its own {metric} values were taken under {len(protocols)} protocols")
        for protocol in protocols:
            key = protocol
            if entry.seed is None:
                key = next((known for known in groups if _but_weights(known) == _but_weights(protocol)), protocol)
            groups.setdefault(key, []).append(entry)
    return groups


def _but_weights(protocol: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(protocol).items() if key != "weights"}


def _protocol_problems(metric: str, groups: Mapping[str, Sequence[Entry]]) -> list[str]:
    """A line for each part of the protocol that differs, with who has which."""
    protocols = [json.loads(text) for text in groups]
    keys = {key for protocol in protocols[1:] for key in differences(protocols[0], protocol, "protocol")}
    if {protocol.get("weights") for protocol in protocols} in ({"ema", "given"}, {"plain", "given"}):
        keys.discard("protocol.weights")
    lines = []
    for key in sorted(keys):
        values = []
        for protocol, entries in zip(protocols, groups.values(), strict=True):
            value: Any = protocol
            for part in key.split(".")[1:]:
                value = value.get(part) if isinstance(value, Mapping) else None
            who = ", ".join(dict.fromkeys(entry.variant for entry in entries))
            values.append(f"{value!r} ({who})")
        lines.append(f"{metric}: {key} differs: {' against '.join(values)}")
    return [*lines, f"{metric}: values of different protocols do not compare; --split makes a table for each"]


def _table(entries: Sequence[Entry], metric: str, baseline: str) -> Table:
    given = [entry for entry in entries if entry.seed is None]
    # A run's protocol says whose weights were scored.
    curves = [entry.curve(metric) for entry in (*given, *(entry for entry in entries if entry.seed is not None))]
    last = next(curve[-1] for curve in reversed(curves) if curve)
    better = last.get("better")
    by_variant: dict[str, list[Entry]] = {}
    for entry in entries:
        by_variant.setdefault(entry.variant, []).append(entry)
    finals = {variant: _finals(mine, metric) for variant, mine in by_variant.items()}
    apart = {variant: paired(own, finals[baseline]) for variant, own in finals.items() if variant != baseline}
    said = verdicts(apart, better)
    rows = [
        _row(variant, mine, metric, better, apart.get(variant), said.get(variant, "baseline"))
        for variant, mine in by_variant.items()
    ]
    sign = -1 if better == "higher" else 1
    rows.sort(key=lambda row: (not math.isfinite(row.final.mean), sign * row.final.mean, row.variant))
    floor = next((curve[-1]["floor"] for curve in curves if curve and "floor" in curve[-1]), None)
    names = tuple(entry.variant for entry in given)
    return Table(metric, better, last["protocol"], floor, baseline, names, tuple(rows))


def _finals(entries: Iterable[Entry], metric: str) -> dict[int | None, float]:
    return {entry.seed: float(entry.curve(metric)[-1]["value"]) for entry in entries if entry.status == "finished"}


def _row(
    variant: str, entries: Sequence[Entry], metric: str, better: str | None, difference: Estimate | None, said: str
) -> Row:
    finished = [entry for entry in entries if entry.status == "finished"]
    bests = [_best(entry.curve(metric), better) for entry in finished]
    others: dict[str, int] = {}
    for entry in entries:
        if entry.status != "finished":
            others[entry.status] = others.get(entry.status, 0) + 1
    alone = "baseline" if difference is None else verdicts({variant: difference}, better)[variant]
    held_back = alone != said
    if others.get("diverged") and alone == "better":
        said, held_back = "cannot tell", False
    ran = [entry for entry in finished if entry.log]
    rates = [entry.log[-1]["images_seen"] / sum(record["seconds"] for record in entry.log) for entry in ran]
    return Row(
        variant=variant,
        finished=len(finished),
        wanted=len(entries),
        others=others,
        final=estimate(list(_finals(entries, metric).values())),
        best=estimate([float(record["value"]) for record in bests]),
        best_steps=tuple(record["step"] for record in bests if "step" in record),
        difference=difference,
        p=None if difference is None else p_value(difference),
        verdict=said,
        held_back=held_back,
        seconds=_mean([entry.info.get("seconds", math.nan) for entry in ran]),
        images_per_second=_mean(rates),
        paths=tuple(entry.path for entry in entries),
    )


def _best(curve: Sequence[Mapping[str, Any]], better: str | None) -> Mapping[str, Any]:
    """The best value of a curve: one that is not finite is best only where there is no other."""
    sign = -1 if better == "higher" else 1
    finite = [record for record in curve if math.isfinite(float(record["value"]))]
    return min(finite, key=lambda record: sign * record["value"]) if finite and better else curve[-1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
