"""Alarms: what is wrong with a game for long although every number is finite, found in a run's log records.

Decisions:
- An alarm reads the records of ticks and nothing else. So it costs the step nothing, and a resumed run, which reads the
  records again, needs no state in the checkpoint.
- An alarm is on where its condition has held without a pause for `LONG` steps: in a healthy game the discriminator is
  ahead at first, and a generator makes nearly equal images until it has begun to learn.
- The discriminator has won where D(real) and D(fake) are as far apart as the loss asks for. How far that is no plugin
  declares: a probe finds it (loss_optimum.py). A loss that can never be satisfied (Wasserstein's) has no such alarm.
- Samples have collapsed where their spread is far below that of real images (sample_spread.py). It is taken of the same
  latents as the sample grids, at the first tick after each of them is due.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

WON = "the discriminator has won"
COLLAPSED = "the samples have collapsed"
STOPPED = "neither player is trained"

LONG = 1_000
"""The number of steps without a pause for which an alarm's condition must hold."""

WON_SHARE = 0.95
"""The discriminator has won at this share of the gap between D(real) and D(fake) that the loss asks for."""

SPREAD_SHARE = 0.03
"""Samples have collapsed below this share of the data's spread.

Collapsed games were at 0.000; healthy ones, which all came to 0.4 and more, stayed under 0.2 for up to 2,700 steps at
first (mnist_mlp: 0.05 to 0.2), and under 0.03 for up to 600 (a small mnist_dcgan_stable: 0.008).
"""


@define
class Alarm:
    """One alarm: on where its condition holds and has held for `LONG` steps.

    `well` is the last step at which it did not hold, or before which it is not to come.
    """

    name: str
    well: int = 0
    on: bool = False

    def update(self, step: int, holds: bool) -> None:
        if not holds:
            self.well = max(self.well, step)
        self.on = holds and step - self.well >= LONG


@define
class Alarms:
    """The alarms of a run: which are on, by the log records read so far.

    `gap` is D(real) - D(fake) where the loss is satisfied, of `optimal_gap`; None for no such alarm. `ema` is the decay
    of the EMA that is sampled, 0 for none: while the EMA still holds much of the untrained weights, its samples raise
    no alarm. `moves` are those of the game, where updates of all of them may be stopped.
    """

    gap: float | None
    ema: float = 0.0
    moves: Sequence[str] = ()
    _won: Alarm = field(factory=lambda: Alarm(WON), init=False)
    _collapsed: Alarm = field(init=False)
    _stopped: Alarm = field(factory=lambda: Alarm(STOPPED), init=False)
    _shares: dict[str, float] = field(factory=dict, init=False)

    @_collapsed.default
    def _collapsed_after_warm_up(self) -> Alarm:
        # Of the first weights an EMA then holds exp(-3), a twentieth.
        return Alarm(COLLAPSED, well=math.ceil(3 / (1 - self.ema)) if self.ema else 0)

    @property
    def on(self) -> list[str]:
        """The names of the alarms that are on, as log records list them."""
        return [alarm.name for alarm in (self._won, self._collapsed, self._stopped) if alarm.on]

    def read(self, record: Mapping[str, Any]) -> list[str]:
        """Updates the alarms with a tick's log record; returns the names of those that are on after it."""
        step = record["step"]
        if self.gap is not None and "d_real" in record and "d_fake" in record:
            # A record that was read from its file has NaN as text.
            gap = float(record["d_real"]) - float(record["d_fake"])
            self._won.update(step, gap / self.gap >= WON_SHARE)
        if "sample_spread" in record:
            self._collapsed.update(step, float(record["sample_spread"]) < SPREAD_SHARE)
        # A move that is not made in every step may have no update in a record, where its last one counts.
        self._shares |= {move: record[key] for move in self.moves if (key := f"stopped_{move}") in record}
        if self.moves:
            self._stopped.update(step, all(self._shares.get(move) == 1.0 for move in self.moves))
        return self.on

    def changes(self, before: Sequence[str], record: Mapping[str, Any]) -> list[str]:
        """Lines for the progress view on alarms that came on or went off with a record; `before` were on before."""
        figures: dict[str, Callable[[], str]] = {
            WON: lambda: f"D(real) {record['d_real']:.3f} and D(fake) {record['d_fake']:.3f}",
            COLLAPSED: lambda: f"their spread is {record['sample_spread']:.3f} of the data's",
            STOPPED: lambda: (
                "the losses of both are under their bounds (train.stop_…_under), so every update is stopped"
            ),
        }
        begun = [name for name in self.on if name not in before]
        over = [name for name in before if name not in self.on]
        at = f"step {record['step']:,}: "
        return [f"{at}ALARM: {name}: {figures[name]()}" for name in begun] + [f"{at}over: {name}" for name in over]


def spans(log: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """The spans of alarms in log records, for plots and reports: name, first and last step, ordered by the first."""
    found: list[tuple[str, int, int]] = []
    going: dict[str, int] = {}  # where in `found`
    for record in log:
        names = record.get("alarms", [])
        going = {name: index for name, index in going.items() if name in names}
        for name in names:
            if name not in going:
                going[name] = len(found)
                found.append((name, record["step"], record["step"]))
            found[going[name]] = (name, found[going[name]][1], record["step"])
    return found
