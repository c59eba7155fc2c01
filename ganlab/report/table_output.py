"""Output of comparison tables: printed for the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from ganlab.report.compare import ComparisonRow, ComparisonTable
from ganlab.report.statistics import Estimate, has_no_spread
from ganlab.viz.progress_text import format_duration

HEADINGS = ("variant", "seeds", "final", "best", "at step", "against {baseline}", "verdict", "time", "img/s")

UNLIMITED_WIDTH = 10_000
"""Characters in a line of a file or a pipe, which have no width."""


def tables_as_json(tables: Sequence[ComparisonTable]) -> list[dict[str, Any]]:
    """Comparison tables as JSON: an object for each table, with its protocol, baseline and rows."""
    return [
        {
            **attrs.asdict(table, filter=lambda attribute, _: attribute.name != "rows"),
            "rows": [{**attrs.asdict(row), "paths": [str(path) for path in row.paths]} for row in table.rows],
        }
        for table in tables
    ]


def tables_as_csv(tables: Sequence[ComparisonTable]) -> str:
    """Comparison tables as CSV: the rows of all tables, an estimate in four columns."""
    stream = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for table in tables:
        for row in table.rows:
            flat: dict[str, Any] = {"metric": table.metric, "variant": row.variant}
            flat |= {"finished": row.finished, "wanted": row.wanted, "others": format_unfinished(row)}
            for name in ("final", "best", "difference"):
                part: Estimate | None = getattr(row, name)
                empty = {"mean": None, "low": None, "high": None, "count": None}
                flat |= {f"{name}_{key}": value for key, value in (attrs.asdict(part) if part else empty).items()}
            flat |= {"best_steps": " ".join(map(str, row.best_steps)), "p": row.p, "verdict": row.verdict}
            flat |= {"seconds": row.seconds, "images_per_second": row.images_per_second, "baseline": table.baseline}
            flat["protocol"] = format_protocol(table.protocol)
            if writer is None:
                writer = csv.DictWriter(stream, flat)
                writer.writeheader()
            writer.writerow(flat)
    return stream.getvalue()


def print_tables(tables: Sequence[ComparisonTable], console: Console) -> None:
    """Prints comparison tables, each followed by notes on its protocol and statistics."""
    for table in tables:
        arrow = {"lower": ", lower is better", "higher": ", higher is better"}.get(table.better or "", "")
        rich = RichTable(title=Text(f"{table.metric}{arrow}"), title_justify="left")
        for heading in HEADINGS:
            rich.add_column(Text(heading.format(baseline=table.baseline)), overflow="fold")
        for row in table.rows:
            rich.add_row(*map(Text, row_cells(row)))
        print_rich_table(rich, [row_cells(row) for row in table.rows], console)
        for line in table_notes(table):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_rich_table(table: RichTable, rows: Sequence[Sequence[str]], console: Console) -> None:
    """Prints one table; on a terminal too narrow for its words one line for each cell, in a file never folded."""
    if not console.is_terminal:
        console.width = UNLIMITED_WIDTH
    if Measurement.get(console, console.options.update(max_width=UNLIMITED_WIDTH), table).minimum <= console.width:
        console.print(table)
        return
    lines = [str(table.title)]
    for row in rows:
        pairs = zip(table.columns, row, strict=True)
        lines += ["", *(f"{column.header}: {cell}" for column, cell in pairs if cell)]
    console.print(Text("\n".join(lines)), soft_wrap=True)


def format_setting(setting: bool | list[str]) -> str:
    """A setting as text: yes, no, or a list."""
    if isinstance(setting, list):
        return ", ".join(setting) or "no"
    return "yes" if setting else "no"


def row_cells(row: ComparisonRow) -> list[str]:
    """A row of the printed comparison table: its cells as text, in the order of `HEADINGS`."""
    seeds = f"{row.finished} of {row.wanted}"
    difference = "" if row.difference is None else format_estimate(row.difference, sign="+")
    time = format_duration(row.seconds) if math.isfinite(row.seconds) else "-"
    rate = f"{row.images_per_second:,.0f}" if math.isfinite(row.images_per_second) else "-"
    steps = sorted(set(row.best_steps))
    at = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,}-{steps[-1]:,}" if steps else "-"
    return [
        row.variant,
        f"{seeds} ({format_unfinished(row)})" if row.others else seeds,
        format_estimate(row.final),
        format_estimate(row.best),
        at,
        difference,
        row.verdict,
        time,
        rate,
    ]


def format_unfinished(row: ComparisonRow) -> str:
    return ", ".join(f"{count} {status}" for status, count in row.others.items())


def format_estimate(part: Estimate, sign: str = "") -> str:
    """An estimate as a table prints it: the mean and its interval, or "[one seed]" without one."""
    if part.count == 0:
        return "-"
    mean = f"{part.mean:{sign}.4g}"
    if part.low is None or part.high is None:
        return f"{mean} [one seed]" if part.count == 1 else mean
    return f"{mean} [{part.low:{sign}.4g}, {part.high:{sign}.4g}]"


def table_notes(table: ComparisonTable) -> list[str]:
    """The notes printed below a table: protocol, statistics, floor, and what limits the verdicts."""
    lines = [f"protocol: {format_protocol(table.protocol)}"]
    lines.append(
        "mean and 95% t interval over seeds; differences are paired by seed; best is each run's own best value"
    )
    tried = [row for row in table.rows if row.p is not None] if table.better else []
    if len(tried) > 1:
        lines.append(
            f"verdicts are of all {len(tried)} differences together (Holm): in at most one table of 20 is there a "
            "verdict on a variant that does not differ"
        )
    if alone := [row.variant for row in tried if row.held_back]:
        lines.append(
            f"{', '.join(alone)}: the interval leaves 0 out, but not as clearly as {len(tried)} at once ask; a sweep "
            "of more seeds may tell"
        )
    if same := [row.variant for row in tried if row.difference is not None and has_no_spread(row.difference)]:
        lines.append(
            f"{', '.join(same)}: the same difference with every seed, so the interval has no width; the verdict is "
            "that of the sign test, which needs six seeds"
        )
    if table.floor is not None:
        floor = (
            f"{float(table.floor['value']):.4g} ({table.floor['count']:,} images of the {table.floor['split']} split)"
        )
        lines.append(f"floor, what real images score: {floor}")
    if table.given:
        lines.append(f"whether EMA or plain weights generated these images is not recorded: {', '.join(table.given)}")
    if table.scored:
        lines.append(f"checkpoints of runs, scored by `ganlab eval --out`: {', '.join(table.scored)}")
    if table.changed_code:
        lines.append(f"not all these runs had the same code of: {', '.join(table.changed_code)}")
    if few := [row.variant for row in table.rows if row.final.count < 2]:
        lines.append(f"{', '.join(few)}: fewer than two finished seeds, so no interval and no verdict; add seeds")
    for row in table.rows:
        paired = row.final.count if row.difference is None else row.difference.count
        if paired < row.final.count and row.variant not in table.given:
            lines.append(f"{row.variant}: of its {row.final.count} finished seeds the baseline has {paired}")
    if "cifar10-jpeg" in str(table.protocol):
        lines.append("the reference is the JPEG copy of CIFAR-10: no score here compares with a published one")
    return lines


def format_protocol(protocol: Mapping[str, Any]) -> str:
    parts = []
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            shown = {k: str(v)[:12] if k == "fingerprint" or _is_sha256(v) else v for k, v in value.items()}
            parts.append(f"{key} ({', '.join(f'{k} {v}' for k, v in shown.items())})")
        else:
            parts.append(f"{key} {value}")
    return "; ".join(parts)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
