"""Precision and recall held against torch-fidelity's function, density and coverage against the paper's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from ganlab import ComponentError
from ganlab_plugins.metrics import precision_recall
from ganlab_plugins.metrics.precision_recall import VALUES, PrecisionRecall, balls
from stubs import StubConfig, StubFeatures, an_evaluation, images


def some_features(count: int, seed: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def metric(**options) -> PrecisionRecall:
    return PrecisionRecall(**{"samples": 100, "features": StubConfig(StubFeatures()), **options})


def by_definition(fake: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float]:
    """Density and coverage as Naeem et al. define them, a pair at a time."""
    within = [sorted(np.linalg.norm(x - other) for j, other in enumerate(real) if j != i) for i, x in enumerate(real)]
    radius = [distances[k - 1] for distances in within]
    inside = [[np.linalg.norm(y - x) < r for x, r in zip(real, radius, strict=True)] for y in fake]
    return np.sum(inside) / (k * len(fake)), float(np.any(inside, axis=0).mean())


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("spread", [0.6, 1.0, 1.5])
def test_density_and_coverage_are_those_of_the_definition(tmp_path, k, spread):
    fake, real = some_features(60, 1, spread), some_features(60, 2)
    *_, density, coverage = balls(fake, real, 3, k, an_evaluation(tmp_path))
    assert (density, coverage) == pytest.approx(by_definition(fake.double().numpy(), real.double().numpy(), k))
    assert 0 < coverage < 1


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_and_recall_are_torch_fidelitys(tmp_path, k):
    fake, real = some_features(300, 1, spread=0.9), some_features(300, 2)
    precision, recall, *_ = balls(fake, real, k, 5, an_evaluation(tmp_path))
    theirs = prc_features_to_metric(fake.double(), real.double(), prc_neighborhood=k, verbose=False)
    assert precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert recall == pytest.approx(theirs["recall"], rel=1e-6)
    assert 0 < recall < precision < 1


def test_the_size_of_a_block_does_not_matter(tmp_path, monkeypatch):
    seen: list[tuple[int, int]] = []
    evaluation = an_evaluation(tmp_path, seen=seen)
    fake, real = some_features(50, 1), some_features(50, 2)
    whole = balls(fake, real, 3, 5, evaluation)
    assert seen == [(50, 50)] * 3
    for block in (1, 7 * 50):
        monkeypatch.setattr(precision_recall, "BLOCK", block)
        assert balls(fake, real, 3, 5, evaluation) == whole
    assert (7, 50) in seen


def test_equal_sets_have_all_of_both(tmp_path):
    same = images(100, 1)
    values = metric().evaluate(an_evaluation(tmp_path, same, same)).values
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)
    # An image that lies just on a ball's edge may be in or out of it by rounding.
    assert values["density"] == pytest.approx(1, abs=0.02)


def test_a_collapsed_generator_is_precise_and_recalls_nothing(tmp_path):
    real = some_features(80, 1)
    precision, recall, density, coverage = balls(real[:1].repeat(80, 1), real, 3, 5, an_evaluation(tmp_path))
    assert precision == 1
    assert recall <= 1 / 80
    assert density >= 1 / 5
    assert coverage < 0.2


def test_the_reference_is_as_many_random_images_of_the_split(tmp_path):
    real = images(300, 1)
    evaluation = an_evaluation(tmp_path, real)
    first = StubFeatures()
    scores = metric(features=StubConfig(first), seed=4).evaluate(evaluation)
    chosen = real[torch.from_numpy(np.random.RandomState(4).permutation(300)[:100])]
    fake = torch.cat(list(evaluation.generated(200, 4)))
    expected = balls(StubFeatures()(fake[:100]), StubFeatures()(chosen), 3, 5, evaluation)
    assert tuple(scores.values[name] for name in VALUES) == pytest.approx(expected)
    assert scores.better == dict.fromkeys(VALUES, "higher")
    reference = scores.protocol["reference"]
    assert (reference["count"], reference["subset"], reference["subset_seed"]) == (300, 100, 4)
    assert (scores.protocol["neighbours"], scores.protocol["density_neighbours"]) == (3, 5)
    assert scores.protocol["features"]["sha256"] == "weights-1"
    # This choice is kept, and is not taken for another.
    second, other = StubFeatures(), StubFeatures()
    assert metric(features=StubConfig(second), seed=4).evaluate(evaluation).values == scores.values
    assert first.calls - second.calls == 1
    metric(features=StubConfig(other), seed=5).evaluate(evaluation)
    assert other.calls == first.calls


@pytest.mark.parametrize("fingerprint", ["bad", "healthy"])
def test_one_bad_image_makes_every_value_nan(tmp_path, fingerprint):
    evaluation = an_evaluation(tmp_path, images(300, 1))
    metric(features=StubConfig(StubFeatures(fingerprint="healthy"))).evaluate(evaluation)
    bad = StubFeatures(poison=math.nan, poisoned=slice(1), fingerprint=fingerprint)
    values = metric(features=StubConfig(bad)).evaluate(evaluation).values
    assert set(values) == set(VALUES)
    assert all(math.isnan(value) for value in values.values())


def test_counts_that_cannot_be_compared_are_refused(tmp_path):
    evaluation = an_evaluation(tmp_path, images(60, 1))
    with pytest.raises(ComponentError, match=r"noise \(train\) has 60 images for 61 generated ones; .* at most 60"):
        metric(samples=61).prepare(evaluation)
    with pytest.raises(ComponentError, match="5 images have fewer than 5 neighbours each; set samples to at least 6"):
        metric(samples=5).prepare(evaluation)
    with pytest.raises(ComponentError, match="4 images have fewer than 5 neighbours each"):
        metric(samples=60).evaluate(an_evaluation(tmp_path, images(60, 1), images(4, 2)))
    metric(samples=60).prepare(evaluation)
