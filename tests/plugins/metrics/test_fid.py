"""FID, held against closed forms for Gaussians, scipy's matrix root, torchmetrics' own result and numpy's line."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ganlab import ComponentError, Evaluation, ImageDataset
from ganlab_plugins.metrics import fid
from stubs import StubConfig, StubFeatures, an_evaluation, images


def score(features: StubFeatures, evaluation: Evaluation, samples: int = 200) -> float:
    return fid.FID(samples=samples, features=StubConfig(features)).evaluate(evaluation).values["fid"]


def distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    return float(fid.frechet_distance(mean_a, fid.symmetric_root(cov_a), mean_b, cov_b))


def covariance(dim: int, seed: int, rank: int | None = None) -> Tensor:
    factor = torch.randn(dim, rank or 2 * dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / dim


MEANS = torch.linspace(-1, 1, 8, dtype=torch.float64), torch.linspace(0, 3, 8, dtype=torch.float64)


def test_diagonal_gaussians_have_a_closed_form():
    a, b = torch.arange(1.0, 9.0, dtype=torch.float64), torch.arange(9.0, 1.0, -1.0, dtype=torch.float64)
    expected = (MEANS[0] - MEANS[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert distance(MEANS[0], a.diag(), MEANS[1], b.diag()) == pytest.approx(float(expected), rel=1e-12)


def test_commuting_covariances_have_a_closed_form():
    rotation = torch.linalg.qr(covariance(8, 3)).Q
    a, b = torch.arange(1.0, 9.0, dtype=torch.float64), torch.tensor([3.0, 0.5, 7, 2, 1, 9, 4, 6], dtype=torch.float64)
    found = distance(MEANS[0], rotation @ a.diag() @ rotation.T, MEANS[1], rotation @ b.diag() @ rotation.T)
    expected = (MEANS[0] - MEANS[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert found == pytest.approx(float(expected), rel=1e-10)


def test_general_covariances_agree_with_scipy():
    a, b = covariance(8, 1), covariance(8, 2)
    assert not torch.allclose(a @ b, b @ a)
    root = np.real(scipy.linalg.sqrtm((a @ b).numpy()))
    expected = (MEANS[0] - MEANS[1]).square().sum() + a.trace() + b.trace() - 2 * np.trace(root)
    assert distance(MEANS[0], a, MEANS[1], b) == pytest.approx(float(expected), rel=1e-9)


def test_singular_covariances_agree_with_the_nuclear_norm():
    a, b = covariance(30, 1, rank=4), covariance(30, 2, rank=5)
    zero = torch.zeros(30, dtype=torch.float64)
    # tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), for singular matrices too.
    cross = torch.linalg.svdvals(fid.symmetric_root(a) @ fid.symmetric_root(b)).sum()
    expected = float(a.trace() + b.trace() - 2 * cross)
    assert distance(zero, a, zero, b) == pytest.approx(expected, rel=1e-6)
    assert distance(zero, a, zero, a) == pytest.approx(0, abs=1e-5)


def test_equal_sets_score_zero(tmp_path):
    reference = images(300, 1)
    assert abs(score(StubFeatures(), an_evaluation(tmp_path, reference, reference), 300)) < 1e-6


@pytest.mark.parametrize("count", [60, 2000])
def test_equal_sets_score_zero_where_the_covariance_is_singular(tmp_path, count):
    """More features than images, and features that never vary, as the pixels at MNIST's edges."""
    same = images(count, 1).float().mul_(torch.linspace(0, 1, 16).round().view(1, 1, 4, 4)).byte()
    features = StubFeatures(dim=100)
    assert abs(score(features, an_evaluation(tmp_path, same, same))) < 1e-6


@pytest.mark.parametrize("dim", [12, 3])
def test_the_score_is_torchmetrics_own(tmp_path, dim):
    class Network(torch.nn.Module):
        num_features = dim

        def forward(self, batch: Tensor) -> Tensor:
            return StubFeatures(dim)(batch).double()

    metric = FrechetInceptionDistance(Network(), antialias=False)
    evaluation = an_evaluation(tmp_path, images(300, 1))
    metric.update(images(300, 1), real=True)
    for batch in evaluation.generated(200, 0):
        metric.update(batch, real=False)
    assert score(StubFeatures(dim), evaluation) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_fewer_images_than_features_agree_with_scipy(tmp_path):
    real, made = images(7, 1), images(5, 2)
    features = [StubFeatures()(part).double().numpy() for part in (real, made)]
    # A little noise on the diagonal lets sqrtm take the root of a singular product; its effect is below the tolerance.
    cov = [np.cov(part, rowvar=False) + 1e-12 * np.eye(12) for part in features]
    mean = [part.mean(0) for part in features]
    cross = np.trace(np.real(scipy.linalg.sqrtm(cov[0] @ cov[1])))
    expected = ((mean[0] - mean[1]) ** 2).sum() + np.trace(cov[0]) + np.trace(cov[1]) - 2 * cross
    found = score(StubFeatures(), an_evaluation(tmp_path, real, made), 5)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_reference_is_computed_once_for_each_network(tmp_path):
    evaluation = an_evaluation(tmp_path, images(300, 1))
    first, second, other = StubFeatures(), StubFeatures(), StubFeatures(fingerprint="weights-2")
    assert score(first, evaluation) == score(second, evaluation) == score(other, evaluation)
    assert first.calls - second.calls == 2  # two batches of reference images
    assert other.calls == first.calls


def test_another_reference_is_not_taken_for_this_one(tmp_path):
    score(StubFeatures(), an_evaluation(tmp_path, images(300, 1)))
    cached = score(StubFeatures(), an_evaluation(tmp_path, images(300, 2)))
    assert cached == score(StubFeatures(), an_evaluation(tmp_path / "fresh", images(300, 2)))


def test_a_damaged_cache_is_computed_again(tmp_path):
    evaluation = an_evaluation(tmp_path, images(300, 1))
    expected = score(StubFeatures(), evaluation)
    (path,) = (tmp_path / "cache" / "reference").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    again = StubFeatures()
    assert score(again, evaluation) == expected
    assert again.calls == 6  # two batches of reference images, four of generated ones


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_features_that_are_not_finite_score_nan(tmp_path, poison):
    evaluation = an_evaluation(tmp_path, images(300, 1))
    assert math.isnan(score(StubFeatures(poison=poison), evaluation))
    # The reference of the healthy network is another fingerprint's, so here only the generated images are bad.
    score(StubFeatures(fingerprint="healthy"), evaluation)
    assert math.isnan(score(StubFeatures(fingerprint="healthy", poison=poison), evaluation))


def test_what_a_score_rests_on_is_recorded(tmp_path):
    seen: list[tuple[int, int]] = []
    evaluation = an_evaluation(tmp_path, images(300, 1), seen=seen)
    scores = fid.FID(samples=200, split="test", seed=3, features=StubConfig(StubFeatures())).evaluate(evaluation)
    assert scores.better == {"fid": "lower"}
    assert scores.protocol["features"] == {"name": "stub", "sha256": "weights-1", "preprocessing": "none"}
    reference = scores.protocol["reference"]
    assert (reference["dataset"], reference["split"], reference["count"]) == ("noise", "test", 300)
    assert reference["fingerprint"] == ImageDataset(images(300, 1), "noise").fingerprint
    assert (scores.protocol["generated"], scores.protocol["seed"]) == (200, 3)
    assert seen == [(256, 300), (300, 300), (64, 200), (128, 200), (192, 200), (200, 200)]


def gaussians(count: int, mean: float, deviation: float, seed: int) -> Tensor:
    noise = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (noise * deviation + mean).round().clamp(0, 255).to(torch.uint8)


class Pixels(StubFeatures):
    def __call__(self, batch: Tensor, /) -> Tensor:
        return batch.flatten(1).float() / 20


@pytest.mark.parametrize(("mean", "deviation"), [(128, 20), (138, 16)])
def test_fid_infinity_of_few_images_is_nearer_to_the_truth(tmp_path, mean, deviation):
    # Rounding to levels adds the variance of a uniform error, 1/12.
    deviations = math.sqrt(deviation**2 + 1 / 12), math.sqrt(20**2 + 1 / 12)
    truth = 16 * ((mean - 128) ** 2 + (deviations[0] - deviations[1]) ** 2) / 20**2
    real = gaussians(20_000, 128, 20, 0)
    errors = {"fid": 0.0, "fid_infinity": 0.0}
    for seed in range(1, 5):
        evaluation = an_evaluation(tmp_path, real, gaussians(200, mean, deviation, seed))
        metric = fid.FID(samples=200, infinity=True, features=StubConfig(Pixels(dim=16)))
        scores = metric.evaluate(evaluation)
        for name, value in scores.values.items():
            errors[name] += (value - truth) / 4
    assert errors["fid"] > 0.3
    assert abs(errors["fid_infinity"]) < errors["fid"] / 2
    assert scores.better == {"fid": "lower", "fid_infinity": "lower"}


def test_fid_infinity_is_numpys_line_through_the_fids_of_the_papers_sizes(tmp_path):
    features, seen = torch.rand(500, 8, generator=torch.Generator().manual_seed(1)), []
    sizes = fid.subset_sizes(500, StubFeatures(dim=8))
    assert sizes == [round(size) for size in np.linspace(50, 500, 15)]

    def a_distance(mean: Tensor, cov: Tensor) -> Tensor:
        seen.append((mean, cov))
        return mean.sum() + cov.sum()

    evaluation = an_evaluation(tmp_path)
    found = fid.extrapolated(a_distance, features, sizes, 0, evaluation)
    torch.testing.assert_close(seen[-1][0], features.double().mean(0))
    torch.testing.assert_close(seen[-1][1], features.double().T.cov())
    line = np.polyfit(1 / np.array(sizes), [float(mean.sum() + cov.sum()) for mean, cov in seen], 1)
    assert found == pytest.approx(line[1], rel=1e-9)
    assert found == fid.extrapolated(a_distance, features, sizes, 0, evaluation)
    assert found != fid.extrapolated(a_distance, features, sizes, 1, evaluation)


def test_a_small_test_split_has_a_floor_of_fid_without_infinity(tmp_path):
    """`samples` are asked for, and fewer given: as of real images for the floor."""
    evaluation = an_evaluation(tmp_path, images(300, 1), images(20, 2))
    config = StubConfig(StubFeatures())
    assert fid.FID(samples=200, infinity=True, features=config).evaluate(evaluation).values.keys() == {"fid"}
    with pytest.raises(ComponentError, match="20 images are too few for fid_infinity"):
        fid.FID(samples=20, infinity=True, features=config).evaluate(evaluation)


def test_fid_infinity_leaves_fid_as_it_is_and_says_how_it_was_found(tmp_path):
    evaluation = an_evaluation(tmp_path, images(300, 1))
    config = StubConfig(StubFeatures())
    scores = fid.FID(samples=200, infinity=True, features=config).evaluate(evaluation)
    assert scores.values["fid"] == score(StubFeatures(), evaluation)
    assert scores.details["fid_infinity"]["infinity"]["sizes"] == [24 + round(step * 176 / 14) for step in range(15)]
    assert "infinity" not in fid.FID(samples=200, features=config).evaluate(evaluation).protocol
    bad = StubConfig(StubFeatures(poison=math.nan, poisoned=slice(1), fingerprint="bad"))
    values = fid.FID(samples=200, infinity=True, features=bad).evaluate(evaluation).values
    assert math.isnan(values["fid"])
    assert math.isnan(values["fid_infinity"])


def test_too_few_images_to_extrapolate_from_are_refused_before_training(tmp_path):
    evaluation = an_evaluation(tmp_path, images(300, 1))
    metric = fid.FID(samples=47, infinity=True, features=StubConfig(StubFeatures()))
    with pytest.raises(ComponentError, match=r"47 images are too few for fid_infinity with 12 features.* at least 48"):
        metric.prepare(evaluation)
    fid.FID(samples=48, infinity=True, features=StubConfig(StubFeatures())).prepare(evaluation)


def test_features_of_a_wrong_shape_are_refused(tmp_path):
    class Maps(StubFeatures):
        def __call__(self, batch: Tensor, /) -> Tensor:
            return super().__call__(batch)[:, :, None]

    with pytest.raises(ComponentError, match=r"'stub' gave \(256, 12, 1\), wanted \(256, 12\)"):
        score(Maps(), an_evaluation(tmp_path, images(300, 1)))


def test_one_image_has_no_covariance(tmp_path):
    with pytest.raises(ComponentError, match=r"2 reference images; noise \(train\) has 1"):
        score(StubFeatures(), an_evaluation(tmp_path, images(1, 1)))
    with pytest.raises(ComponentError, match="2 generated images, got 1"):
        score(StubFeatures(), an_evaluation(tmp_path, images(300, 1), images(1, 2)))
    with pytest.raises(ValueError, match="samples"):
        fid.FID(samples=1)
