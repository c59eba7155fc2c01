"""Precision and recall held against torch-fidelity's function, density and coverage against the paper's definition.

Sets whose distances are equal or 0 are held against fractions, which are not rounded.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from ganlab import ComponentError
from ganlab_plugins.metrics import precision_recall
from ganlab_plugins.metrics.precision_recall import VALUES, PrecisionRecall, balls
from stubs import StubConfig, StubFeatures, an_evaluation, images
from tiers import spread


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
    assert values["density"] == 1


def exactly(fake: Tensor, real: Tensor, k: int, k_density: int) -> tuple[float, ...]:
    """All four values by their definitions, a pair at a time, in fractions: nothing is rounded."""
    a, b = ([[Fraction(float(x)) for x in row] for row in rows] for rows in (fake, real))

    def squared(x: list[Fraction], y: list[Fraction]) -> Fraction:
        return sum(((p - q) ** 2 for p, q in zip(x, y, strict=True)), Fraction())

    def radii_of(points: list[list[Fraction]], k: int) -> list[Fraction]:
        return [sorted(squared(x, y) for y in points)[k] for x in points]  # the first is the point itself

    between = [[squared(x, y) for y in b] for x in a]
    of_real, of_fake, of_density = radii_of(b, k), radii_of(a, k), radii_of(b, k_density)
    count = range(len(a))
    precision = sum(any(between[i][j] <= of_real[j] for j in count) for i in count)
    recall = sum(any(between[i][j] <= of_fake[i] for i in count) for j in count)
    inside = [[between[i][j] < of_density[j] for j in count] for i in count]
    coverage = sum(any(inside[i][j] for i in count) for j in count)
    total = len(a)
    return precision / total, recall / total, sum(map(sum, inside)) / (k_density * total), coverage / total


def with_duplicates(dim: int) -> Tensor:
    """40 features (40, dim), of which 25 differ, far from 0: squares of 10^4 beside distances of 1."""
    some = torch.randn(25, dim, generator=torch.Generator().manual_seed(dim)) / dim**0.5 + 100 / dim**0.5
    return torch.cat([some, some[:5], some[:5], some[:5]])


def barely_different(dim: int) -> Tensor:
    """40 features (40, dim) that differ in the last bit of single values, as of a collapsed generator."""
    same = torch.rand(dim, generator=torch.Generator().manual_seed(3)) + 1
    points = same.repeat(40, 1)
    for row in range(40):
        points[row, row % dim] += row % 8 * torch.finfo(torch.float32).eps
    return points


SETS = {
    "all equal": torch.rand(1, 12, generator=torch.Generator().manual_seed(1)).repeat(40, 1) + 3,
    "duplicates": with_duplicates(12),
    "duplicates of many features": with_duplicates(2048),
    "barely different": barely_different(12),
    "equally far": torch.eye(40),
    "on a line": torch.arange(40.0)[:, None] * 0.1 + 1000,
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_against_itself_is_exact(tmp_path: Path, name: str) -> None:
    points = SETS[name]
    found = balls(points, points.clone(), 3, 5, an_evaluation(tmp_path))
    assert found[:2] == (1, 1)
    if points.shape[1] <= 40:
        assert found == exactly(points, points, 3, 5)


@pytest.mark.parametrize("other", spread(3, SETS))
@pytest.mark.parametrize(
    "name", ["duplicates", pytest.param("barely different", marks=[pytest.mark.extended, pytest.mark.slow])]
)
def test_no_value_depends_on_rounding(tmp_path: Path, name: str, other: str) -> None:
    fake, real = SETS[name], SETS[other]
    if real.shape != fake.shape:
        real = torch.cat([fake[:20], fake.roll(1, 1)[20:]])
    assert balls(fake, real, 3, 5, an_evaluation(tmp_path)) == exactly(fake, real, 3, 5)
    assert balls(real, fake, 2, 7, an_evaluation(tmp_path)) == exactly(real, fake, 2, 7)


def test_few_duplicates_are_torch_fidelitys(tmp_path: Path) -> None:
    """Up to 25 images torch-fidelity computes distances from differences, more from products."""
    real = with_duplicates(64)[-24:]
    fake = torch.cat([real[:12], real[:12] + 1e-3])
    for a, b in ((real, real), (fake, real), (real[:1].repeat(24, 1), real)):
        precision, recall, *_ = balls(a, b, 3, 5, an_evaluation(tmp_path))
        theirs = prc_features_to_metric(a.double(), b.double(), prc_neighborhood=3, verbose=False)
        assert (precision, recall) == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-6)


def test_ten_black_images_are_precise_and_recalled(tmp_path: Path) -> None:
    black = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    values = metric(samples=10).evaluate(an_evaluation(tmp_path, black, black)).values
    assert (values["precision"], values["recall"]) == (1, 1)
    # A ball of radius 0 has nothing strictly inside, in the code of the paper's authors too.
    assert (values["density"], values["coverage"]) == (0, 0)


def test_doubtful_pairs_alone_give_what_all_pairs_give() -> None:
    a, b = some_features(30, 1).double(), some_features(40, 2).double()
    whole = precision_recall.exact_squares(a, b)
    rounded = whole * (1 + 1e-9)
    few = torch.zeros(30, 40, dtype=torch.bool)
    few[3, 5] = few[29, 39] = True
    precision_recall.compute_exactly(mended := rounded.clone(), few, a, b)
    assert torch.equal(mended, torch.where(few, whole, rounded))
    precision_recall.compute_exactly(mended, torch.ones_like(few), a, b)
    assert torch.equal(mended, whole)
    precision_recall.compute_exactly(mended, torch.zeros_like(few), a, b)
    assert torch.equal(mended, whole)


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
