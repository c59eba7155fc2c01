"""The classifier's features, held against the labels of scikit-learn's digits that it was not trained on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ganlab import ComponentError, Evaluation, ImageDataset, Places
from ganlab_plugins.features.classifier import Classifier, ClassifierFeatures

QUICK = Classifier(updates=120)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> dict[str, ImageDataset]:
    found = load_digits()
    images = torch.from_numpy((found.images * 255 / 16).round()).to(torch.uint8)[:, None]
    labels = torch.from_numpy(found.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:1500], "test": order[1500:]}
    return {split: ImageDataset(images[part], "digits", split, labels[part]) for split, part in parts.items()}


def an_evaluation(folder: Path, splits: dict[str, ImageDataset], seen: list | None = None) -> Evaluation:
    return Evaluation(
        generated=lambda count, seed: iter(()),
        dataset=splits.__getitem__,
        device=torch.device("cpu"),
        places=Places(folder / "data", folder / "cache"),
        progress=lambda what, done, total: seen.append((done, total)) if seen is not None else None,
    )


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory) -> ClassifierFeatures:
    return QUICK.build(an_evaluation(tmp_path_factory.mktemp("trained"), digits))


def accuracy(features: ClassifierFeatures, dataset: ImageDataset) -> float:
    return float((features.logits(dataset.images).argmax(1) == dataset.condition).float().mean())


def test_it_learns_digits_it_has_not_seen(trained, digits):
    assert accuracy(trained, digits["test"]) > 0.93


def test_features_have_their_shape_and_tell_classes_apart(trained, digits):
    features = trained(digits["test"].images)
    assert features.shape == (297, 64) == (297, trained.dim)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert torch.equal(trained.head(features), trained.logits(digits["test"].images))
    # An image's features must not depend on the batch it came in.
    torch.testing.assert_close(trained(digits["test"].images[:1]), features[:1], rtol=1e-4, atol=1e-5)


def test_training_is_the_same_twice_and_leaves_torch_as_it_was(trained, digits, tmp_path):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    with torch.no_grad():
        again = QUICK.build(an_evaluation(tmp_path, digits))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1
    assert torch.get_default_dtype() == torch.float32
    assert again.fingerprint == trained.fingerprint


def test_it_trains_once_for_each_data_set_and_set_of_options(digits, tmp_path):
    seen: list[tuple[int, int]] = []
    evaluation = an_evaluation(tmp_path, digits, seen)
    first = Classifier(updates=3).build(evaluation)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with torch.inference_mode():
        cached = Classifier(updates=3).build(evaluation)
    assert cached.fingerprint == first.fingerprint
    assert len(seen) == 3
    images, labels = digits["train"].images, digits["train"].condition
    relabelled = an_evaluation(tmp_path, {"train": ImageDataset(images, "digits", "train", labels.flip(0))}, seen)
    for config, other in (
        (Classifier(updates=3, seed=1), evaluation),
        (Classifier(updates=3, dim=65), evaluation),
        (Classifier(updates=3), relabelled),
    ):
        seen.clear()
        assert config.build(other).fingerprint != first.fingerprint
        assert len(seen) == 3


def test_it_can_be_trained_where_inference_mode_is_on(digits, tmp_path):
    with torch.inference_mode():
        inside = Classifier(updates=2).build(an_evaluation(tmp_path / "inside", digits))
    outside = Classifier(updates=2).build(an_evaluation(tmp_path / "outside", digits))
    assert inside.fingerprint == outside.fingerprint


def test_small_data_ends_earlier(tmp_path):
    seen: list[tuple[int, int]] = []
    Classifier().build(an_evaluation(tmp_path, {"train": noise(64, 1, 8)}, seen))
    assert seen[-1] == (15, 15)


def noise(count: int, channels: int, size: int, labels: Tensor | None = None) -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return ImageDataset(images, "noise", "train", torch.arange(count) % 2 if labels is None else labels)


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (3, 128), (3, 100), (1, 2)])
def test_it_takes_images_of_any_size(channels, size, tmp_path):
    dataset = noise(4, channels, size)
    features = Classifier(updates=1).build(an_evaluation(tmp_path, {"train": dataset}))
    assert features(dataset.images).shape == (4, 64)
    assert features(dataset.images).isfinite().all()


def test_images_of_another_shape_are_refused(trained):
    with pytest.raises(ComponentError, match="trained on images of 1x8x8, got 3x8x8"):
        trained(noise(2, 3, 8).images)


def test_importing_the_plugins_does_not_load_torch():
    names = ("features.classifier", "features.inception", "features.timm", "metrics.fid")
    code = "import sys\n" + "".join(f"import ganlab_plugins.{name}\n" for name in names)
    code += "assert not {'torch', 'torchmetrics', 'torch_fidelity', 'timm', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_data_without_class_labels_is_refused(tmp_path):
    pictures = noise(4, 1, 8).images
    unlabelled = ImageDataset(pictures, "noise")
    for dataset in (
        unlabelled,
        ImageDataset(pictures, "noise", "train", pictures),
        noise(4, 1, 8, torch.zeros(4).long()),
    ):
        with pytest.raises(ComponentError, match='noise has none; set features = "inception"'):
            Classifier().build(an_evaluation(tmp_path, {"train": dataset}))
