"""What data sets, networks of features and metrics are checked for."""

from __future__ import annotations

import json
import math
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ganlab import evaluation
from ganlab.conditions import Conditions
from ganlab.data import image_spec
from ganlab.errors import ComponentError, one_line
from ganlab.evaluation import Scorer
from ganlab.files import places
from ganlab.options import Interval
from ganlab.protocols import Dataset, Evaluation, ImageSpec, Places
from ganlab.rng import seed_everything, untouched
from ganlab.runfolder import to_json
from ganlab.testing.checks import CPU, Fault, Inspection, draws, finite, same, temporary_folder
from ganlab.testing.game import TinyGame
from ganlab.testing.tiny import CLASSES, TinyGenerator, TinyImages

CHANNELS = (1, 3)
CONDITIONS = Conditions.counted([1] * CLASSES)
MANY = 2000
"""Images of each split of the data that features and metrics are given, and the most that a metric is asked to make."""


# ---------------------------------------------------------------------------------------------------------------------
# Data sets
# ---------------------------------------------------------------------------------------------------------------------


def check_dataset(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    splits: dict[str, Dataset] = {}
    loaded, _ = (
        look(
            f"{split} split: uint8 images (N, C, H, W), a condition an image, a name",
            partial(_split, inspection, split, splits),
        )
        for split in ("train", "test")
    )
    look(
        "splits: the test split is another one, and a split that is not there is refused",
        lambda: _splits(inspection, splits),
        loaded,
    )
    again = look("again: loaded again it has the same fingerprint", lambda: _loads_again(inspection, splits), loaded)
    look("randomness: no global random state is changed", lambda: _loads_still(inspection), loaded)
    trains = look("trains: a tiny game takes steps on it", lambda: _data_trains(splits, game), again)
    look("resumes: stopped and gone on with, a training is equal to the bit", game.resumes, trains)
    look("cost of a step", game.cost, trains)


def _split(inspection: Inspection, split: str, splits: dict[str, Dataset]) -> str:
    at = inspection.line_of("build")
    dataset: Any = inspection.fresh().build(places(), split)
    for name in ("images", "condition", "name", "split", "fingerprint"):
        if not hasattr(dataset, name):
            raise Fault(f"build gives {type(dataset).__name__}, which lacks {name!r}; ganlab.ImageDataset has all", at)
    images, condition = dataset.images, dataset.condition
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise Fault(f"its images are {got}, wanted uint8 (N, C, H, W) and at least one", at)
    if images.device.type != "cpu":
        raise Fault(f"its images lie on {images.device}, wanted the CPU", at)
    if condition is not None and len(condition) != len(images):
        raise Fault(f"{len(images):,} images have {len(condition):,} conditions", at)
    if condition is not None and condition.ndim == 1 and (condition.dtype != torch.int64 or int(condition.min()) < 0):
        raise Fault(f"class labels are {condition.dtype} from {condition.min()}, wanted int64 from 0", at)
    if not isinstance(dataset.name, str) or dataset.split != split:
        raise Fault(f"its name is {dataset.name!r} and its split {dataset.split!r}, wanted a text and {split!r}", at)
    splits[split] = dataset
    classes = image_spec(dataset).classes
    labels = f", {classes} classes" if classes is not None else ""
    return f"{len(images):,} images of {'x'.join(map(str, images.shape[1:]))}{labels}"


def _splits(inspection: Inspection, splits: dict[str, Dataset]) -> None:
    at = inspection.line_of("build")
    if "test" in splits and splits["train"].fingerprint == splits["test"].fingerprint:
        raise Fault("the test split has the images of the training split", at)
    try:
        inspection.fresh().build(places(), "no such split")
    except ComponentError:
        return
    raise Fault("a split named 'no such split' is given, wanted a ganlab.ComponentError", at)


def _loads_again(inspection: Inspection, splits: dict[str, Dataset]) -> None:
    seed_everything(7)
    one, other = splits["train"].fingerprint, inspection.fresh().build(places(), "train").fingerprint
    if not isinstance(one, str) or not one:
        raise Fault(f"its fingerprint is {one!r}, wanted a sha256 of the pixels", inspection.line_of("build"))
    if one != other:
        raise Fault("loaded again it has another fingerprint: its images are not the same", inspection.line_of("build"))


def _loads_still(inspection: Inspection) -> None:
    if whose := draws(lambda: inspection.fresh().build(places(), "train")):
        raise Fault(f"build draws {whose} global random numbers", inspection.line_of("build"))


def _data_trains(splits: dict[str, Dataset], game: TinyGame) -> str | None:
    game.shape = tuple(splits["train"].images.shape[1:])  # type: ignore[assignment]
    return game.trains()


# ---------------------------------------------------------------------------------------------------------------------
# Features
# ---------------------------------------------------------------------------------------------------------------------


def _scorer(channels: int, cache: Path | None = None) -> Scorer:
    where = places() if cache is None else Places(places().data, cache)
    return Scorer(TinyImages(channels, count=MANY), None, where, CPU, floors=False)


def _evaluation(channels: int) -> Evaluation:
    """What features are built with: small labelled images. The real cache, since what it keeps may be large."""
    return _scorer(channels).given(torch.zeros(0)).evaluation(lambda what, done, total: None)


def check_features(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    built: dict[int, Any] = {}
    ready = look(
        "builds: with a name, a number of features, a fingerprint and the preprocessing",
        lambda: _features(inspection, built),
    )
    shaped = look(
        "shape: float32 (N, dim), finite, without a gradient, for 1, 2 and 7 images of 1 and of 3 channels",
        lambda: _features_shape(inspection, built),
        ready,
    )
    look(
        "rows: the same each time, and none depends on the others of its batch",
        lambda: _features_rows(inspection, built),
        shaped,
    )
    kept = look("images: what it is given stays as it was", lambda: _features_leave_images(inspection, built), shaped)
    look("randomness: no global random state is changed", lambda: _features_draw(inspection, built), shaped)
    look(
        "again: built again it has the same fingerprint and features",
        lambda: _features_again(inspection, built),
        shaped,
        kept,
    )
    look(
        "classes: logits (N, classes) and belongs, bool (N,), where it has them",
        lambda: _classes(inspection, built),
        shaped,
    )
    look("cost of 32 images", lambda: _features_cost(built), shaped)


def _features(inspection: Inspection, built: dict[int, Any]) -> str:
    refusals = []
    for channels in CHANNELS:
        try:
            built[channels] = inspection.fresh().build(_evaluation(channels))
        except ComponentError as error:
            refusals.append(f"refuses {channels} channel{'s' * (channels > 1)}: {one_line(error, limit=200)}")
    if not built:
        raise ComponentError(refusals[0])
    features = next(iter(built.values()))
    at = inspection.line_of("build")
    for name, kind in (("name", str), ("dim", int), ("fingerprint", str), ("preprocessing", str)):
        value = getattr(features, name, None)
        if type(value) is not kind or not value:
            raise Fault(f"its {name} is {value!r}, wanted {'a text' if kind is str else 'a whole number'}", at)
    return "; ".join([f"{features.name}: {features.dim} features", *refusals])


def _some(channels: int, count: int, first: int = 0) -> Tensor:
    return TinyImages(channels).build(places(), "test").images[first : first + count]


def _called(inspection: Inspection, features: Any) -> str:
    return inspection.line_of("__call__", features)


def _features_shape(inspection: Inspection, built: dict[int, Any]) -> str:
    refused, tried = [], 0
    for channels, features in list(built.items()):
        for count in (1, 2, 7):
            tried += 1
            try:
                found = features(_some(channels, count))
            except ComponentError as error:
                refused.append(f"refuses {count} images of {channels} channels: {one_line(error, limit=200)}")
                built.pop(channels, None)
                continue
            at, wanted = _called(inspection, features), (count, features.dim)
            if not isinstance(found, Tensor) or found.dtype != torch.float32 or tuple(found.shape) != wanted:
                got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise Fault(f"gives {got} for {count} images, wanted torch.float32 {wanted}", at)
            if found.requires_grad:
                raise Fault("its features keep a gradient, and with it all that they were made of: torch.no_grad()", at)
            if not finite(found):
                raise Fault(f"gives NaN or infinity for {count} images of {channels} channels", at)
    if len(refused) == tried:
        raise ComponentError(refused[0])
    return "; ".join(refused)


def _features_rows(inspection: Inspection, built: dict[int, Any]) -> None:
    for channels, features in built.items():
        one, other = features(_some(channels, 7)), features(_some(channels, 7))
        if not same(one, other):
            raise Fault("gives other features for the same images when asked again", _called(inspection, features))
        if not torch.allclose(features(_some(channels, 1)), one[:1], rtol=1e-3, atol=1e-4):
            raise Fault("an image's features depend on the others of its batch", _called(inspection, features))


def _features_leave_images(inspection: Inspection, built: dict[int, Any]) -> None:
    for channels, features in built.items():
        images = _some(channels, 7).clone()
        features(images)
        if not same(images, _some(channels, 7)):
            raise Fault("changes the images that it is given, in place", _called(inspection, features))


def _features_draw(inspection: Inspection, built: dict[int, Any]) -> None:
    for channels, features in built.items():
        images = _some(channels, 7)
        if whose := draws(partial(features, images)):
            raise Fault(f"draws {whose} global random numbers", _called(inspection, features))


def _features_again(inspection: Inspection, built: dict[int, Any]) -> None:
    channels, features = next(iter(built.items()))
    seed_everything(7)
    again: Any = inspection.fresh().build(_evaluation(channels))
    images = _some(channels, 7)
    alike = torch.allclose(features(images), again(images), rtol=1e-3, atol=1e-4)
    if alike != (features.fingerprint == again.fingerprint):
        says = "the same fingerprint and other features" if not alike else "another fingerprint and the same features"
        raise Fault(f"built again it has {says}", inspection.line_of("build"))
    if not alike:
        raise Fault(
            "built again it has other weights, so that no score could be had twice", inspection.line_of("build")
        )


def _classes(inspection: Inspection, built: dict[int, Any]) -> str:
    said = []
    for channels, features in built.items():
        images = _some(channels, 7)
        if hasattr(features, "logits"):
            found = features.logits(images)
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 7 or not finite(found):
                at = inspection.line_of("logits", features)
                raise Fault(f"logits gives {_form(found)} for 7 images, wanted finite (7, classes)", at)
            said.append(f"{found.shape[1]} classes")
        if hasattr(features, "belongs"):
            found = features.belongs(images)
            if not isinstance(found, Tensor) or found.dtype != torch.bool or tuple(found.shape) != (7,):
                at = inspection.line_of("belongs", features)
                raise Fault(f"belongs gives {_form(found)} for 7 images, wanted torch.bool (7,)", at)
            said.append("tells images of no class")
    return ", ".join(dict.fromkeys(said)) or "it has none"


def _form(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _features_cost(built: dict[int, Any]) -> str:
    channels, features = next(iter(built.items()))
    images = _some(channels, 32)
    began = time.perf_counter()
    features(images)
    return f"{1000 * (time.perf_counter() - began):.1f} ms ({channels}x8x8, CPU)"


# ---------------------------------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------------------------------


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
                if traceback.extract_tb(error.__traceback__)[-1].filename == evaluation.__file__:
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
        with untouched():
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
