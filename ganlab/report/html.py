"""Self-contained HTML pages of a comparison or of one run: images are embedded, names from runs are escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ganlab.config.differing_options import differing_options
from ganlab.report.collect_runs import ComparedRun
from ganlab.report.compare import ComparisonTable
from ganlab.report.table_output import HEADINGS, format_protocol, row_cells, table_notes
from ganlab.run.alarms import spans
from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder, read_info
from ganlab.utils.errors import UserError
from ganlab.utils.files import write_whole
from ganlab.utils.paths import shell_word
from ganlab.viz.plots import metric_curves_png
from ganlab.viz.progress_text import format_duration

MAX_SAMPLE_GRIDS = 6
"""Sample grids of one run on its page: the first, the last, and some between."""


def compare_page(tables: Sequence[ComparisonTable], entries: Sequence[ComparedRun]) -> str:
    """The HTML page of a comparison: tables, curves with bands over seeds, samples, differing options, commands."""
    by_path = {entry.path: entry for entry in entries}
    content = [_table_content(table, by_path) for table in tables]
    return _render_template("compare.html", title="Comparison: " + ", ".join(t.metric for t in tables), tables=content)


def _table_content(table: ComparisonTable, by_path: Mapping[Path, ComparedRun]) -> dict[str, Any]:
    runs = {row.variant: [by_path[path] for path in row.paths if by_path[path].experiment] for row in table.rows}
    shown = {variant: min(mine, key=lambda entry: entry.seed or 0) for variant, mine in runs.items() if mine}
    curves = {variant: [_curve_points(entry, table.metric) for entry in mine] for variant, mine in runs.items()}
    grids = []
    for variant, entry in shown.items():
        if sample_grids := [*RunFolder(entry.path).sample_grids().items()]:
            step, path = sample_grids[-1]
            grids.append(
                {"variant": variant, "seed": entry.seed, "step": step, "image": _png_data_url(path.read_bytes())}
            )
    lines = []
    if table.baseline in shown:
        before = shown[table.baseline].experiment
        for variant, entry in shown.items():
            for key in differing_options(before, entry.experiment):
                old, new = (_option_text(experiment, key) for experiment in (before, entry.experiment))
                lines.append({"variant": variant, "key": key, "before": old, "here": new})
    return {
        "metric": table.metric,
        "baseline": table.baseline,
        "headings": [heading.format(baseline=table.baseline) for heading in HEADINGS],
        "rows": [{"cells": row_cells(row)} for row in table.rows],
        "notes": table_notes(table),
        "curves": _png_data_url(metric_curves_png(curves, table.metric, table.floor)),
        "grids": grids,
        "differences": lines,
        "commands": [_command(entry.path) for mine in runs.values() for entry in mine],
    }


def report_page(path: Path) -> str:
    """The HTML page of one run: scores, plots, samples over time, the experiment file."""
    info, records = read_info(path), read_records(path / "metrics.jsonl")
    scores = []
    for name, entry in info.get("metrics", {}).items():
        best = entry.get("best")
        floor = entry.get("floor")
        scores.append(
            {
                "name": name,
                "floor": f"{float(floor['value']):.5g} ({floor['count']:,} {floor['split']} images)" if floor else "",
                "final": f"{float(entry['final']['value']):.5g} at step {entry['final']['step']:,}",
                "best": f"{float(best['value']):.5g} at step {best['step']:,}" if best else "",
            }
        )
    sample_grids = [*RunFolder(path).sample_grids().items()]
    last = len(sample_grids) - 1
    some = sorted({round(i * last / (MAX_SAMPLE_GRIDS - 1)) for i in range(MAX_SAMPLE_GRIDS)}) if sample_grids else []
    plots = [path / "plots" / f"{name}.png" for name in ("losses", "schedules", "scores")]
    plots += [path / "plots" / "metrics.png"] if records else []  # without scores it has no curve
    protocols = {f"{record['name']}: {format_protocol(record['protocol'])}": None for record in records}
    alarmed = [
        f"{name}, from step {first:,} to step {last:,}" for name, first, last in spans(read_records(path / "log.jsonl"))
    ]
    how_far = f"{info['status']} at step {info.get('step', 0):,} of {info['total_steps']:,}"
    return _render_template(
        "report.html",
        title=f"{info['name']}, seed {info['seed']}",
        status=f"{how_far} in {format_duration(info.get('seconds', 0.0))}, on {info['device']}",
        average=info.get("weights") == "ema",
        alarms=alarmed,
        scores=scores,
        notes=list(protocols),
        plots=[{"name": plot.stem, "image": _png_data_url(plot.read_bytes())} for plot in plots if plot.is_file()],
        grids=[{"step": sample_grids[i][0], "image": _png_data_url(sample_grids[i][1].read_bytes())} for i in some],
        command=_command(path),
        experiment=(path / "experiment.toml").read_text(encoding="utf-8", errors="replace"),
    )


def _command(run: Path) -> str:
    """The command on an HTML page that repeats a run."""
    return f"ganlab run {shell_word(run / 'experiment.toml')}"


def _render_template(template: str, **content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ganlab.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**content)


def _png_data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _curve_points(entry: ComparedRun, metric: str) -> list[tuple[int, float]]:
    return [(record["step"], float(record["value"])) for record in entry.curve(metric)]


def _option_text(experiment: Any, key: str) -> str:
    """The value of an experiment's dotted key as text for an HTML page; empty where it is absent."""
    for part in key.split("."):
        experiment = experiment.get(part) if isinstance(experiment, Mapping) else None
    if experiment is None:
        return ""
    return f"{experiment:g}" if isinstance(experiment, float) and math.isfinite(experiment) else str(experiment)


def write_page(path: Path, page: str) -> None:
    """Writes an HTML page; raises UserError for a file name that does not end in .html or .htm."""
    if path.suffix not in (".html", ".htm"):
        raise UserError(f"--html {path}: expected a file name that ends in .html")
    write_whole(path, page)
