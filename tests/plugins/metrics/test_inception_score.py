"""The Inception Score, held against its extremes and torch-fidelity's own function on the same logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from ganlab import ComponentError
from ganlab_plugins.metrics.inception_score import InceptionScore, score
from stubs import StubClassifier, StubConfig, StubFeatures, an_evaluation, images


def metric(**options) -> InceptionScore:
    return InceptionScore(**{"samples": 200, "features": StubConfig(StubClassifier()), **options})


def test_sure_and_even_classes_score_their_number_and_anything_else_less():
    sure = 1000.0 * torch.eye(7).repeat(20, 1)
    assert score(sure, 1, 0) == pytest.approx((7, 0))
    assert score(torch.zeros(140, 7), 1, 0) == pytest.approx((1, 0))
    assert score(sure[:1].repeat(140, 1), 10, 0) == pytest.approx((1, 0))


@pytest.mark.parametrize(("splits", "seed"), [(1, 0), (10, 2020), (7, 5)])
def test_the_score_is_torch_fidelitys_on_the_same_logits(tmp_path, splits, seed):
    fake = images(200, 2)
    ours = metric(splits=splits, seed=seed).evaluate(an_evaluation(tmp_path, generated=fake)).values
    theirs = isc_features_to_metric(StubClassifier().logits(fake), splits, True, seed)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ("inception_score_std" in ours) == (splits > 1)  # theirs is 0 for one part
    assert ours.get("inception_score_std", 0) == pytest.approx(theirs["inception_score_std"], rel=1e-5, abs=1e-9)
    assert ours["inception_score"] > 1.2


def test_images_that_lie_sorted_by_class_are_shuffled_first():
    sure = 100.0 * torch.eye(5).repeat_interleave(40, 0)
    assert isc_features_to_metric(sure, 5, False)["inception_score_mean"] == pytest.approx(1)
    assert score(sure, 5, 0)[0] > 4
    assert score(sure, 5, 0) != score(sure, 5, 1)


def test_features_that_do_not_classify_are_refused_before_training(tmp_path):
    refused = metric(features=StubConfig(StubFeatures()))
    with pytest.raises(ComponentError, match="the features 'stub' have no class logits"):
        refused.prepare(an_evaluation(tmp_path))
    with pytest.raises(ComponentError, match="the features 'stub' have no class logits"):
        refused.evaluate(an_evaluation(tmp_path))


def test_logits_of_a_wrong_shape_are_refused(tmp_path):
    class Flat(StubClassifier):
        def logits(self, batch: Tensor) -> Tensor:
            return super().logits(batch)[:, 0]

    with pytest.raises(ComponentError, match=r"'stub classifier' are \(64,\), wanted \(64, classes\)"):
        metric(features=StubConfig(Flat())).evaluate(an_evaluation(tmp_path))


def test_more_splits_than_images_are_refused(tmp_path):
    with pytest.raises(ComponentError, match="splits = 11 are more than the 10 generated images"):
        metric(samples=10, splits=11).prepare(an_evaluation(tmp_path))
    with pytest.raises(ComponentError, match="splits = 10 are more than the 9 generated images"):
        metric().evaluate(an_evaluation(tmp_path, generated=images(9, 1)))
    metric(samples=10, splits=10).prepare(an_evaluation(tmp_path))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_score_nan(tmp_path, poison):
    bad = StubClassifier(poison=poison, poisoned=slice(1))
    values = metric(features=StubConfig(bad)).evaluate(an_evaluation(tmp_path)).values
    assert math.isnan(values["inception_score"])
    assert math.isnan(values["inception_score_std"])


def test_what_a_score_rests_on_is_recorded(tmp_path):
    seen: list[tuple[int, int]] = []
    scores = metric(seed=3).evaluate(an_evaluation(tmp_path, seen=seen))
    assert scores.better == {"inception_score": "higher"}
    assert scores.protocol == {
        "metric": "inception_score",
        "features": {"name": "stub classifier", "sha256": "weights-1", "preprocessing": "none"},
        "classes": 12,
        "generated": 200,
        "seed": 3,
        "images": "uint8, rounded",
        "splits": 10,
        "order": "shuffled by the seed",
    }
    assert seen == [(64, 200), (128, 200), (192, 200), (200, 200)]
