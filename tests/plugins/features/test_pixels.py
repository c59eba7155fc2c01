"""Pixels as features: held against the pixels, scipy's normal densities, and the normal distribution's own shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ganlab import ComponentError, Evaluation, ImageDataset, Places, to_float
from ganlab_plugins.datasets.gaussians import Grid, Ring
from ganlab_plugins.features.pixels import ClassifyingPixels, PixelFeatures, Pixels


def an_evaluation(folder: Path, **splits: ImageDataset) -> Evaluation:
    return Evaluation(
        generated=lambda count, seed: iter(()),
        dataset=splits.__getitem__,
        device=torch.device("cpu"),
        places=Places(folder / "data", folder / "cache"),
        progress=lambda what, done, total: None,
    )


def noise(count: int, channels: int = 1, size: int = 2, labels: Tensor | None = None, **more) -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return ImageDataset(images, "noise", "train", labels, **more)


def classifying(folder: Path, dataset: ImageDataset, **options) -> ClassifyingPixels:
    features = Pixels(**options).build(an_evaluation(folder, train=dataset))
    assert isinstance(features, ClassifyingPixels)
    return features


def test_features_are_the_pixels(tmp_path):
    dataset = noise(7, 3, 2)
    features = Pixels().build(an_evaluation(tmp_path, train=dataset))
    assert features.dim == 12
    found = features(dataset.images)
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), dataset.images.numpy().reshape(7, 12) / 127.5 - 1, atol=1e-6)
    with pytest.raises(ComponentError, match="the features 'pixels' are of images of 3x2x2, got 1x2x2"):
        features(noise(2).images)


def test_logits_are_the_log_densities_of_isotropic_gaussians(tmp_path):
    labels = torch.tensor([0, 1, 2, 1, 0, 2] * 20)
    dataset = noise(120, 1, 2, labels)
    features = classifying(tmp_path, dataset)
    points = to_float(dataset.images).flatten(1).double().numpy()
    expected = []
    for label in range(3):
        mine = points[labels.numpy() == label]
        variance = ((mine - mine.mean(0)) ** 2).mean()
        expected.append(stats.multivariate_normal(mine.mean(0), variance * np.eye(4)).logpdf(points))
    found = features.logits(dataset.images)
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), np.stack(expected, 1), rtol=1e-5, atol=1e-5)
    torch_ones = [
        torch.distributions.Normal(mean, variance.sqrt()).log_prob(torch.from_numpy(points)).sum(1)
        for mean, variance in zip(features.means, features.variances, strict=True)
    ]
    assert torch.allclose(found.double(), torch.stack(torch_ones, 1), rtol=1e-5, atol=1e-5)


def test_images_without_any_variance_belong_to_their_class(tmp_path):
    """Classes of one image each, many times over, which differ in one level of one value."""
    one = noise(1, 3, 32).images.clamp_max(254)
    other = one.clone()
    other[0, 0, 0, 0] += 1
    labels = torch.arange(2).repeat_interleave(7)
    dataset = ImageDataset(torch.cat([one.repeat(7, 1, 1, 1), other.repeat(7, 1, 1, 1)]), "same", "train", labels)
    features = classifying(tmp_path, dataset)
    assert features.belongs(dataset.images).all()
    assert torch.equal(features.logits(dataset.images).argmax(1), labels)


@pytest.mark.parametrize("config", [Ring(), Grid()], ids=["ring", "grid"])
def test_points_are_classified_and_as_many_belong_as_of_a_gaussian(config, tmp_path):
    """Of a Gaussian in the plane 1 - exp(-r^2 / 2) lie within r standard deviations; rounding hardly moves 3."""
    train, test = (config.build(Places(tmp_path, tmp_path), split) for split in ("train", "test"))
    features = classifying(tmp_path, train)
    assert torch.equal(features.logits(test.images).argmax(1), test.condition)
    assert float(features.belongs(test.images).double().mean()) == pytest.approx(1 - np.exp(-4.5), abs=0.003)
    other = classifying(tmp_path, train, sigmas=2.0)
    assert float(other.belongs(test.images).double().mean()) == pytest.approx(1 - np.exp(-2), abs=0.04)
    assert other.fingerprint != features.fingerprint


def test_what_belongs_is_what_a_loop_finds(tmp_path):
    ring = Ring(count=2000)
    features = classifying(tmp_path, ring.build(Places(tmp_path, tmp_path), "train"))
    images = torch.randint(0, 256, (3000, 2, 1, 1), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = torch.cat([images, ring.build(Places(tmp_path, tmp_path), "test").images])
    belongs = features.belongs(images)
    means, stds = features.means.tolist(), features.variances.sqrt().tolist()
    for (x, y), found in zip(features(images).tolist(), belongs.tolist(), strict=True):
        distance, std = min((np.hypot(x - mx, y - my), s) for (mx, my), s in zip(means, stds, strict=True))
        assert found == (distance <= 3 * std)
    assert 1900 < int(belongs.sum()) < 2100


def test_a_class_of_one_picture_is_as_wide_as_rounding(tmp_path):
    images = torch.tensor([[10, 20], [10, 20], [200, 100]], dtype=torch.uint8)[:, :, None, None]
    features = classifying(tmp_path, ImageDataset(images, "two", "train", torch.tensor([0, 0, 1])))
    assert torch.allclose(features.variances, torch.full((2,), (1 / 127.5) ** 2 / 12).double())
    near = torch.tensor([[10, 20], [11, 20], [200, 101], [200, 100]], dtype=torch.uint8)[:, :, None, None]
    assert features.belongs(near).tolist() == [True, False, False, True]
    assert features.logits(near).isfinite().all()


def test_data_whose_classes_cannot_be_measured_has_features_only(tmp_path):
    pictures = noise(4)
    for dataset in (
        pictures,
        noise(4, labels=pictures.images),
        noise(4, labels=torch.tensor([0, 2, 0, 2])),
        noise(4, labels=torch.tensor([0, 1, 0, 1]), classes=("a", "b", "c")),
    ):
        features = Pixels().build(an_evaluation(tmp_path, train=dataset))
        assert type(features) is PixelFeatures
        assert not hasattr(features, "logits")
        assert not hasattr(features, "belongs")
        assert features(dataset.images).shape == (4, 4)


def test_the_fingerprint_is_of_all_that_the_features_depend_on(tmp_path):
    labels = torch.arange(40) % 4
    first = classifying(tmp_path, noise(40, labels=labels))
    assert classifying(tmp_path, noise(40, labels=labels)).fingerprint == first.fingerprint, "from the cache"
    assert classifying(tmp_path / "afresh", noise(40, labels=labels)).fingerprint == first.fingerprint
    plain, wider = (Pixels().build(an_evaluation(tmp_path, train=noise(40, size=size))) for size in (2, 3))
    others = [
        classifying(tmp_path, noise(40, labels=labels.flip(0))),
        classifying(tmp_path, noise(44, labels=torch.arange(44) % 4)),
        classifying(tmp_path, noise(40, labels=labels), sigmas=2.5),
        plain,
        wider,
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_many_images_are_measured_in_parts(tmp_path):
    """More than fit in one part, against numpy on all at once."""
    labels = torch.arange(9000) % 3
    dataset = noise(9000, labels=labels)
    features = classifying(tmp_path, dataset)
    points = dataset.images.flatten(1).double().numpy() / 127.5 - 1
    for label in range(3):
        mine = points[label::3]
        assert np.allclose(features.means[label], mine.mean(0), atol=1e-12)
        assert float(features.variances[label]) == pytest.approx(((mine - mine.mean(0)) ** 2).mean(), rel=1e-10)
