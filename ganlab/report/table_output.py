"""A comparison as a table for people, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from ganlab.report.compare import Row, Table
from ganlab.report.statistics import Estimate
from ganlab.viz.progress import duration

HEADINGS = ("variant", "seeds", "final", "best", "at step", "against {baseline}", "verdict", "time", "img/s")

WIDEST = 10_000
"""Columns of what has no width."""


def as_records(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables as JSON: a record a table, with its protocol, baseline and rows."""
    return [
        {
            **attrs.asdict(table, filter=lambda attribute, _: attribute.name != "rows"),
            "rows": [{**attrs.asdict(row), "paths": [str(path) for path in row.paths]} for row in table.rows],
        }
        for table in tables
    ]


def as_csv(tables: Sequence[Table]) -> str:
    """The rows of all tables, an estimate in four columns."""
    stream = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for table in tables:
        for row in table.rows:
            flat: dict[str, Any] = {"metric": table.metric, "variant": row.variant}
            flat |= {"finished": row.finished, "wanted": row.wanted, "others": others(row)}
            for name in ("final", "best", "difference"):
                part: Estimate | None = getattr(row, name)
                empty = {"mean": None, "low": None, "high": None, "count": None}
                flat |= {f"{name}_{key}": value for key, value in (attrs.asdict(part) if part else empty).items()}
            flat |= {"best_steps": " ".join(map(str, row.best_steps)), "p": row.p, "verdict": row.verdict}
            flat |= {"seconds": row.seconds, "images_per_second": row.images_per_second, "baseline": table.baseline}
            if writer is None:
                writer = csv.DictWriter(stream, flat)
                writer.writeheader()
            writer.writerow(flat)
    return stream.getvalue()


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """The tables for a person, each with what its values mean."""
    for table in tables:
        arrow = {"lower": ", lower is better", "higher": ", higher is better"}.get(table.better or "", "")
        rich = RichTable(title=Text(f"{table.metric}{arrow}"), title_justify="left")
        for heading in HEADINGS:
            rich.add_column(Text(heading.format(baseline=table.baseline)), overflow="fold")
        for row in table.rows:
            rich.add_row(*map(Text, cells(row)))
        _print_fitting(rich, [cells(row) for row in table.rows], console)
        for line in notes(table):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_fitting(table: RichTable, rows: Sequence[Sequence[str]], console: Console) -> None:
    """A table; on a terminal where its words do not fit, a line a cell. A file or a pipe has no width to fold at."""
    if not console.is_terminal:
        console.width = WIDEST
    if Measurement.get(console, console.options.update(max_width=WIDEST), table).minimum <= console.width:
        console.print(table)
        return
    lines = [str(table.title)]
    for row in rows:
        pairs = zip(table.columns, row, strict=True)
        lines += ["", *(f"{column.header}: {cell}" for column, cell in pairs if cell)]
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _in_words(lever: bool | list[str]) -> str:
    if isinstance(lever, list):
        return ", ".join(lever) or "no"
    return "yes" if lever else "no"


def cells(row: Row) -> list[str]:
    """A row as texts, in the order of the printed table."""
    seeds = f"{row.finished} of {row.wanted}"
    difference = "" if row.difference is None else shown(row.difference, sign="+")
    time = duration(row.seconds) if math.isfinite(row.seconds) else "-"
    rate = f"{row.images_per_second:,.0f}" if math.isfinite(row.images_per_second) else "-"
    steps = sorted(set(row.best_steps))
    at = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,}-{steps[-1]:,}" if steps else "-"
    return [
        row.variant,
        f"{seeds} ({others(row)})" if row.others else seeds,
        shown(row.final),
        shown(row.best),
        at,
        difference,
        row.verdict,
        time,
        rate,
    ]


def others(row: Row) -> str:
    return ", ".join(f"{count} {status}" for status, count in row.others.items())


def shown(part: Estimate, sign: str = "") -> str:
    """A mean with its interval; one seed has none, and says so."""
    if part.count == 0:
        return "-"
    mean = f"{part.mean:{sign}.4g}"
    if part.low is None or part.high is None:
        return f"{mean} [one seed]" if part.count == 1 else mean
    return f"{mean} [{part.low:{sign}.4g}, {part.high:{sign}.4g}]"


def notes(table: Table) -> list[str]:
    """What the values stand on, and how far they reach."""
    lines = [f"protocol: {in_words(table.protocol)}"]
    lines.append(
        "mean and 95% t interval over seeds; differences are paired by seed; best is each run's own best value"
    )
    tried = [row for row in table.rows if row.p is not None] if table.better else []
    if len(tried) > 1:
        lines.append(
            f"verdicts are of all {len(tried)} differences together (Holm): at most one table in 20 tells one that is "
            "none"
        )
    if alone := [row.variant for row in tried if row.held_back]:
        lines.append(
            f"{', '.join(alone)}: the interval leaves 0 out, but not as clearly as {len(tried)} at once ask; a sweep "
            "of more seeds may tell"
        )
    if table.floor is not None:
        floor = (
            f"{float(table.floor['value']):.4g} ({table.floor['count']:,} images of the {table.floor['split']} split)"
        )
        lines.append(f"floor, what real images score: {floor}")
    if table.given:
        lines.append(f"given images, whose weights made them is not known: {', '.join(table.given)}")
    if any(row.final.count < 2 for row in table.rows):
        lines.append("one seed or none: no interval is possible, so nothing can be told; add seeds")
    if "cifar10-jpeg" in str(table.protocol):
        lines.append("the reference is the JPEG copy of CIFAR-10: no score here compares with a published one")
    return lines


def in_words(protocol: Mapping[str, Any]) -> str:
    parts = []
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k} {str(v)[:12] if k in ('sha256', 'fingerprint') else v}" for k, v in value.items())
            parts.append(f"{key} ({inner})")
        else:
            parts.append(f"{key} {value}")
    return "; ".join(parts)
