"""The conformance checks that train: weights change, repeats, resumes, state, capture, and the cost of a step.

Decisions:
- Lost state is found by its effect: a training resumed from a checkpoint, in a process seeded otherwise, is compared
  bit for bit with one that never stopped.
- What a component costs is reported and never judged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import attrs

from ganlab.testing.check_result import Check, Fault
from ganlab.testing.fixed_inputs import shape_text
from ganlab.testing.inspection import Inspection
from ganlab.testing.state_comparison import first_difference
from ganlab.testing.step_timing import median_milliseconds
from ganlab.testing.tiny_training import CPU, LISTED, TinyTraining
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.training.graph_check import OperationTrace, find_capture_fault
from ganlab.training.loop import Training, take_step
from ganlab.training.state import restore_training
from ganlab.utils.rng import seed_everything
from ganlab.utils.state_tree import find_non_finite

RESUMES = "resumes: a training stopped and resumed is bitwise identical to one that never stopped"


def run_training_checks(inspection: Inspection, tiny: TinyTraining, *after: Check, stateful: bool = False) -> Check:
    """Runs the conformance checks that all kinds in the step share, unless one of the component's own did not pass.

    `stateful` adds the check of its state_dict(). Returns the check that others depend on: that it trains.
    """
    if inspection.kind == "penalty" and "every" in attrs.fields_dict(inspection.cls):
        inspection.shorten(every=2)  # so that few steps show it
    run_check = inspection.run_check
    trains = run_check(
        "trains: in a tiny training all networks' weights change and stay finite", lambda: check_trains(tiny), *after
    )
    repeats = run_check(
        "repeats: two trainings with the same seed are bitwise identical", lambda: _check_repeats(tiny), trains
    )
    before = [repeats]
    if stateful:
        before += [
            run_check(
                "state: load_state_dict() restores what state_dict() returned", lambda: _check_state(tiny), trains
            )
        ]
    run_check(RESUMES, lambda: check_resumes(tiny), *before)
    run_check(
        "capture: reads no value back, takes no shape from values, does the same in every step",
        lambda: _check_capture(tiny),
        trains,
    )
    run_check("cost of a step", lambda: measure_step_cost(tiny), trains)
    return trains


def check_trains(tiny: TinyTraining) -> str | None:
    """Checks that a tiny training changes the weights of all networks and that its whole state stays finite."""
    completed, at = tiny.completed(), tiny.inspection.line_of_class()
    if where := find_non_finite(completed.state):
        raise Fault(f"after {tiny.length} steps {where} is not finite", at)
    late = [move for move in tiny.moves if move.start >= tiny.length]
    untried = {name for move in late for name in move.players}
    untried -= {name for move in tiny.moves if move not in late for name in move.players}
    for name, weights in completed.weights_before.items():
        if name not in untried and first_difference(weights, completed.state[name]) is None:
            if tiny.inspection.kind == "schedule":  # it may hold an option at 0 for a while
                return f"under its values these {tiny.length} steps leave the {name}'s weights unchanged"
            raise Fault(f"{tiny.length} steps leave the {name}'s weights unchanged")
    made = ", ".join(f"{move.name!r} begins in step {move.start:,}" for move in late)
    return f"not made in these {tiny.length} steps: {made}" if late else None


def _check_repeats(tiny: TinyTraining) -> None:
    """Checks that two tiny trainings with the same seed are bitwise identical."""
    again = tiny.run_steps(tiny.build(), 0, tiny.length)
    if where := first_difference(tiny.completed().state, again):
        raise Fault(f"two trainings with the same seed differ in {where}", tiny.inspection.line_of_class())


def check_resumes(tiny: TinyTraining) -> None:
    """Checks that a tiny training resumed from a checkpoint is bitwise identical to one that never stopped."""
    stop = tiny.length // 2
    saved = to_bytes(tiny.run_steps(tiny.build(), 0, stop))
    resumed = tiny.build()
    seed_everything(77)  # whatever another process would begin with
    restore_training(resumed, from_bytes(saved))
    if where := first_difference(tiny.completed().state, tiny.run_steps(resumed, stop, tiny.length)):
        raise Fault(
            f"a training resumed after step {stop} differs in {where} from one that never stopped: return what changes "
            "from step to step from state_dict() and restore it in load_state_dict()",
            tiny.inspection.line_of_class(),
        )


def _check_state(tiny: TinyTraining) -> str | None:
    """Checks that a fresh component restores the state_dict() of a trained one and returns the same again."""
    stateful = tiny.completed().training.stateful
    for name, part in stateful.items():
        at = tiny.inspection.line_of("state_dict", part)
        if not hasattr(part, "load_state_dict"):
            raise Fault("has state_dict() and no load_state_dict(state)", at)
        state = part.state_dict()
        fresh = tiny.build().stateful[name]
        fresh.load_state_dict(from_bytes(to_bytes(state)))
        if where := first_difference(state, fresh.state_dict()):
            at = tiny.inspection.line_of("load_state_dict", part)
            raise Fault(f"load_state_dict() does not restore what state_dict() returned: {where} differs", at)
    return None if stateful else "it has none"


def _check_capture(tiny: TinyTraining) -> None:
    """Checks that a CUDA graph could hold the steps of a tiny training."""
    if fault := why_not_capturable(tiny, tiny.build()):
        raise fault


def why_not_capturable(tiny: TinyTraining, training: Training) -> Fault | None:
    """The training check for capture: returns what in the steps of a training a CUDA graph could not hold, or None."""
    turns = training.train_step
    first: dict[Hashable, int] = {}
    for step in range(tiny.length):
        first.setdefault(turns.signature(step), step)
    for step in first.values():
        batches = [training.loader.batch(number) for number in range(turns.batches_per_step)]
        turns(batches, step)  # creates what is created on first use
        with OperationTrace(CPU) as before:
            turns(batches, step)
        with OperationTrace(CPU, before) as after:
            turns(batches, step)
        if fault := find_capture_fault(before, after):
            return Fault(fault.what, f"{fault.line.file}:{fault.line.number}" if fault.line.file else "")
    return None


def measure_step_cost(tiny: TinyTraining) -> str:
    """Measures a step with and without it."""
    contest = {"with": _stepper(tiny.build()), "without": _stepper(tiny.build(without=True))}
    times = median_milliseconds(contest)
    without = "without" if tiny.inspection.kind in LISTED else "with the suite's own"
    due = f", due every {tiny.every} updates" if tiny.every > 1 else ""
    return (
        f"{times['with']:.2f} ms with it, {times['without']:.2f} ms {without} "
        f"(tiny networks, 8 images of {shape_text(tiny.shape)}, CPU{due})"
    )


def _stepper(training: Training) -> Callable[[], None]:
    steps = iter(range(1000))
    return lambda: take_step(training, next(steps))
