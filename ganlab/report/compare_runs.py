"""`ganlab.compare_runs`: the comparison tables of `ganlab compare` from Python, for notebooks and as data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from attrs import frozen

from ganlab.report.collect_runs import collect_runs
from ganlab.report.compare import ComparisonTable, comparison_tables
from ganlab.report.table_output import HEADINGS, row_cells, table_notes, tables_as_csv
from ganlab.run.notebook import data_frame
from ganlab.utils.errors import UserError
from ganlab.utils.from_python import from_python

TEXTS = ("metric", "variant", "others", "best_steps", "verdict", "baseline", "protocol")
"""Columns of a comparison's data frame that are no numbers."""


@frozen
class Comparison:
    """A comparison of runs: one table, or with `split` one for each score protocol. Iterating gives the tables."""

    tables: tuple[ComparisonTable, ...]

    def __iter__(self) -> Iterator[ComparisonTable]:
        return iter(self.tables)

    @from_python
    def frame(self, library: str | None = None) -> Any:
        """The rows of a comparison of runs as a data frame of pandas or polars, with the columns of `--csv`.

        Raises UserError where neither library is installed.
        """
        rows = list(csv.DictReader(io.StringIO(tables_as_csv(self.tables))))
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
        for name in columns.keys() - set(TEXTS):
            columns[name] = [float(value) if value else None for value in columns[name]]
        return data_frame(columns, texts=TEXTS, library=library)

    def _repr_html_(self) -> str:
        return "".join(map(_table_html, self.tables))


@from_python
def compare_runs(
    *paths: str | Path, metric: str | None = None, baseline: str | None = None, split: bool = False
) -> Comparison:
    """Compares runs as `ganlab compare` does: sweep folders, run folders and files of scores.

    metric: the metric, by default the first. baseline: the variant that others are compared with, by default the first.
    split: a table for each score protocol, where there are several. Raises UserError where runs do not compare.
    """
    if not paths:
        raise UserError("compare_runs: name at least one run or sweep folder")
    return Comparison(tuple(comparison_tables(collect_runs(map(Path, paths)), metric, baseline, split)))


def _table_html(table: ComparisonTable) -> str:
    """One table of a comparison of runs as HTML, with all texts escaped."""
    head = "".join(f"<th>{escape(heading.format(baseline=table.baseline))}</th>" for heading in HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row_cells(row)) + "</tr>" for row in table.rows
    )
    notes = "".join(f"<div>{escape(note)}</div>" for note in table_notes(table))
    return f"<div><b>{escape(table.metric)}</b><table><tr>{head}</tr>{body}</table>{notes}</div>"
