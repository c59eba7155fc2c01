"""The conformance checks of a game: its rules, what it samples, and the trainings that all kinds in the step share."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganlab.config.game_tables import component_fields, network_tables
from ganlab.evaluation.game_outputs import GameOutputs
from ganlab.evaluation.game_samplers import game_samplers
from ganlab.evaluation.sampling import sample
from ganlab.nn.modes import eval_mode
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
from ganlab.testing.tensor_checks import describe_value
from ganlab.testing.tiny_training import CPU, TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.utils.errors import ComponentError, SamplesNotFinite, one_line
from ganlab.utils.rng import preserve_random_state, seed_everything


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
    if rules.result == "passed" and _has_outputs(inspection, tiny):
        run_check(
            "outputs: the same again, finite, and of the shape of their name",
            lambda: _check_outputs(inspection, tiny),
            trains,
        )
    check_scheduled_options(inspection, tiny, trains)


def _has_outputs(inspection: Inspection, tiny: TinyTraining) -> bool:
    """Whether a game under check makes anything of real images, of its own or by its sampler."""
    data = _data(inspection, tiny.shape, tiny.conditions[tiny.shape])
    return bool(GameOutputs("", inspection.fresh().build(data), data.images).names)


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
            if problems := list(rules_problems(rules, data.streams, network_tables(inspection.cls))):
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
    tiny.moves = inspection.fresh().build(_data(inspection, tiny.shape, given)).moves
    words = condition_in_words(given)
    condition = "without conditions" if given is None else f"with {words} as conditions" if words else ""
    return "; ".join(note for note in (*dict.fromkeys(refusals), condition) if note)


def _check_samples(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks that a game's samples repeat, and leave the weights and modes of its networks as they are.

    Also that its `judge` returns a logit of each image, and its `levers` a mapping.
    """
    training = tiny.build()
    at = inspection.line_of("build")
    game = training.game
    if not isinstance(found := game.rules.levers(game.networks), Mapping):
        raise Fault(f"levers returns {type(found).__name__}, expected a mapping", at)
    if game.rules.judge is not None:
        batch = training.loader.batch(0)
        with eval_mode(nn.ModuleDict(game.networks)):
            judged = game.rules.judge(game.networks, batch.images, batch.condition)
        if not isinstance(judged, Tensor) or len(judged) != len(batch.images) or judged.ndim != 1:
            got = f"{describe_value(judged)} for {len(batch.images)} images"
            raise Fault(f"judge returns {got}, expected a logit of each", at)
    if game.rules.sampler is None:
        return "it makes none, only outputs"
    samplers = game_samplers(
        game.rules, game.networks, training.data, training.dataset, training.streams, training.conditional
    )
    for name, sampler in samplers.items():
        network, of = sampler.network, f" by the sampler {name!r}" if name else ""
        before = {key: value.clone() for key, value in network.state_dict().items()}
        one, other = (
            torch.cat([images for images, _ in sample(network, 5, 0, CPU, sampler.conditions)]) for _ in range(2)
        )
        if not torch.equal(one, other):
            raise Fault(f"two samplings{of} with one seed gave other images; draw nothing in eval mode", at)
        if any(not torch.equal(value, before[key]) for key, value in network.state_dict().items()):
            raise Fault(f"sampling{of} changes the weights or the state of a network", at)
    return f"also those by {', '.join(game.rules.samplers)}" if game.rules.samplers else ""


def _check_outputs(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks that what a game makes of real images repeats, is finite, and has the shape that metrics ask for."""
    training = tiny.build()
    at, game = inspection.line_of("build"), training.game
    outputs = GameOutputs(inspection.cls.__name__, game.rules, training.images, game.networks)
    states = {name: copy.deepcopy(network.state_dict()) for name, network in game.networks.items()}
    said = []
    for name in outputs.names:
        found = []
        for seed in range(2):
            with preserve_random_state():
                seed_everything(seed)
                try:
                    found.append(torch.cat([made for made, _, _ in outputs.batches(name, training.dataset, CPU)]))
                except SamplesNotFinite:
                    raise Fault(f"the output {name!r} has values that are not finite", at) from None
        one, other = found
        if not one.isfinite().all():
            raise Fault(f"the output {name!r} has values that are not finite", at)
        if not torch.equal(one, other):
            raise Fault(f"the output {name!r} is another one when it is made again; draw nothing in eval mode", at)
        shape, images = tuple(one.shape[1:]), tuple(training.dataset.images.shape[1:])
        if name in ("translation", "reconstruction") and shape != images:
            raise Fault(
                f"the output {name!r} has the shape {shape} for an image; expected that of the image, {images}", at
            )
        if name == "class_logits" and len(shape) != 1:
            raise Fault(f"the output {name!r} has the shape {shape} for an image; expected (classes,)", at)
        said.append(f"{name} {shape}")
    for name, network in game.networks.items():
        if any(not torch.equal(value, states[name][key]) for key, value in network.state_dict().items()):
            raise Fault(f"an output changes the weights or the state of the network {name!r}", at)
    return ", ".join(said)
