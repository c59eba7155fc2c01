"""Progress of a run in a notebook: one output of HTML, a bar and a table of the latest values, updated in place."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from html import escape
from types import TracebackType
from typing import Any

from rich.console import Console

from ganlab.viz.progress_text import alarm_lines, amount_done, floor_note, tick_values

SECONDS = 0.25
"""The least seconds between two updates: a notebook keeps up with a few a second."""


class NotebookView:
    """Progress in a notebook; a `ProgressView`. Lines are printed below it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._display = importlib.import_module("IPython.display")
        self._handle: Any = None
        self._last = 0.0
        self._step = self._total = 0
        self._terms: dict[str, str] = {}
        self._scores: dict[str, str] = {}
        self._alarms: list[str] = []
        self._doing = ""

    def __enter__(self) -> NotebookView:
        self._handle = self._display.display(self._display.HTML(self.html()), display_id=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._doing = ""
        self._update(now=True)

    def html(self) -> str:
        """The progress in a notebook as HTML, with all texts escaped."""
        cells = "".join(
            f"<td>{escape(label)} <b>{escape(value)}</b></td>" for label, value in (self._terms | self._scores).items()
        )
        below = "".join(f"<div><b>{escape(alarm)}</b></div>" for alarm in self._alarms)
        if self._doing:
            below += f"<div>{escape(self._doing)}</div>"
        bar = f'<progress value="{self._step}" max="{max(1, self._total)}"></progress>'
        return f"<div>{bar} step {self._step:,}/{self._total:,}</div><table><tr>{cells}</tr></table>{below}"

    def _update(self, now: bool = False) -> None:
        if self._handle is not None and (now or time.monotonic() - self._last >= SECONDS):
            self._last = time.monotonic()
            self._handle.update(self._display.HTML(self.html()))

    def started(self, step: int, total: int) -> None:
        self._step, self._total = step, total
        self._update(now=True)

    def tick(self, record: Mapping[str, Any]) -> None:
        self._step, self._terms, self._alarms = record["step"], tick_values(record), alarm_lines(record)
        self._update()

    def score(self, record: Mapping[str, Any]) -> None:
        self._scores[record["name"]] = f"{record['value']:.4g} at {record['step']:,}{floor_note(record)}"
        self._update(now=True)

    def progress(self, what: str, done: int, total: int) -> None:
        self._doing = amount_done(what, done, total) if what else ""
        self._update()

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
