"""The evaluator on a small set of images with which the conformance suite checks metrics and features."""

from __future__ import annotations

from pathlib import Path

from ganlab.evaluation.evaluator import Evaluator
from ganlab.protocols import Places
from ganlab.testing.tiny_components import TinyImages
from ganlab.testing.tiny_training import CPU
from ganlab.utils.paths import places

MAX_SAMPLES = 2000
"""Images in each split of the data, and the most that a checked metric is asked to generate."""


def tiny_evaluator(channels: int, cache: Path | None = None) -> Evaluator:
    """Returns an evaluator on the suite's own 8x8 images, with a cache folder of a check or the user's own."""
    where = places() if cache is None else Places(places().data, cache)
    return Evaluator(TinyImages(channels, count=MAX_SAMPLES), None, where, CPU, floors=False)
