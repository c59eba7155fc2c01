"""The conformance checks of a metric: its interval, its scores and their protocol, and that they are reproducible."""

from __future__ import annotations

import copy
import json
import math
import traceback
from pathlib import Path
from typing import Any

import attrs
import torch

from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.dataset import image_spec
from ganlab.evaluation import evaluator as evaluator_module
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.network_sampler import NetworkSampler, sampler_of
from ganlab.protocols import ImageSpec, taken_by
from ganlab.run.records import to_json
from ganlab.testing.check_result import Fault
from ganlab.testing.fixed_inputs import CHANNELS, CLASSES
from ganlab.testing.inspection import Inspection, temporary_folder
from ganlab.testing.tensor_checks import check_kept, tensor_versions
from ganlab.testing.tiny_components import TINY
from ganlab.testing.tiny_evaluator import (
    FEW,
    MAX_SAMPLES,
    small_evaluator,
    tiny_evaluator,
    tiny_outputs,
    tiny_signal_evaluator,
)
from ganlab.testing.tiny_game import GENERATES
from ganlab.testing.tiny_training import CPU, TinyTraining
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.interval import Interval
from ganlab.utils.rng import preserve_random_state, seed_everything

CONDITIONS = ConditionSampler.counted([1] * CLASSES)


def check_metric(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a metric."""
    run_check = inspection.run_check
    found: dict[int, list[dict[str, Any]]] = {}
    samples = attrs.fields_dict(inspection.cls).get("samples")
    if samples is not None and type(inspection.instance.samples) is int and inspection.instance.samples > MAX_SAMPLES:
        inspection.shorten(samples=MAX_SAMPLES)  # the speed is not checked
    every = run_check("every: an interval", lambda: _check_interval(inspection))
    scored = run_check(
        "scores: named numbers with a protocol, for images of 1 and of 3 channels",
        lambda: _check_scores(inspection, found),
        every,
    )
    run_check(
        "again: the same images have the same score, whatever the global random state",
        lambda: _check_reproducible(inspection, found),
        scored,
    )
    if getattr(inspection.instance, "takes", "uint8 images") != "uint8 images":
        run_check("takes: scores signals of float32, or refuses them", lambda: _check_signals(inspection), scored)
    run_check(
        "other data: scores few real images, and data without labels, or refuses them",
        lambda: _check_other_data(inspection, found),
        scored,
    )
    run_check("cost of a score", lambda: _report_cost(found), scored)


def _check_interval(inspection: Inspection) -> str:
    """Checks that a metric's `every` is an interval."""
    every = inspection.instance.every
    try:
        interval = Interval.parse(every)
    except ValueError as error:
        raise Fault(one_line(error), inspection.line_of("every")) from None
    return f"every {interval}" if interval.count else "before and after training"


def score_tiny_network(
    inspection: Inspection, channels: int, cache: Path, device: torch.device = CPU
) -> list[dict[str, Any]]:
    """Scores the suite's own generator by the metric under check; returns the records."""
    evaluator = tiny_evaluator(channels, cache, device)
    return _score_network(inspection, inspection.fresh(), evaluator, CONDITIONS)[0]


def _score_network(
    inspection: Inspection, metric: Any, evaluator: Evaluator, conditions: ConditionSampler
) -> tuple[list[dict[str, Any]], bool]:
    """Scores the suite's own generator by a metric; returns the records, and whether they are of outputs.

    The metric must not change the evaluator's data in place.
    """
    seed_everything(0)
    splits = {f"the images of the {split} split": evaluator.dataset(split).images for split in ("train", "test")}
    channels, before = splits["the images of the train split"].shape[1], tensor_versions(splits)
    outputs = tiny_outputs(metric, channels)
    evaluator.prepare(metric, outputs=outputs)
    network = TINY[GENERATES]().build(ImageSpec(channels, 8, 8)).to(evaluator.device)
    runner = evaluator.for_network(network, "plain", conditions, outputs=outputs)
    records = runner.score(metric)
    check_kept(splits, before, inspection.line_of("evaluate"))
    return records, runner.uses_outputs


def _check_scores(inspection: Inspection, found: dict[int, list[dict[str, Any]]]) -> str:
    """Checks that a metric's scores are finite, and their protocols JSON; adds the records by channels to `found`."""
    at, refusals = inspection.line_of("evaluate"), []
    for channels in CHANNELS:
        with temporary_folder() as cache:
            try:
                records = score_tiny_network(inspection, channels, cache)
            except ComponentError as error:
                # The core's own check of the scores raises the same error as a metric that refuses the data.
                if traceback.extract_tb(error.__traceback__)[-1].filename == evaluator_module.__file__:
                    raise Fault(one_line(error), at) from None
                refusals.append(f"refuses {channels} channel{'s' * (channels > 1)}: {one_line(error, limit=200)}")
                continue
        for record in records:
            if not math.isfinite(record["value"]):
                raise Fault(f"{record['name']} is {record['value']} for images of {channels} channels", at)
            try:
                json.dumps(to_json(record))
            except (TypeError, ValueError) as error:
                raise Fault(
                    f"the protocol of {record['name']} cannot be written as JSON: {one_line(error)}", at
                ) from None
        if not records:
            raise Fault("returns no value", at)
        found[channels] = records
    if not found:
        raise ComponentError(refusals[0])
    values = [f"{record['name']} {record['value']:.4g}" for record in next(iter(found.values()))]
    return "; ".join([", ".join(values), *refusals])


def _check_signals(inspection: Inspection) -> str:
    """Checks that a metric which takes any data scores signals, of another type, by finite numbers."""
    at = inspection.line_of("takes")
    try:
        taken_by(inspection.instance)
    except ComponentError as error:
        raise Fault(str(error), at) from None
    seed_everything(0)
    evaluator, metric = tiny_signal_evaluator(), inspection.fresh()
    network = TINY[GENERATES]().build(image_spec(evaluator.dataset("train")))
    outputs = tiny_outputs(metric, 1)
    evaluator.prepare(metric, outputs=outputs)  # may refuse them
    sampler = NetworkSampler(sampler_of(GENERATES), {GENERATES: network}, "float32")
    records = evaluator.for_network(sampler, "plain", CONDITIONS, outputs=outputs).score(metric)
    for record in records:
        if not math.isfinite(record["value"]):
            raise Fault(f"{record['name']} is {record['value']} for signals of float32", at)
    return ", ".join(f"{record['name']} {record['value']:.4g}" for record in records)


def _check_reproducible(inspection: Inspection, found: dict[int, list[dict[str, Any]]]) -> None:
    """Checks that a metric scores the same images the same under another global seed."""
    channels, before = next(iter(found.items()))
    metric = inspection.fresh()
    with temporary_folder() as cache:
        evaluator = tiny_evaluator(channels, cache)
        outputs = tiny_outputs(metric, channels)
        evaluator.prepare(metric, outputs=outputs)
        with preserve_random_state():
            seed_everything(0)  # the network's weights
            network = TINY[GENERATES]().build(ImageSpec(channels, 8, 8))
        seed_everything(77)
        after = evaluator.for_network(network, "plain", CONDITIONS, outputs=outputs).score(metric)
    for one, other in zip(before, after, strict=True):
        if one["value"] != other["value"] or to_json(one["protocol"]) != to_json(other["protocol"]):
            what = "score" if one["value"] != other["value"] else "protocol"
            at = inspection.line_of("evaluate")
            raise Fault(f"{one['name']}: the same images have another {what} under another seed", at)


def _check_other_data(inspection: Inspection, found: dict[int, list[dict[str, Any]]]) -> str:
    """Checks that a metric scores real images of which there are few, and the images of a network without labels.

    It may refuse either by ComponentError. Real images are scored for the floor, where it asks for more than there are.
    Returns a note where it refuses them, or where everything has one score.
    """
    (channels, before), notes = next(iter(found.items())), []
    inspection = copy.copy(inspection)
    seen = {tuple(record["value"] for record in before)}

    def without_labels(cache: Path) -> list[dict[str, Any]]:
        inspection.shorten(samples=FEW)
        evaluator = small_evaluator(channels, cache, labels=False)
        return _score_network(inspection, inspection.fresh(), evaluator, UNCONDITIONAL)[0]

    def few_real_images(cache: Path) -> list[dict[str, Any]]:
        evaluator, metric = small_evaluator(channels, cache), inspection.fresh()
        outputs, real = tiny_outputs(metric, channels), evaluator.dataset("test")
        evaluator.prepare(metric, outputs=outputs)
        runner = evaluator.for_images(real.images, real.condition)
        runner.outputs = outputs  # for a metric of these, of which there are as few
        return runner.score(metric)

    cases = {"few real images": few_real_images, "data without labels": without_labels}
    for what, score in cases.items():
        try:
            with temporary_folder() as cache:
                seen.add(tuple(record["value"] for record in score(cache)))
        except ComponentError as error:
            notes.append(f"refuses {what}: {one_line(error, limit=200)}")
    if len(seen) == 1 and not notes:
        notes.append("all images have the same score: is one kept from an earlier call?")
    return "; ".join(notes)


def _report_cost(found: dict[int, list[dict[str, Any]]]) -> str:
    """Reports the seconds that one score of the checked metric took."""
    channels, (record, *_) = next(iter(found.items()))
    return f"{record['seconds']:.2f} s (images of {channels}x8x8, the suite's own network and features, CPU)"
