"""The evaluator on a small set of images with which the conformance suite checks metrics and features."""

from __future__ import annotations

from pathlib import Path

import torch

from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.game_outputs import GameOutputs
from ganlab.evaluation.network_sampler import sampler_of
from ganlab.protocols import ImageSpec, Metric, Output, Places, Rules
from ganlab.testing.fixed_inputs import CLASSES
from ganlab.testing.tiny_components import TinyImages, TinySignals
from ganlab.testing.tiny_game import GENERATES
from ganlab.testing.tiny_training import CPU
from ganlab.utils.paths import places

MAX_SAMPLES = 2000
"""Images in each split of the data, and the most that a checked metric is asked to generate."""

FEW = 200
"""Images in each split of data that have few."""


def tiny_evaluator(channels: int, cache: Path | None = None, device: torch.device = CPU) -> Evaluator:
    """Returns an evaluator on the suite's own 8x8 images, with a cache folder of a check or the user's own."""
    where = places() if cache is None else Places(places().data, cache)
    return Evaluator(TinyImages((channels, 8, 8), count=MAX_SAMPLES), None, where, device, floors=False)


def small_evaluator(channels: int, cache: Path, labels: bool = True) -> Evaluator:
    """Returns an evaluator on `FEW` of the suite's own 8x8 images in each split, for metrics under check."""
    images = TinyImages((channels, 8, 8), count=FEW, condition=() if labels else None)
    return Evaluator(images, None, Places(places().data, cache), CPU, floors=False)


def tiny_signal_evaluator() -> Evaluator:
    """Returns an evaluator on the suite's own signals, for metrics under check that take any data."""
    return Evaluator(TinySignals(MAX_SAMPLES), None, places(), CPU, floors=False)


def tiny_outputs(metric: Metric, channels: int) -> GameOutputs:
    """Returns what the suite's own game makes of the evaluator's images, for metrics of outputs under check.

    "class_logits" and "category_logits" are a few pixels, "codes" a few pixels rounded; any other output, such as the
    one that a metric's option `output` names, is darker images.
    """
    outputs: dict[str, Output] = {
        name: lambda networks, images, condition: images * 0.9
        for name in ("translation", "reconstruction", str(getattr(metric, "output", "translation")))
    }
    for name in ("class_logits", "category_logits"):
        outputs[name] = lambda networks, images, condition: images.flatten(1)[:, :CLASSES]
    outputs["codes"] = lambda networks, images, condition: (4 * images.flatten(1)[:, :CLASSES]).round().long()
    rules = Rules(networks={}, moves=[], sampler=sampler_of(GENERATES), outputs=outputs)
    return GameOutputs("tiny", rules, ImageSpec(channels, 8, 8), {})
