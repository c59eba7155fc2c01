"""The checks that need a game: a component trained in one of tiny networks, by the core's own build and loop.

Decisions:
- The device is the CPU, where a step is watched for what a CUDA graph could not hold.
- Whether a state is forgotten is seen by its effect: a training that goes on from a checkpoint, in a process that was
  seeded otherwise, is held against one that never stopped, bit for bit.
- What a component costs is told and never judged.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any

import attrs
from attrs import define

from ganlab.config.schema import Experiment, Train
from ganlab.plugin.registry import Registry
from ganlab.testing.inspection import CPU, Check, Fault, Inspection, difference
from ganlab.testing.tiny_components import TINY, TinyClassifier, TinyImages
from ganlab.training.build import build
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.training.graph_check import Watch, unfit
from ganlab.training.loop import Training, take_step
from ganlab.training.state import restore_training, training_state
from ganlab.training.state_tree import not_finite
from ganlab.utils.interval import Interval
from ganlab.utils.paths import places
from ganlab.utils.rng import seed_everything

Shape = tuple[int, int, int]

LISTED = ("loss_wrapper", "penalty", "augmentation", "schedule")
LONGEST_INTERVAL = 50
ROUNDS, STEPS_A_TURN = 7, 10


@define
class TinyGame:
    """Trainings of a tiny experiment with the component in its place.

    `classifies` gives it a discriminator that also tells classes, for a component that needs one.
    """

    inspection: Inspection
    registry: Registry
    shape: Shape = (3, 8, 8)
    classifies: bool = False

    def experiment(self, without: bool = False) -> Experiment:
        """The tiny experiment with an unused component; `without` leaves it out, or takes the suite's own."""
        kind = self.inspection.kind
        parts: dict[str, Any] = {
            name: TINY[name]() for name in ("generator", "discriminator", "loss", "optimizer") if name in TINY
        }
        if self.classifies:
            parts["discriminator"] = TinyClassifier()
        parts["dataset"] = TinyImages(*self.shape)
        if not without:
            fresh = self.inspection.fresh()
            parts[kind] = (fresh,) if kind in LISTED else fresh
        train = Train(steps=1000, batch_size=8, ema=0.9, log_every=Interval(1))
        return Experiment(name="check", train=train, **parts)

    def built(self, experiment: Experiment) -> Training:
        """The training of an experiment, by the core's own build."""
        return build(experiment, self.registry, places(), CPU)

    def training(self, without: bool = False) -> Training:
        """Built anew from `experiment(without)`."""
        return self.built(self.experiment(without))

    @property
    def length(self) -> int:
        """Steps until everything was due twice: of a penalty that is due at long intervals, more."""
        every = self.inspection.instance.every if self.inspection.kind == "penalty" else 1
        return max(6, 2 * min(every, LONGEST_INTERVAL) + 2)

    def steps(self, training: Training, first: int, end: int) -> dict[str, Any]:
        """Takes steps; gives all that a checkpoint then holds."""
        for step in range(first, end):
            take_step(training, step)
        return copy.deepcopy(training_state(training, end))

    # ----------------------------------------------------------------------------------------------------------------

    def trains(self) -> str | None:
        training = self.training()
        before = {player.name: copy.deepcopy(player.network.state_dict()) for player in training.game.players}
        state = self.steps(training, 0, self.length)
        if where := not_finite(state):
            raise Fault(f"after {self.length} steps {where} is not finite", self.inspection.line_of_class())
        for name, weights in before.items():
            if difference(weights, state[name]) is None:
                raise Fault(f"{self.length} steps leave the {name}'s weights as they were")
        return None

    def repeats(self) -> str | None:
        one, other = (self.steps(self.training(), 0, self.length) for _ in range(2))
        if where := difference(one, other):
            raise Fault(f"two trainings of one seed differ in {where}", self.inspection.line_of_class())
        return None

    def resumes(self) -> str | None:
        whole = self.steps(self.training(), 0, self.length)
        stop = self.length // 2
        saved = to_bytes(self.steps(self.training(), 0, stop))
        resumed = self.training()
        seed_everything(77)  # whatever another process would begin with
        restore_training(resumed, from_bytes(saved))
        if where := difference(whole, self.steps(resumed, stop, self.length)):
            raise Fault(
                f"stopped after step {stop} and gone on with, a training differs in {where} from one that never "
                "stopped: give what changes from step to step in state_dict() and take it in load_state_dict()",
                self.inspection.line_of_class(),
            )
        return None

    def state_comes_back(self) -> str | None:
        """For a term that has a state: what it gives, a fresh one takes and gives again."""
        training = self.training()
        self.steps(training, 0, self.length)
        for name, part in training.stateful.items():
            at = self.inspection.line_of("state_dict", part)
            if not hasattr(part, "load_state_dict"):
                raise Fault("has state_dict() and no load_state_dict(state)", at)
            state = part.state_dict()
            fresh = self.training().stateful[name]
            fresh.load_state_dict(from_bytes(to_bytes(state)))
            if where := difference(state, fresh.state_dict()):
                at = self.inspection.line_of("load_state_dict", part)
                raise Fault(f"what state_dict() gave is not what load_state_dict() took: {where} differs", at)
        return None if training.stateful else "it has none"

    def can_be_captured(self) -> None:
        if fault := self.why_eager(self.training()):
            raise fault

    def why_eager(self, training: Training) -> Fault | None:
        """Why the turns of a training's steps could not be captured, or None."""
        turns = training.turns
        first: dict[Hashable, int] = {}
        for step in range(self.length):
            first.setdefault(turns.kind(step), step)
        for step in first.values():
            batches = [training.loader.batch(number) for number in range(turns.batches)]
            turns(batches, step)  # makes what is made on first use
            with Watch(CPU) as before:
                turns(batches, step)
            with Watch(CPU, before) as after:
                turns(batches, step)
            if fault := unfit(before, after):
                return Fault(fault.what, f"{fault.place.file}:{fault.place.line}" if fault.place.file else "")
        return None

    def cost(self) -> str:
        contest = {"with": self.training(), "without": self.training(without=True)}
        own = self.inspection.kind not in LISTED
        times = in_turns({name: _stepping(training) for name, training in contest.items()})
        shape = "x".join(map(str, self.shape))
        every = self.inspection.instance.every if self.inspection.kind == "penalty" else 1
        due = f", due every {every} updates" if every > 1 else ""
        return (
            f"{times['with']:.2f} ms with it, {times['without']:.2f} ms "
            f"{'with the tiny one of the suite' if own else 'without'} (tiny networks, 8 images of {shape}, CPU{due})"
        )


def _stepping(training: Training) -> Callable[[], None]:
    steps = iter(range(1000))
    return lambda: take_step(training, next(steps))


def in_turns(contest: dict[str, Callable[[], Any]], often: int = STEPS_A_TURN) -> dict[str, float]:
    """Milliseconds a call of each, the median of rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in contest}
    for round_ in range(ROUNDS + 1):
        for name, work in contest.items():
            began = time.perf_counter()
            for _ in range(often):
                work()
            if round_:  # the first one warms up
                times[name].append((time.perf_counter() - began) / often)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def look_at_game(inspection: Inspection, game: TinyGame, *after: Check, terms: bool = False) -> Check:
    """The checks that every kind in the step has in common, once the component's own `after` passed.

    Gives the one that others rest on: that it trains.
    """
    if inspection.kind == "penalty" and "every" in attrs.fields_dict(inspection.cls):
        inspection.instance = attrs.evolve(inspection.instance, every=2)  # so that few steps show it
    look = inspection.look
    trains = look("trains: in a tiny game every weight moves and stays finite", game.trains, *after)
    repeats = look("repeats: two trainings of one seed are equal to the bit", game.repeats, trains)
    before = [repeats]
    if terms:
        before += [look("state: what state_dict() gives, load_state_dict() takes", game.state_comes_back, trains)]
    look("resumes: stopped and gone on with, a training is equal to the bit", game.resumes, *before)
    look(
        "capture: no value is read back, no shape comes from values, every step does the same",
        game.can_be_captured,
        trains,
    )
    look("cost of a step", game.cost, trains)
    return trains
