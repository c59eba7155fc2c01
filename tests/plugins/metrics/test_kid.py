"""KID, held against a plain loop over pairs and torch-fidelity's own function on the same features."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from ganlab import ComponentError
from ganlab_plugins.metrics.kid import KID, kernel_distance, squared_mmd
from stubs import StubConfig, StubFeatures, an_evaluation, images


def some_features(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def metric(**options) -> KID:
    return KID(**{"samples": 200, "subsets": 5, "subset_size": 50, "features": StubConfig(StubFeatures()), **options})


def test_the_distance_is_that_of_a_loop_over_pairs():
    a, b = some_features(12, 1), some_features(12, 2, shift=0.5)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / 6 + 1) ** 3

    within_a = sum(kernel(a[i], a[j]) for i in range(12) for j in range(12) if i != j) / (12 * 11)
    within_b = sum(kernel(b[i], b[j]) for i in range(12) for j in range(12) if i != j) / (12 * 11)
    across = sum(kernel(x, y) for x in a for y in b) / 12**2
    assert float(squared_mmd(a, b)) == pytest.approx(within_a + within_b - 2 * across, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 2020])
def test_the_score_is_torch_fidelitys_on_the_same_features(tmp_path, seed):
    real, fake = images(300, 1), images(200, 2) // 2
    ours = metric(seed=seed).evaluate(an_evaluation(tmp_path, real, fake)).values
    theirs = kid_features_to_metric(
        *(StubFeatures()(part).double() for part in (fake, real)),
        kid_subsets=5,
        kid_subset_size=50,
        rng_seed=seed,
        verbose=False,
    )
    # Their features were not cut into batches, which changes the last bits of float32.
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert ours["kid_std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-5)
    assert ours["kid"] > 2 * ours["kid_std"] > 0


def test_sets_of_one_distribution_score_about_zero_and_not_above_it_only(tmp_path):
    evaluation = an_evaluation(tmp_path)
    scores = [
        kernel_distance(some_features(40, seed), some_features(40, 100 + seed), 1, 40, 0, evaluation)[0]
        for seed in range(40)
    ]
    assert min(scores) < 0 < max(scores)
    apart = kernel_distance(some_features(40, 1), some_features(40, 2, shift=1.0), 1, 40, 0, evaluation)[0]
    assert abs(sum(scores) / 40) < apart / 20


def test_one_subset_has_no_standard_deviation(tmp_path):
    assert set(metric(subsets=1).evaluate(an_evaluation(tmp_path, images(300, 1))).values) == {"kid"}


@pytest.mark.parametrize("shift", [0, 100])
def test_sets_with_duplicates_are_exact(shift):
    """Held against fractions, also for a set and itself, where all but 1/n of the kernel's values cancels."""
    some = some_features(8, 1).float().double() + shift
    points = torch.cat([some, some[:4], some[:4]])

    def squared_mmd_in_fractions(a: Tensor, b: Tensor) -> Fraction:
        rows_a, rows_b = ([[Fraction(x) for x in row] for row in rows.tolist()] for rows in (a, b))

        def kernel(x: list[Fraction], y: list[Fraction]) -> Fraction:
            return (sum((p * q for p, q in zip(x, y, strict=True)), Fraction()) / len(x) + 1) ** 3

        n = len(rows_a)
        within = sum(
            kernel(rows[i], rows[j]) for rows in (rows_a, rows_b) for i in range(n) for j in range(n) if i != j
        )
        return Fraction(within) / (n * (n - 1)) - 2 * sum(kernel(x, y) for x in rows_a for y in rows_b) / n**2

    largest = float(points.square().sum(1).max() / 6 + 1) ** 3
    for other in (points, points.flip(0), points * 2):
        exact = float(squared_mmd_in_fractions(points, other))
        assert float(squared_mmd(points, other)) == pytest.approx(exact, abs=16 * largest * 1e-15)


def test_one_bad_image_makes_the_score_nan_whichever_subsets_are_drawn(tmp_path):
    bad = StubFeatures(poison=math.inf, poisoned=slice(1))
    for fingerprint in ("bad", "healthy"):  # the healthy one's reference is cached, so only generated images are bad
        bad.fingerprint = fingerprint
        evaluation = an_evaluation(tmp_path, images(300, 1))
        metric(features=StubConfig(StubFeatures(fingerprint="healthy"))).evaluate(evaluation)
        values = metric(subsets=2, subset_size=2, features=StubConfig(bad)).evaluate(evaluation).values
        assert math.isnan(values["kid"])
        assert math.isnan(values["kid_std"])


def test_a_subset_larger_than_either_set_is_refused(tmp_path):
    evaluation = an_evaluation(tmp_path, images(60, 1))
    with pytest.raises(ComponentError, match="subset_size = 61 is larger than the 60 reference images"):
        metric(subset_size=61).prepare(evaluation)
    with pytest.raises(ComponentError, match="subset_size = 50 is larger than the 49 generated images"):
        metric(samples=49).prepare(evaluation)
    with pytest.raises(ComponentError, match="subset_size = 50 is larger than the 49 generated images"):
        metric().evaluate(an_evaluation(tmp_path, images(60, 1), images(49, 2)))
    metric().prepare(evaluation)


def test_what_a_score_rests_on_is_recorded_and_the_reference_kept(tmp_path):
    seen: list[tuple[int, int]] = []
    evaluation = an_evaluation(tmp_path, images(300, 1), seen=seen)
    first, second = StubFeatures(), StubFeatures()
    scores = metric(features=StubConfig(first), split="test", seed=3).evaluate(evaluation)
    assert scores.better == {"kid": "lower"}
    assert seen[-1] == (5, 5)
    assert {name: scores.protocol[name] for name in ("generated", "seed", "subsets", "subset_size")} == {
        "generated": 200,
        "seed": 3,
        "subsets": 5,
        "subset_size": 50,
    }
    assert scores.protocol["reference"]["count"] == 300
    assert scores.protocol["features"]["sha256"] == "weights-1"
    again = metric(features=StubConfig(second), split="test", seed=3).evaluate(evaluation)
    assert again.values == scores.values
    assert first.calls - second.calls == 2  # two batches of reference images
