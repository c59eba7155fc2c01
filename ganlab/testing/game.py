"""The conformance checks of a game: its rules, what it samples, and the trainings that all kinds in the step share."""

from __future__ import annotations

import torch

from ganlab.config.game_tables import component_fields
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampling import sample
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.protocols import DataSpec
from ganlab.protocols.rules_check import rules_problems
from ganlab.testing.check_result import Fault
from ganlab.testing.fixed_inputs import (
    IMAGE_SHAPES,
    OTHER_FORMS,
    ConditionShape,
    Shape,
    condition_in_words,
    condition_shapes,
    data_spec,
    in_words,
    shape_text,
)
from ganlab.testing.inspection import Inspection
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.tiny_training import CPU, TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.utils.errors import ComponentError, one_line


def check_game(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a game."""
    run_check = inspection.run_check
    rules = run_check(
        "rules: every network is trained or declared frozen, and all names are those of networks",
        lambda: _check_rules(inspection, tiny),
    )
    trains = run_training_checks(inspection, tiny, rules, stateful=True)
    run_check(
        "samples: the same for the same seed, and the training is not changed",
        lambda: _check_samples(inspection, tiny),
        trains,
    )
    check_scheduled_options(inspection, tiny, trains)


def _data(inspection: Inspection, shape: Shape, condition: ConditionShape) -> DataSpec:
    """What a game under check is built for: images of a shape, in all its data sets, with conditions of a form."""
    images = data_spec(shape, condition)
    streams = [name for name, kind in component_fields(inspection.cls).items() if kind == "dataset"]
    return DataSpec(images, dict.fromkeys(streams, images))


def _find_condition(inspection: Inspection, shape: Shape) -> ConditionShape:
    """Finds the condition that a game takes with images of `shape`: the first that it does not refuse, or a label."""
    for condition in condition_shapes(shape):
        with CatchPluginErrors() as caught:
            inspection.fresh().build(_data(inspection, shape, condition))
        if not isinstance(caught.error, ComponentError):
            return condition
    return ()


def _check_rules(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks a game's rules for several shapes of images, or of other data where it refuses all of these."""
    refusals: list[str] = []
    accepted: list[Shape] = []
    for form in (IMAGE_SHAPES, *OTHER_FORMS):
        for shape in form:
            tiny.conditions[shape] = _find_condition(inspection, shape)
            data = _data(inspection, shape, tiny.conditions[shape])
            try:
                rules = inspection.fresh().build(data)
            except ComponentError as error:
                refusals.append(f"refuses {shape_text(shape)}: {one_line(error, limit=200)}")
                continue
            accepted.append(shape)
            if problems := list(rules_problems(rules, data.streams)):
                raise Fault("; ".join(problems), inspection.line_of("build"))
        if accepted:
            break
    if not accepted:
        raise ComponentError(refusals[0])
    if tiny.shape not in accepted:
        tiny.shape = accepted[0]
    if len(tiny.shape) != 3:
        refusals = [f"for {in_words(accepted)}"]
    given = tiny.conditions[tiny.shape]
    words = condition_in_words(given)
    condition = "without conditions" if given is None else f"with {words} as conditions" if words else ""
    return "; ".join(note for note in (*dict.fromkeys(refusals), condition) if note)


def _check_samples(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that a game's samples repeat, and leave the weights and modes of its networks as they are."""
    training = tiny.build()
    at = inspection.line_of("build")
    network = NetworkSampler(training.game.rules.sampler, training.game.networks)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, other = (
        torch.cat([images for images, _ in sample(network, 5, 0, CPU, training.conditions)]) for _ in range(2)
    )
    if not torch.equal(one, other):
        raise Fault("two samplings with one seed gave other images; draw nothing in eval mode", at)
    if any(not torch.equal(value, before[name]) for name, value in network.state_dict().items()):
        raise Fault("sampling changes the weights or the state of a network", at)
