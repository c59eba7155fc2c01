"""Alarms: what is wrong with a game for long although every number is finite, found in a run's records.

Decisions:
- An alarm looks at records of ticks and at nothing else. So it costs the step nothing, and a resumed run, which reads
  the records again, needs no state in the checkpoint.
- It is on where what it looks for has been there without a pause for `LONG` steps: in a healthy game a discriminator
  is ahead at first, and a generator makes nearly equal images until it has begun to learn.
- The discriminator has won where D(real) and D(fake) are as far apart as the loss asks for. How far that is no plugin
  declares: a probe finds it. A loss that can never be satisfied (Wasserstein's) has no such alarm.
- Samples have collapsed where their spread is far under that of real images. It is taken of the same latents as the
  sample grids, at the first tick after each of them is due. Where networks are told classes it is the spread within a
  class: one picture a class is a collapse too, though ten of them are far apart.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ganlab.plugin.failures import Guard
from ganlab.protocols import Loss
from ganlab.utils.rng import preserve_random_state

WON = "the discriminator has won"
COLLAPSED = "the samples have collapsed"
STOPPED = "neither player is trained"

LONG = 1_000
"""Steps without a pause after which an alarm is on."""

WON_SHARE = 0.95
"""The share of the gap that the loss asks for from which on a discriminator counts as having won."""

SPREAD_SHARE = 0.03
"""The share of the data's spread below which samples count as collapsed.

Collapsed games were at 0.000; healthy ones, which all came to 0.4 and more, stayed under 0.2 for up to 2,700 steps at
first (mnist_mlp: 0.05 to 0.2), and under 0.03 for up to 600 (a small mnist_dcgan_stable: 0.008).
"""

SPREAD_OF = 64
"""Images of each kind whose spread is compared."""

MOST_CLASSES = SPREAD_OF // 4
"""Of more classes so many images are too few to say how far those of one lie apart."""

FEWEST = 8
"""Fewer real images than this have no spread that a generator's could be held against."""

REACH = 8.0
"""The largest logit of the probe of a loss: a sigmoid of 0.9997."""


@define
class Alarm:
    """On where something is amiss and has been for `LONG` steps; `well` is the last step at which it was not."""

    name: str
    well: int = 0
    on: bool = False

    def read(self, step: int, amiss: bool) -> None:
        if not amiss:
            self.well = step
        self.on = amiss and step - self.well >= LONG


@define
class Alarms:
    """The alarms of a run.

    `gap` is that of `asked_gap`. `ema` is the decay of the running average that is sampled, 0 for none: while that
    remembers the untrained weights, nothing is said of its samples.
    """

    gap: float | None
    ema: float = 0.0
    _won: Alarm = field(factory=lambda: Alarm(WON), init=False)
    _collapsed: Alarm = field(init=False)
    _stopped: Alarm = field(factory=lambda: Alarm(STOPPED), init=False)

    @_collapsed.default
    def _from_when_the_average_counts(self) -> Alarm:
        # Of the first weights an average then holds exp(-3), a twentieth.
        return Alarm(COLLAPSED, well=math.ceil(3 / (1 - self.ema)) if self.ema else 0)

    @property
    def on(self) -> list[str]:
        """The names of the alarms that are on."""
        return [alarm.name for alarm in (self._won, self._collapsed, self._stopped) if alarm.on]

    def read(self, record: Mapping[str, Any]) -> list[str]:
        """Takes a tick's record and gives the names of the alarms that are on after it."""
        step = record["step"]
        if self.gap is not None and "d_real" in record and "d_fake" in record:
            # A record that was read from its file has NaN as text.
            gap = float(record["d_real"]) - float(record["d_fake"])
            self._won.read(step, gap / self.gap >= WON_SHARE)
        if "sample_spread" in record:
            self._collapsed.read(step, float(record["sample_spread"]) < SPREAD_SHARE)
        stopped = [record.get(f"stopped_{player}") for player in ("generator", "discriminator")]
        self._stopped.read(step, stopped == [1.0, 1.0])
        return self.on

    def news(self, before: Sequence[str], record: Mapping[str, Any]) -> list[str]:
        """Lines for people about what has changed with the record that was read last; `before` was on before it."""
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
    """From the records of ticks each alarm's name with its first and its last step, in the order of the first."""
    found: list[tuple[str, int, int]] = []
    going: dict[str, int] = {}  # where in `found`
    for record in log:
        names = record.get("alarms", [])
        going = {name: place for name, place in going.items() if name in names}
        for name in names:
            if name not in going:
                going[name] = len(found)
                found.append((name, record["step"], record["step"]))
            found[going[name]] = (name, found[going[name]][1], record["step"])
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The spread of images
# ---------------------------------------------------------------------------------------------------------------------


@define
class _Sums:
    """Of images: how many, their sum and that of their squares, in whole numbers, the same on every device."""

    count: int = 0
    total: Tensor = field(factory=lambda: torch.zeros((), dtype=torch.int64))
    squares: Tensor = field(factory=lambda: torch.zeros((), dtype=torch.int64))

    def add(self, images: Tensor) -> None:
        for part in images.split(8):  # four bytes a value: not of all at once
            pixels = part.to(torch.int32)
            self.count += len(pixels)
            self.total, self.squares = self.total + pixels.sum(0).cpu(), self.squares + pixels.square().sum(0).cpu()

    @property
    def deviation(self) -> Tensor:
        """The sum of the squared distances from the mean, of each pixel."""
        return self.squares.double() - self.total.double().square() / self.count


def spread(batches: Iterable[tuple[Tensor, Tensor | None]]) -> float:
    """How far uint8 images (N, C, H, W) lie apart: the root of the mean over pixels of their variance.

    Each batch is images and their class labels, or None. With labels it is the variance within a class, pooled over the
    classes; of one class, or without labels, there must be two images at least. In units of a pixel's value, 0 to 255.
    """
    classes: dict[int, _Sums] = {}
    for images, labels in batches:
        of = [0] * len(images) if labels is None else labels.tolist()
        for label in sorted(set(of)):
            classes.setdefault(label, _Sums()).add(images[[place for place, one in enumerate(of) if one == label]])
    freedom = sum(sums.count - 1 for sums in classes.values())
    variance = float(sum(sums.deviation.mean() for sums in classes.values())) / freedom
    return math.sqrt(max(0.0, variance))


def real_spread(images: Tensor, labels: Tensor | None = None) -> float:
    """The spread of `SPREAD_OF` images from all over a data set, within classes for labels; 0 where it has too few."""
    count, classes = min(SPREAD_OF, len(images)), 1 if labels is None else len(labels.unique())
    if count - classes + 1 < FEWEST:
        return 0.0
    # In the order of the classes every class has its share of them.
    order = torch.arange(len(images)) if labels is None else labels.argsort(stable=True)
    some = order[torch.arange(count) * len(images) // count]
    return spread([(images[some], None if labels is None else labels[some])])


# ---------------------------------------------------------------------------------------------------------------------
# The probe of a loss
# ---------------------------------------------------------------------------------------------------------------------


def asked_gap(loss: Loss) -> float | None:
    """How far a discriminator that satisfies the loss has mean D(real) above mean D(fake), from -1 to 1.

    None where the loss has no minimum or one that asks for no gap, and where it cannot be asked: what a stranger's code
    raises here, it raises in the step too, where it is told.
    """
    with Guard(), preserve_random_state():
        # A copy is asked, since a loss may count or keep what it is given.
        return _gap(copy.deepcopy(loss).discriminator)
    return None


def _gap(loss: Callable[[Tensor, Tensor], Tensor]) -> float | None:
    values: dict[tuple[float, float], float] = {}

    def ask(real: float, fake: float) -> float:
        if (real, fake) not in values:
            values[real, fake] = float(loss(torch.full((4,), real), torch.full((4,), fake)))
        return values[real, fake]

    # Every pair of constant logits on a grid, then on two finer ones around the least.
    start, best = ask(0.0, 0.0), (0.0, 0.0)
    for step, around in ((1.0, REACH), (1 / 4, 1.0), (1 / 16, 1 / 4)):
        offsets = [step * number for number in range(-round(around / step), round(around / step) + 1)]
        asked = [[min(REACH, max(-REACH, at + offset)) for offset in offsets] for at in best]
        for real in asked[0]:
            for fake in asked[1]:
                ask(real, fake)
        least = min((value for value in values.values() if math.isfinite(value)), default=math.nan)
        tied = [pair for pair, value in values.items() if value <= least + 1e-6 * abs(start - least)]
        if not tied:
            return None
        # A hinge is satisfied by all logits beyond its margin; the smallest are what it asks for.
        best = min(tied, key=lambda pair: math.hypot(*pair))
    real, fake = best
    farther = ask(*(2 * logit if abs(logit) == REACH else logit for logit in best))
    if not start - farther <= 1.01 * (start - ask(real, fake)):
        return None  # it goes on falling: there is no minimum
    gap = _sigmoid(real) - _sigmoid(fake)
    return gap if abs(gap) >= 0.1 else None


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
