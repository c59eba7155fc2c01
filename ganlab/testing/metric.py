"""ganlab.testing.metric."""

from __future__ import annotations

import json
import math
import traceback
from pathlib import Path
from typing import Any

import attrs

from ganlab.evaluation import evaluator
from ganlab.evaluation.evaluator import Evaluator
from ganlab.protocols import ImageSpec, Places
from ganlab.run.records import to_json
from ganlab.testing.dataset import CHANNELS, CONDITIONS, MANY
from ganlab.testing.inspection import CPU, Fault, Inspection, temporary_folder
from ganlab.testing.tiny_components import TinyGenerator, TinyImages
from ganlab.testing.tiny_training import TinyGame
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.interval import Interval
from ganlab.utils.paths import places
from ganlab.utils.rng import preserve_random_state, seed_everything


def _scorer(channels: int, cache: Path | None = None) -> Evaluator:
    where = places() if cache is None else Places(places().data, cache)
    return Evaluator(TinyImages(channels, count=MANY), None, where, CPU, floors=False)


def check_metric(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    found: dict[int, list[dict[str, Any]]] = {}
    fewer = attrs.fields_dict(inspection.cls).get("samples")
    if fewer is not None and type(inspection.instance.samples) is int and inspection.instance.samples > MANY:
        inspection.instance = attrs.evolve(inspection.instance, samples=MANY)  # what is asked is not how long it takes
    every = look("every: an interval", lambda: _every(inspection))
    scored = look(
        "scores: named numbers with a protocol, for images of 1 and of 3 channels",
        lambda: _scores(inspection, found),
        every,
    )
    look(
        "again: equal images score the same, whatever the global random state",
        lambda: _scores_again(inspection, found),
        scored,
    )
    look("cost of a score", lambda: _score_cost(found), scored)


def _every(inspection: Inspection) -> str:
    every = inspection.instance.every
    try:
        interval = Interval.parse(every)
    except ValueError as error:
        raise Fault(one_line(error), inspection.line_of("every")) from None
    return f"every {interval}" if interval.count else "before and after training"


def _scored(inspection: Inspection, channels: int, cache: Path) -> list[dict[str, Any]]:
    seed_everything(0)
    scorer, metric = _scorer(channels, cache), inspection.fresh()
    scorer.prepare(metric)
    return scorer.generator(TinyGenerator().build(ImageSpec(channels, 8, 8)), "plain", CONDITIONS).score(metric)


def _scores(inspection: Inspection, found: dict[int, list[dict[str, Any]]]) -> str:
    at, refusals = inspection.line_of("evaluate"), []
    for channels in CHANNELS:
        with temporary_folder() as cache:
            try:
                records = _scored(inspection, channels, cache)
            except ComponentError as error:
                # The core's own look at the scores refuses in the same way as a metric that cannot work with this data.
                if traceback.extract_tb(error.__traceback__)[-1].filename == evaluator.__file__:
                    raise Fault(one_line(error), at) from None
                refusals.append(f"refuses {channels} channel{'s' * (channels > 1)}: {one_line(error, limit=200)}")
                continue
        for record in records:
            if not math.isfinite(record["value"]):
                raise Fault(f"{record['name']} is {record['value']} for images of {channels} channels", at)
            if record["better"] not in (None, "lower", "higher"):
                raise Fault(f"better says {record['better']!r} of {record['name']}, wanted 'lower' or 'higher'", at)
            try:
                json.dumps(to_json(record))
            except (TypeError, ValueError) as error:
                raise Fault(
                    f"the protocol of {record['name']} cannot be written as JSON: {one_line(error)}", at
                ) from None
        if not records:
            raise Fault("gives no value", at)
        found[channels] = records
    if not found:
        raise ComponentError(refusals[0])
    values = [f"{record['name']} {record['value']:.4g}" for record in next(iter(found.values()))]
    return "; ".join([", ".join(values), *refusals])


def _scores_again(inspection: Inspection, found: dict[int, list[dict[str, Any]]]) -> None:
    channels, before = next(iter(found.items()))
    metric = inspection.fresh()
    with temporary_folder() as cache:
        scorer = _scorer(channels, cache)
        scorer.prepare(metric)
        with preserve_random_state():
            seed_everything(0)  # the generator's weights
            network = TinyGenerator().build(ImageSpec(channels, 8, 8))
        seed_everything(77)
        after = scorer.generator(network, "plain", CONDITIONS).score(metric)
    for one, other in zip(before, after, strict=True):
        if one["value"] != other["value"] or to_json(one["protocol"]) != to_json(other["protocol"]):
            what = "score" if one["value"] != other["value"] else "protocol"
            at = inspection.line_of("evaluate")
            raise Fault(f"{one['name']}: equal images have another {what} when asked again with another seed", at)


def _score_cost(found: dict[int, list[dict[str, Any]]]) -> str:
    channels, (record, *_) = next(iter(found.items()))
    return f"{record['seconds']:.2f} s (images of {channels}x8x8, the suite's own generator and features, CPU)"
