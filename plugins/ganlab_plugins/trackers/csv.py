"""Two tables in the run folder for spreadsheets and data frames: `ticks.csv` and `scores.csv`.

Decisions:
- The tables are drawn from the run's records: whole when a run starts or goes on, a row at a time after. So a resumed
  run has no row twice, and a row that a kill cut short is mended.
- A table of ticks is wide, a column a number; where a number appears that no row had before (a penalty that was not
  due, an alarm), it is drawn anew with a column more. A table of scores is long, since each value comes by itself.
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
    """A CSV file that grows by rows, and by columns when it must. `rows` reads all that there are."""

    path: Path
    rows: Callable[[], list[dict[str, Any]]]
    columns: list[str]

    def draw(self) -> None:
        """Writes the file whole: all rows, with every column that one of them has."""
        rows = self.rows()
        self.columns = list(dict.fromkeys([*self.columns, *(key for row in rows for key in row)]))
        write_whole(self.path, _lines([dict(zip(self.columns, self.columns, strict=True)), *rows], self.columns))

    def add(self, row: dict[str, Any]) -> None:
        if not row.keys() <= set(self.columns):
            self.draw()  # this row too, since a record reaches the run folder first
            return
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines([row], self.columns))
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)  # a full disk takes half of a row
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
    """A `Tracker`: ticks in one table, scores in another."""

    ticks: Table
    scores: Table

    def log(self, record: Mapping[str, Any]) -> None:
        if is_score(record):
            self.scores.add(score_row(record))
        else:
            self.ticks.add(tick_row(record))

    def samples(self, step: int, path: Path) -> None:
        """Not for a table."""

    def close(self) -> None:
        """Each row is in the file already."""


@frozen
class CSV:
    """Two tables in the run folder: `ticks.csv`, a row a tick, and `scores.csv`, a row a value.

    The columns of the first are those of log.jsonl; alarms are one text. Those of the second are step, name, value,
    better ("lower" or "higher") and floor. What a row does not have is empty.
    """

    def build(self, run: RunFolder) -> Tables:
        ticks = Table(run.path / "ticks.csv", lambda: [*map(tick_row, run.ticks())], ["step", "images_seen"])
        scores = Table(run.path / "scores.csv", lambda: [*map(score_row, run.scores())], list(SCORE))
        ticks.draw()
        scores.draw()
        return Tables(ticks, scores)


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("csv", CSV)
