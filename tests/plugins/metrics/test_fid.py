"""FID, held against closed forms for Gaussians, scipy's matrix root and torchmetrics' own result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from attrs import define
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ganlab import ComponentError, Evaluation, ImageDataset, Places
from ganlab_plugins.metrics import fid

CPU = torch.device("cpu")


@define
class StubFeatures:
    """A random projection of the pixels, then a tanh; `calls` counts the batches it was given."""

    dim: int = 12
    fingerprint: str = "weights-1"
    name: str = "stub"
    preprocessing: str = "none"
    poison: float = 0.0
    calls: int = 0

    def __call__(self, images: Tensor, /) -> Tensor:
        assert images.dtype == torch.uint8
        self.calls += 1
        flat = images.flatten(1).float() / 255
        projection = torch.randn(flat.shape[1], self.dim, generator=torch.Generator().manual_seed(5))
        return torch.tanh(flat @ projection) + self.poison


@define
class StubConfig:
    features: StubFeatures

    def build(self, evaluation: Evaluation) -> StubFeatures:
        return self.features


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)


def an_evaluation(
    folder: Path, reference: Tensor, generated: Tensor | None = None, seen: list | None = None
) -> Evaluation:
    def batches(count: int, seed: int) -> Iterator[Tensor]:
        made = images(count, 100 + seed) // 2 if generated is None else generated
        yield from made.split(64)

    return Evaluation(
        generated=batches,
        dataset=lambda split: ImageDataset(reference, "noise", split),
        device=CPU,
        places=Places(folder / "data", folder / "cache"),
        progress=lambda what, done, total: seen.append((done, total)) if seen is not None else None,
    )


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
