"""The CSV tracker: two tables in the run folder for spreadsheets and data frames, `ticks.csv` and `scores.csv`.

Decisions:
- The tables are written from the run's records: completely when a run starts or resumes, then a row at a time. So a
  resumed run has no duplicate rows, and a row truncated by a kill is repaired.
- The table of ticks is wide, a column a value; when a value appears that no row had before (a penalty that was not due,
  an alarm), it is rewritten with one more column. The table of scores is long, since each value is logged separately.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from ganlab import Register, TrackerConfig, hookimpl, is_score, write_whole

if TYPE_CHECKING:
    from ganlab import RunFolder

SCORE = ("step", "name", "value", "better", "floor")
"""The columns of scores.csv."""


@define
class Table:
    """A CSV file that grows by rows, and by columns when necessary. `rows` reads all rows from the run's records."""

    path: Path
    rows: Callable[[], list[dict[str, Any]]]
    columns: list[str]

    def rewrite(self) -> None:
        """Writes the complete CSV file: all rows, with every column that any of them has."""
        rows = self.rows()
        self.columns = list(dict.fromkeys([*self.columns, *(key for row in rows for key in row)]))
        write_whole(self.path, _lines([dict(zip(self.columns, self.columns, strict=True)), *rows], self.columns))

    def add(self, row: dict[str, Any]) -> None:
        if not row.keys() <= set(self.columns):
            self.rewrite()  # includes this row, since records are written to the run folder first
            return
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines([row], self.columns))
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)  # remove the partial row that a full disk leaves
            raise


def _lines(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> str:
    stream = io.StringIO()
    csv.DictWriter(stream, columns, restval="", lineterminator="\n").writerows(rows)
    return stream.getvalue()


def tick_row(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: "; ".join(value) if isinstance(value, list) else value for key, value in record.items()}


def score_row(record: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: record.get(key) for key in SCORE}
    return row | {"floor": record["floor"]["value"] if "floor" in record else None}


@define
class Tables:
    """A `Tracker` that writes ticks to one CSV table and scores to another."""

    ticks: Table
    scores: Table

    def log(self, record: Mapping[str, Any]) -> None:
        if is_score(record):
            self.scores.add(score_row(record))
        else:
            self.ticks.add(tick_row(record))

    def samples(self, step: int, path: Path) -> None:
        """Ignored."""

    def close(self) -> None:
        """Nothing to do: rows are written at once."""


@frozen
class CSV:
    """CSV tables in the run folder: `ticks.csv`, a row a tick, and `scores.csv`, a row a score.

    The columns of ticks.csv are the keys of log.jsonl; alarms are joined into one text. Those of scores.csv are step,
    name, value, better ("lower" or "higher") and floor. Missing values are empty.
    """

    def build(self, run: RunFolder) -> Tables:
        ticks = Table(run.path / "ticks.csv", lambda: [*map(tick_row, run.ticks())], ["step", "images_seen"])
        scores = Table(run.path / "scores.csv", lambda: [*map(score_row, run.scores())], list(SCORE))
        ticks.rewrite()
        scores.rewrite()
        return Tables(ticks, scores)


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("csv", CSV)
