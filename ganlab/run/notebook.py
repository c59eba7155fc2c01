"""A loaded run in a notebook: its summary as HTML, and its records as a data frame of pandas or polars."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ganlab.run.records import best_and_final, numbers_of
from ganlab.run.run_folder import RunFolder
from ganlab.utils.errors import UserError, quote
from ganlab.viz.show_images import png_html

LIBRARIES = ("pandas", "polars")


def run_frame(log: Iterable[Mapping[str, Any]], metrics: Iterable[Mapping[str, Any]], library: str | None) -> Any:
    """A run's records as a data frame: a row a step, columns `step`, `train/…` of ticks and `score/…` of scores.

    Scores that `ganlab eval` added are left out, since their protocol may be another.
    """
    rows: dict[int, dict[str, float]] = {}
    for record in [*log, *(record for record in metrics if not record.get("eval"))]:
        rows.setdefault(record["step"], {}).update(numbers_of(record))
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = {name: [rows[step].get(name) for step in sorted(rows)] for name in names}
    return data_frame({"step": sorted(rows), **columns}, whole=("step",), library=library)


def data_frame(
    columns: Mapping[str, list[Any]],
    whole: Collection[str] = (),
    texts: Collection[str] = (),
    library: str | None = None,
) -> Any:
    """Makes a data frame of pandas or polars for a notebook; what is None is NaN in pandas, null in polars.

    columns: values by name, those named in `whole` whole numbers, in `texts` texts, all others floats. library:
    "pandas" or "polars"; None for the one that is installed, pandas before polars. Raises UserError where it is not.
    """
    if library is not None and library not in LIBRARIES:
        raise UserError(f"frame: expected 'pandas' or 'polars', got {quote(library)}")
    wanted = LIBRARIES if library is None else (library,)
    there = [name for name in wanted if importlib.util.find_spec(name) is not None]
    if not there:
        raise UserError(f"frame: {' or '.join(wanted)} is needed: pip install {wanted[0]}")
    module = importlib.import_module(there[0])
    floats = [name for name in columns if name not in whole and name not in texts]
    if there[0] == "pandas":
        return module.DataFrame(dict(columns)).astype(dict.fromkeys(floats, "float64"))
    schema = {name: module.Int64 if name in whole else module.Float64 for name in columns if name not in texts}
    return module.DataFrame(dict(columns), schema={name: schema.get(name, module.String) for name in columns})


def run_html(path: Path, step: int, info: Mapping[str, Any], metrics: list[dict[str, Any]]) -> str:
    """A run's summary as HTML for a notebook, texts escaped: what it is, its scores, its latest sample grid."""
    facts = {"folder": str(path), "seed": info["seed"], "status": info["status"], "checkpoint": f"step {step:,}"}
    for name, entry in best_and_final(metrics).items():
        facts[name] = f"final {float(entry['final']['value']):.4g}"
        if best := entry.get("best"):
            facts[name] += f", best {float(best['value']):.4g} at step {best['step']:,}"
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in facts.items())
    grids = [*RunFolder(path).sample_grids().values()]
    image = png_html(grids[-1].read_bytes(), f"samples, {grids[-1].stem}") if grids else ""
    return f"<div><b>{escape(str(info['name']))}</b><table>{rows}</table>{image}</div>"
