"""The conformance checks of a feature extractor: its description, shapes, rows, classes, fingerprint."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganlab.protocols import Evaluation
from ganlab.testing.check_result import Fault, summarize_refusals
from ganlab.testing.fixed_inputs import CHANNELS
from ganlab.testing.global_randomness import global_generators_used
from ganlab.testing.inspection import Inspection
from ganlab.testing.state_comparison import states_equal
from ganlab.testing.tensor_checks import check_kept, describe_value, is_finite, tensor_versions
from ganlab.testing.tiny_components import TinyImages
from ganlab.testing.tiny_evaluator import tiny_evaluator
from ganlab.testing.tiny_training import TinyTraining
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.paths import places
from ganlab.utils.rng import seed_everything

SEVERAL = 5
"""Images of most checks of features; a large network on the CPU takes a fifth of a second for each."""


def check_features(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a feature extractor."""
    run_check = inspection.run_check
    built: dict[int, Any] = {}
    ready = run_check(
        "builds: has a name, a number of features, a fingerprint and its preprocessing",
        lambda: _check_builds(inspection, built),
    )
    shaped = run_check(
        "shape: float32 (N, dim), finite, without a gradient, for 1, 2 and 7 images of 1 and of 3 channels",
        lambda: _check_shapes(inspection, built),
        ready,
    )
    run_check(
        "rows: the same each time, and none depends on the others in its batch",
        lambda: _check_rows(inspection, built),
        shaped,
    )
    kept = run_check("images: the input is not changed in place", lambda: _check_input_kept(inspection, built), shaped)
    run_check("randomness: no global random state is changed", lambda: _check_randomness(inspection, built), shaped)
    run_check(
        "again: built a second time, it has the same fingerprint and features",
        lambda: _check_fingerprint(inspection, built),
        shaped,
        kept,
    )
    run_check(
        "classes: logits (N, classes) and belongs, bool (N,), where it has them",
        lambda: _check_classes(inspection, built),
        shaped,
    )
    run_check("cost of 32 images", lambda: _measure_cost(built), shaped)


def _evaluation(channels: int) -> Evaluation:
    """What features under check are built with: small labelled images, and the user's cache, which may be large."""
    return tiny_evaluator(channels).for_images(torch.zeros(0)).evaluation(lambda what, done, total: None)


def _check_builds(inspection: Inspection, built: dict[int, Any]) -> str:
    """Checks that features are built with a name, a dimension, a fingerprint and a preprocessing; adds to `built`."""
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
            raise Fault(f"its {name} is {value!r}, expected {'a text' if kind is str else 'a whole number'}", at)
    return "; ".join([f"{features.name}: {features.dim} features", *refusals])


def _test_images(channels: int, count: int) -> Tensor:
    return TinyImages((channels, 8, 8)).build(places(), "test").images[:count]


def _line_of_call(inspection: Inspection, features: Any) -> str:
    return inspection.line_of("__call__", features)


def _check_shapes(inspection: Inspection, built: dict[int, Any]) -> str:
    """Checks that features are float32 (N, dim), finite and without a gradient; drops from `built` what refuses."""
    refused, tried = [], 0
    for channels, features in list(built.items()):
        for count in (1, 2, 7):
            tried += 1
            try:
                found = features(_test_images(channels, count))
            except ComponentError as error:
                refused.append(f"refuses {count} images of {channels} channels: {one_line(error, limit=200)}")
                built.pop(channels, None)
                continue
            at, shape = _line_of_call(inspection, features), (count, features.dim)
            if not isinstance(found, Tensor) or found.dtype != torch.float32 or tuple(found.shape) != shape:
                got = describe_value(found)
                raise Fault(f"returns {got} for {count} images, expected torch.float32 {shape}", at)
            if found.requires_grad:
                raise Fault("its features require a gradient, which keeps their whole graph: use torch.no_grad()", at)
            if not is_finite(found):
                raise Fault(f"returns NaN or infinity for {count} images of {channels} channels", at)
            if hasattr(features, "spatial"):
                rows = _check_spatial(inspection, features, channels, count)
                if count > 2:
                    _check_each_by_itself(inspection, features, "spatial", channels, rows)
    return summarize_refusals(refused, tried)


def _check_spatial(inspection: Inspection, features: Any, channels: int, count: int) -> Tensor:
    """Checks that spatial features are float32 (N, spatial_dim) and finite; returns them."""
    found, dim = features.spatial(_test_images(channels, count)), getattr(features, "spatial_dim", None)
    at = inspection.line_of("spatial", features)
    if not isinstance(found, Tensor) or found.dtype != torch.float32 or tuple(found.shape) != (count, dim):
        got = describe_value(found)
        raise Fault(f"spatial returns {got} for {count} images, expected torch.float32 {(count, dim)}", at)
    if not is_finite(found):
        raise Fault(f"spatial returns NaN or infinity for {count} images of {channels} channels", at)
    return found


def _check_rows(inspection: Inspection, built: dict[int, Any]) -> None:
    """Checks that an image's features are the same each time and do not depend on the others in its batch."""
    for channels, features in built.items():
        one, other = features(_test_images(channels, SEVERAL)), features(_test_images(channels, SEVERAL))
        if not states_equal(one, other):
            raise Fault(
                "returns other features for the same images in a second call", _line_of_call(inspection, features)
            )
        _check_each_by_itself(inspection, features, "__call__", channels, one)


def _check_each_by_itself(inspection: Inspection, features: Any, method: str, channels: int, rows: Tensor) -> None:
    """Checks a method of features, of which `rows` are the results for several images: each is its image's own.

    It must be the same again, in a smaller batch and in another place.
    """
    call, three = getattr(features, method), _test_images(channels, 3).flip(0)
    found = call(three)
    if not torch.allclose(found.flip(0).double(), rows[:3].double(), rtol=1e-3, atol=1e-4):
        at, what = inspection.line_of(method, features), "features" if method == "__call__" else method
        if not torch.equal(call(three), found):
            raise Fault(f"returns other {what} for the same images in a second call", at)
        raise Fault(f"an image's {what} depend on the others in its batch, or on its place in it", at)


def _check_input_kept(inspection: Inspection, built: dict[int, Any]) -> None:
    """Checks that features do not change the input images in place."""
    for channels, features in built.items():
        inputs = {"its input images": _test_images(channels, 2).clone()}
        before = tensor_versions(inputs)
        features(*inputs.values())
        check_kept(inputs, before, _line_of_call(inspection, features))


def _check_randomness(inspection: Inspection, built: dict[int, Any]) -> None:
    """Checks that features draw no global random numbers."""
    for channels, features in built.items():
        images = _test_images(channels, SEVERAL)
        if whose := global_generators_used(partial(features, images)):
            raise Fault(f"draws {whose} global random numbers", _line_of_call(inspection, features))


def _check_fingerprint(inspection: Inspection, built: dict[int, Any]) -> None:
    """Checks that features that are built a second time are the same, and have the same fingerprint."""
    channels, features = next(iter(built.items()))
    seed_everything(7)
    again: Any = inspection.fresh().build(_evaluation(channels))
    images = _test_images(channels, SEVERAL)
    alike = torch.allclose(features(images), again(images), rtol=1e-3, atol=1e-4)
    at = inspection.line_of("build")
    if alike != (features.fingerprint == again.fingerprint):
        has = "the same fingerprint and other features" if not alike else "another fingerprint and the same features"
        raise Fault(f"built a second time it has {has}", at)
    if not alike:
        raise Fault("built a second time it has other weights, so that no score could be reproduced", at)


def _check_classes(inspection: Inspection, built: dict[int, Any]) -> str:
    """Checks the class logits and `belongs` of features that have them."""
    notes = []
    for channels, features in built.items():
        images = _test_images(channels, SEVERAL)
        if hasattr(features, "logits"):
            found = features.logits(images)
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != SEVERAL or not is_finite(found):
                at = inspection.line_of("logits", features)
                wanted = f"expected finite ({SEVERAL}, classes)"
                raise Fault(f"logits returns {describe_value(found)} for {SEVERAL} images, {wanted}", at)
            _check_each_by_itself(inspection, features, "logits", channels, found)
            notes.append(f"{found.shape[1]} classes")
        if hasattr(features, "belongs"):
            found = features.belongs(images)
            if not isinstance(found, Tensor) or found.dtype != torch.bool or tuple(found.shape) != (SEVERAL,):
                at = inspection.line_of("belongs", features)
                wanted = f"expected torch.bool ({SEVERAL},)"
                raise Fault(f"belongs returns {describe_value(found)} for {SEVERAL} images, {wanted}", at)
            _check_each_by_itself(inspection, features, "belongs", channels, found)
            notes.append("recognizes images of no class")
    return ", ".join(dict.fromkeys(notes)) or "it has none"


def _measure_cost(built: dict[int, Any]) -> str:
    """Measures how long the features under check take for 32 images."""
    channels, features = next(iter(built.items()))
    images = _test_images(channels, 32)
    start = time.perf_counter()
    features(images)
    return f"{1000 * (time.perf_counter() - start):.1f} ms ({channels}x8x8, CPU)"
