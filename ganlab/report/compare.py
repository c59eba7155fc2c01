"""Comparison tables: rows of variants, means over seeds, differences to a baseline; or an error where not comparable.

Decisions:
- All values come from the run folders; a sweep's `sweep.json` only lists which runs belong to it.
- Values of different score protocols never share a table. Runs that differ in more than their seed never share a row.
- Missing, diverged and unfinished runs are counted in the row, not dropped: a variant of which a seed diverged is never
  called better, nor is another called worse than a baseline of which one did.
- A final value is of the run's last step. One of an earlier step does not take its place.
- Final and best are separate columns: the best value of a curve is optimistic, and hides a collapse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from ganlab.config.differing_options import compared_options_sha256, differing_options
from ganlab.report.collect_runs import ComparedRun
from ganlab.report.statistics import Estimate, holm_verdicts, mean_with_interval, p_value, paired_difference
from ganlab.utils.errors import UserError, did_you_mean, printable


@frozen
class ComparisonRow:
    """A row of a comparison table: one variant over its seeds.

    best_steps: the step of each finished run's best value. others: how many runs have each other status.
    difference: the mean difference to the baseline. p: its p value, not corrected for the other rows.
    verdict: by Holm's procedure over all rows. held_back: whether there would be another verdict on this row alone.
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
class ComparisonTable:
    """A comparison table of one metric under one score protocol: rows, best first.

    `given` names the rows of files of `ganlab score`, `scored` those of `ganlab eval --out`, with the files.
    `changed_code` are components whose plugin's code is not the same in all runs.
    """

    metric: str
    better: str | None
    protocol: Mapping[str, Any]
    floor: Mapping[str, Any] | None
    baseline: str
    given: tuple[str, ...]
    scored: tuple[str, ...]
    changed_code: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]


def comparison_tables(
    entries: Sequence[ComparedRun], metric: str | None, baseline: str | None, split: bool
) -> list[ComparisonTable]:
    """Builds the comparison table, or with `split` one for each protocol; UserError where values are not comparable."""
    names = list(dict.fromkeys(record["name"] for entry in entries for record in entry.records))
    if not names:
        raise UserError(
            "these runs have no scores; give their experiments a [[metric]], or score them by `ganlab eval`"
        )
    metric = metric or names[0]
    if metric not in names:
        near = did_you_mean(metric, names) or f"; there are {', '.join(names)}"
        raise UserError(f"--metric {metric}: no run has it{near}")
    # A run that has no such score, and is given with a file of `ganlab eval --out` that has it, has the file's row.
    scored = {(e.scores["experiment_sha256"], e.seed) for e in entries if e.scores and e.curve(metric)}
    entries = [e for e in entries if e.curve(metric) or (compared_options_sha256(e.experiment), e.seed) not in scored]
    without = [e for e in entries if e.status == "finished" and not e.curve(metric)]
    if without:
        raise UserError(*(f"{entry.path}: finished without {metric!r}" for entry in without))
    if late := [entry for entry in entries if entry.status == "finished" and not entry.has_final(metric)]:
        raise UserError(*(_without_final(entry, metric) for entry in late))
    variants = list(dict.fromkeys(entry.variant for entry in entries))
    baseline = None if baseline is None else printable(baseline)
    if baseline is not None and baseline not in variants:
        near = did_you_mean(baseline, variants) or f"; there are {', '.join(variants)}"
        raise UserError(f"--baseline {baseline}: no such variant{near}")

    groups = _by_protocol(entries, metric)
    if len(groups) > 1 and not split:
        raise UserError(*_protocol_problems(metric, groups))
    result = []
    scored_somewhere = {entry.variant for group in groups.values() for entry in group}
    for group in groups.values():
        inside = {entry.variant for entry in group}
        # A variant that has no value yet is a row too, of every table.
        rows = inside | (set(variants) - scored_somewhere)
        paths = {entry.path for entry in group}
        mine = [e for e in entries if e.path in paths or (e.variant in rows and not e.curve(metric))]
        first = next(entry.variant for entry in mine if entry.variant in inside)
        result.append(_build_table(mine, metric, baseline if baseline in rows else first))
    return result


def _without_final(entry: ComparedRun, metric: str) -> str:
    last, ended = entry.curve(metric)[-1]["step"], entry.info["total_steps"]
    not_that = f"its last {metric!r} is of step {last:,}, not of its last step {ended:,}"
    return f"{entry.path}: {not_that}; score that one: ganlab eval {entry.path}"


def _by_protocol(entries: Sequence[ComparedRun], metric: str) -> dict[str, list[ComparedRun]]:
    """Groups the runs of a comparison by the protocol of their values; UserError where one run has several protocols.

    It is unknown which weights made the images of a score file, so it joins a group with EMA or with plain weights.
    """
    groups: dict[str, list[ComparedRun]] = {}
    # Runs come first, so that there is a group that a score file can join.
    for entry in sorted(entries, key=lambda entry: entry.seed is None):
        protocols = {json.dumps(record["protocol"], sort_keys=True) for record in entry.curve(metric)}
        if len(protocols) > 1:
            one, other = (json.loads(protocol) for protocol in sorted(protocols)[:2])
            differ = ", ".join(differing_options(one, other, "protocol"))
            raise UserError(
                f"{entry.path}: its {metric} values are of {len(protocols)} protocols, which differ in {differ}; score "
                f"one checkpoint and give the file: ganlab eval {entry.path} --out FILE.json"
            )
        for protocol in protocols:
            key = protocol
            if entry.seed is None:
                key = next(
                    (known for known in groups if _without_weights(known) == _without_weights(protocol)), protocol
                )
            groups.setdefault(key, []).append(entry)
    return groups


def _without_weights(protocol: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(protocol).items() if key != "weights"}


def _protocol_problems(metric: str, groups: Mapping[str, Sequence[ComparedRun]]) -> list[str]:
    """One line for each key in which the score protocols of a comparison differ, with the variants of each value."""
    protocols = [json.loads(text) for text in groups]
    keys = {key for protocol in protocols[1:] for key in differing_options(protocols[0], protocol, "protocol")}
    if {protocol.get("weights") for protocol in protocols} in ({"ema", "given"}, {"plain", "given"}):
        keys.discard("protocol.weights")
    lines = []
    for key in sorted(keys):
        values = []
        for protocol, entries in zip(protocols, groups.values(), strict=True):
            value = _value_at(protocol, key.removeprefix("protocol."))
            who = ", ".join(dict.fromkeys(entry.variant for entry in entries))
            values.append(f"{value!r} ({who})")
        lines.append(f"{metric}: {key} differs: {' against '.join(values)}")
    return [*lines, f"{metric}: values of different protocols do not compare; --split makes a table for each"]


def _value_at(table: Any, key: str) -> Any:
    """The value of a dotted key of a comparison's protocol, whose own keys may have dots; None where there is none."""
    if not isinstance(table, Mapping) or key in table:
        return table.get(key) if isinstance(table, Mapping) else None
    inner = (_value_at(table[own], key.removeprefix(f"{own}.")) for own in table if key.startswith(f"{own}."))
    return next((value for value in inner if value is not None), None)


def _build_table(entries: Sequence[ComparedRun], metric: str, baseline: str) -> ComparisonTable:
    given = [entry for entry in entries if entry.seed is None]
    # Runs are last: their protocol says which weights were scored.
    curves = [entry.curve(metric) for entry in (*given, *(entry for entry in entries if entry.seed is not None))]
    last = next(curve[-1] for curve in reversed(curves) if curve)
    better = last.get("better")
    by_variant: dict[str, list[ComparedRun]] = {}
    for entry in entries:
        by_variant.setdefault(entry.variant, []).append(entry)
    finals = {variant: _final_values(mine, metric) for variant, mine in by_variant.items()}
    apart = {
        variant: paired_difference(own, finals[baseline]) for variant, own in finals.items() if variant != baseline
    }
    said = holm_verdicts(apart, better)
    broken = any(entry.status == "diverged" for entry in by_variant[baseline])
    rows = [
        _build_row(variant, mine, metric, better, apart.get(variant), said.get(variant, "baseline"), broken)
        for variant, mine in by_variant.items()
    ]
    sign = -1 if better == "higher" else 1
    rows.sort(key=lambda row: (not math.isfinite(row.final.mean), sign * row.final.mean, row.variant))
    floor = next((curve[-1]["floor"] for curve in curves if curve and "floor" in curve[-1]), None)
    names = tuple(entry.variant for entry in given)
    scored = tuple(f"{entry.variant} ({printable(entry.path)})" for entry in entries if entry.scores)
    code = _changed_code(entries)
    return ComparisonTable(metric, better, last["protocol"], floor, baseline, names, scored, code, tuple(rows))


def _changed_code(entries: Iterable[ComparedRun]) -> tuple[str, ...]:
    """The components of compared runs whose plugin's files, by hash, are not the same in all of them.

    Of bundled plugins the release is in each protocol, and a tracker changes no result.
    """
    found: dict[str, set[str]] = {}
    for entry in entries:
        imports = entry.info.get("imports") or {}
        for label, origin in entry.info.get("components", {}).items():
            if origin.get("source") != "bundled" and not label.startswith("tracker."):
                files = {name: of["sha256"] for name, of in imports.get(origin.get("plugin"), {}).items()}
                code = json.dumps([origin.get("sha256"), files], sort_keys=True)
                found.setdefault(label, set()).add(code)
    return tuple(label for label, codes in found.items() if len(codes) > 1)


def _final_values(entries: Iterable[ComparedRun], metric: str) -> dict[int | None, float]:
    return {entry.seed: float(entry.curve(metric)[-1]["value"]) for entry in entries if entry.status == "finished"}


def _build_row(
    variant: str,
    entries: Sequence[ComparedRun],
    metric: str,
    better: str | None,
    difference: Estimate | None,
    said: str,
    has_broken_baseline: bool,
) -> ComparisonRow:
    finished = [entry for entry in entries if entry.status == "finished"]
    bests = [_best_record(entry.curve(metric), better) for entry in finished]
    others: dict[str, int] = {}
    for entry in entries:
        if entry.status != "finished":
            others[entry.status] = others.get(entry.status, 0) + 1
    alone = "baseline" if difference is None else holm_verdicts({variant: difference}, better)[variant]
    held_back = alone != said
    if (others.get("diverged") and alone == "better") or (has_broken_baseline and alone == "worse"):
        said, held_back = "cannot tell", False
    ran = [entry for entry in finished if entry.log]
    rates = [_rate(entry.log) for entry in ran]
    return ComparisonRow(
        variant=variant,
        finished=len(finished),
        wanted=len(entries),
        others=others,
        final=mean_with_interval(list(_final_values(entries, metric).values())),
        best=mean_with_interval([float(record["value"]) for record in bests]),
        best_steps=tuple(record["step"] for record in bests if "step" in record),
        difference=difference,
        p=None if difference is None else p_value(difference),
        verdict=said,
        held_back=held_back,
        seconds=_mean([entry.info.get("seconds", math.nan) for entry in ran]),
        images_per_second=_mean(rates),
        paths=tuple(entry.path for entry in entries),
    )


def _best_record(curve: Sequence[Mapping[str, Any]], better: str | None) -> Mapping[str, Any]:
    """The best record; finite if one is."""
    sign = -1 if better == "higher" else 1
    finite = [record for record in curve if math.isfinite(float(record["value"]))]
    return min(finite, key=lambda record: sign * record["value"]) if finite and better else curve[-1]


def _rate(log: Sequence[Mapping[str, Any]]) -> float:
    """Images per second over a log, as its records have them; steps that were taken again are in no record twice."""
    images = sum(record["images_per_second"] * record["seconds"] for record in log)
    return float(images / sum(record["seconds"] for record in log))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
