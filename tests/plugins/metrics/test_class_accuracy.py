"""The share of images of the class asked for, of images of which it is known, and of none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor

from ganlab import ComponentError
from ganlab_plugins.metrics.class_accuracy import ClassAccuracy
from stubs import StubClassifier, StubConfig, an_evaluation, images


def test_the_share(tmp_path: Path) -> None:
    features = StubClassifier()
    given = images(90, 3)
    classes = features.logits(given).argmax(1)
    asked = torch.where(torch.arange(90) % 3 == 0, classes, (classes + 1) % 12)

    def conditioned(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        assert (count, seed) == (90, 0)
        yield from zip(given.split(40), asked.split(40), strict=True)

    evaluation = attrs.evolve(an_evaluation(tmp_path, given), conditioned=conditioned)
    scores = ClassAccuracy(samples=90, features=StubConfig(features)).evaluate(evaluation)
    assert scores.values == {"class_accuracy": pytest.approx(1 / 3)}
    assert scores.better == {"class_accuracy": "higher"}
    assert scores.protocol["generated"] == 90


def test_images_of_no_class_are_refused(tmp_path: Path) -> None:
    evaluation = an_evaluation(tmp_path, images(4, 0))
    with pytest.raises(ComponentError, match="generated for a class; there are none"):
        ClassAccuracy(features=StubConfig(StubClassifier())).evaluate(evaluation)
    bare = attrs.evolve(evaluation, conditioned=lambda count, seed: iter([(images(4, 0), None)]))
    with pytest.raises(ComponentError, match="these were not"):
        ClassAccuracy(features=StubConfig(StubClassifier())).evaluate(bare)
