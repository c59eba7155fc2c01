"""The share of images of the class asked for, of images of which it is known, and of none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor

from ganlab import ComponentError, Evaluation
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


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_logits_that_are_not_finite_score_nan(tmp_path: Path, poison: float) -> None:
    """An argmax would take the place of the NaN for a class, and be right now and then."""
    features = StubClassifier(poison=poison, poisoned=slice(3, 4))
    given, labels = images(8, 3), torch.zeros(8, dtype=torch.int64)
    evaluation = attrs.evolve(an_evaluation(tmp_path, given), conditioned=lambda count, seed: iter([(given, labels)]))
    scores = ClassAccuracy(samples=8, features=StubConfig(features)).evaluate(evaluation)
    assert math.isnan(scores.values["class_accuracy"])


def test_a_class_that_the_features_do_not_know_is_refused(tmp_path: Path) -> None:
    """It could never be right."""
    metric, given = ClassAccuracy(samples=2, features=StubConfig(StubClassifier(dim=4))), images(2, 3)

    def of_class(label: int) -> Evaluation:
        drawn = (given, torch.tensor([0, label]))
        return attrs.evolve(an_evaluation(tmp_path, given), conditioned=lambda count, seed: iter([drawn]))

    metric.evaluate(of_class(3))
    with pytest.raises(ComponentError, match="'stub classifier' know 4 classes; the data have class 4 too"):
        metric.evaluate(of_class(4))


def test_a_process_without_a_share_has_the_score_of_the_others(tmp_path: Path) -> None:
    """They wait for its rows, so that it must not end before."""
    others = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    evaluation = attrs.evolve(
        an_evaluation(tmp_path, images(4, 0)),
        conditioned=lambda count, seed: iter([]),
        gather=lambda own: torch.cat([own, others]),
    )
    scores = ClassAccuracy(samples=4, features=StubConfig(StubClassifier())).evaluate(evaluation)
    assert scores.values == {"class_accuracy": 0.75}
    assert scores.protocol["generated"] == 4
