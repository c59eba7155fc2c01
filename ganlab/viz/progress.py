"""Terminal progress of a run: a live progress bar with a table on a terminal, plain lines elsewhere.

Both show the progress with the time left, the loss of each move, mean D(real) and D(fake), images per second, the
latest scores and the active alarms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from attrs import define, field
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from ganlab.utils import distributed
from ganlab.viz.notebook_view import NotebookView
from ganlab.viz.progress_text import alarm_lines, amount_done, floor_note, format_duration, tick_values

NARROW = 60
"""On terminals with fewer columns than this there is no progress bar."""

BESIDE_NAME = 32
"""The columns that a progress bar, its percentage and the time left need beside the name."""

PLAIN_SECONDS = 5.0
"""The least seconds between two plain progress lines, so that a log file stays readable."""


class ProgressView(Protocol):
    """Protocol of a terminal progress display; a context manager around the training."""

    def __enter__(self) -> ProgressView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None: ...

    def started(self, step: int, total: int) -> None: ...

    def tick(self, record: Mapping[str, Any]) -> None: ...

    def score(self, record: Mapping[str, Any]) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None: ...

    def line(self, text: str) -> None: ...


def make_progress_view(console: Console) -> ProgressView:
    if console.is_jupyter:
        return NotebookView(console)
    return LiveView(console) if can_redraw(console) else PlainView(console)


def can_redraw(console: Console) -> bool:
    """Whether the console can redraw lines."""
    return console.is_terminal and not console.is_dumb_terminal


@define
class PlainView:
    """Terminal progress as plain lines, at most one every few seconds."""

    console: Console
    _first: int = 0
    _total: int = 0
    _begun: float = field(factory=time.monotonic)
    _last_line: float = 0.0
    _scores: dict[str, str] = field(factory=dict)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        return None

    def started(self, step: int, total: int) -> None:
        self._first, self._total, self._begun = step, total, time.monotonic()

    def tick(self, record: Mapping[str, Any]) -> None:
        step, now = record["step"], time.monotonic()
        if now - self._last_line < PLAIN_SECONDS and step != self._total:
            return
        self._last_line = now
        left = (now - self._begun) / max(1, step - self._first) * (self._total - step)
        parts = [f"{label} {value}" for label, value in {**tick_values(record), **self._scores}.items()]
        parts += [f"{format_duration(left)} left", *alarm_lines(record)]
        self.line(f"step {step:,}/{self._total:,}  {'  '.join(parts)}")

    def score(self, record: Mapping[str, Any]) -> None:
        self._scores[record["name"]] = f"{record['value']:.4g}"
        self.line(
            f"step {record['step']:,}/{self._total:,}  {record['name']} {record['value']:.4g}{floor_note(record)}"
        )

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what and now - self._last_line >= PLAIN_SECONDS:
            self._last_line = now
            self.line(amount_done(what, done, total))

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveView:
    """Terminal progress as a bar with the time left and a table of the latest values, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("[bold]step"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._terms: dict[str, str] = {}
        self._scores: dict[str, str] = {}
        self._alarms: list[str] = []
        self._doing = ""
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._live.stop()

    def _render(self) -> Group:
        values = self._terms | self._scores
        # As many columns as fit in the terminal; the rest continues on the next line.
        columns = max(1, self.console.width // 22)
        table = Table.grid(*(Column(overflow="fold") for _ in range(columns)), padding=(0, 3))
        cells = [Text.assemble((f"{label} ", "dim"), (value, "bold")) for label, value in values.items()]
        for start in range(0, len(cells), columns):
            table.add_row(*cells[start : start + columns])
        below = [Text(alarm, style="bold red") for alarm in self._alarms]
        if self._doing:
            below.append(Text(self._doing, style="dim"))
        return Group(self._bar if self.console.width >= NARROW else self._progress_in_words(), table, *below)

    def _progress_in_words(self) -> Text:
        task = self._bar.tasks[0]
        if task.total is None:
            return Text()
        done = f"step {task.completed:,.0f}/{task.total:,.0f}"
        return Text(done if task.time_remaining is None else f"{done}  {format_duration(task.time_remaining)} left")

    def started(self, step: int, total: int) -> None:
        self._bar.update(self._task, total=total, completed=step)

    def tick(self, record: Mapping[str, Any]) -> None:
        self._terms, self._alarms = tick_values(record), alarm_lines(record)
        self._bar.update(self._task, completed=record["step"])

    def score(self, record: Mapping[str, Any]) -> None:
        self._scores[record["name"]] = f"{record['value']:.4g} at {record['step']:,}{floor_note(record)}"

    def progress(self, what: str, done: int, total: int) -> None:
        self._doing = amount_done(what, done, total) if what else ""

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Yields a function that makes a progress callback for a name: a bar on stderr, or lines without a terminal."""
    console = Console(stderr=True)
    plain = PlainView(console)
    is_first_rank = distributed.rank() == 0
    has_bar = can_redraw(console) and console.width >= NARROW
    with Progress(console=console, transient=True, disable=not (is_first_rank and has_bar)) as bar:
        task = bar.add_task("", total=None)

        def progress_of(name: str) -> Callable[[str, int, int], None]:
            def progress(what: str, done: int, total: int) -> None:
                text, room = f"{name}: {what}", max(10, console.width - BESIDE_NAME)
                text = text if len(text) <= room else f"…{text[1 - room :]}"  # a long path would leave no bar
                bar.update(task, description=escape(text), completed=done, total=total or None)
                if is_first_rank and not has_bar:
                    plain.progress(f"{name}: {what}", done, total)

            return progress

        yield progress_of
