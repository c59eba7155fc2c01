"""ganlab.testing.features."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganlab.protocols import Evaluation
from ganlab.testing.dataset import CHANNELS
from ganlab.testing.inspection import Fault, Inspection, draws, finite, same
from ganlab.testing.metric import _scorer
from ganlab.testing.tiny_components import TinyImages
from ganlab.testing.tiny_training import TinyGame
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.paths import places
from ganlab.utils.rng import seed_everything


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
