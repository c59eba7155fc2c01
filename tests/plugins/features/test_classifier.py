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
from ganlab_plugins.datasets.digits import Digits
from ganlab_plugins.features.classifier import (
    Classifier,
    ClassifierFeatures,
    PerChannelFeatures,
    classifier_network,
    folded,
)

pytestmark = pytest.mark.xdist_group("classifier")  # trained once, and not by each worker

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


@pytest.mark.extended
@pytest.mark.slow
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


def test_folding_batch_norm_changes_no_feature():
    """Held against the network as it was trained, with statistics that are not those of its initial weights."""
    network = classifier_network((1, 8, 8), 64, 10)[0]
    for layer in network:
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    network.eval()
    x = torch.rand(32, 1, 8, 8)
    with torch.no_grad():
        wanted = network(x)
        got = folded(network)(x)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded(network))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.extended
@pytest.mark.slow
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
    names = ("features.classifier", "features.inception", "features.pixels", "features.timm", "metrics.fid")
    names += ("metrics.mode_coverage", "datasets.gaussians", "datasets.stacked_mnist")
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


def stacked(dataset: ImageDataset, channels: int = 2, count: int = 2000, seed: int = 0) -> ImageDataset:
    """Random images of a data set side by side as channels; the label is what theirs write as digits."""
    index = torch.randint(len(dataset.images), (count, channels), generator=torch.Generator().manual_seed(seed))
    labels = sum(dataset.condition[index[:, channel]] * 10 ** (channels - 1 - channel) for channel in range(channels))
    names = tuple(str(label) for label in range(10**channels))
    return ImageDataset(dataset.images[:, 0][index], "stacked", dataset.split, labels, names)


@pytest.fixture(scope="module")
def pairs(digits) -> dict[str, ImageDataset]:
    return {split: stacked(part) for split, part in digits.items()}


@pytest.fixture(scope="module")
def per_channel(pairs, tmp_path_factory) -> PerChannelFeatures:
    config = Classifier(updates=120, per_channel=True)
    return config.build(an_evaluation(tmp_path_factory.mktemp("per_channel"), pairs))


@pytest.mark.extended
@pytest.mark.slow
def test_channels_are_classified_one_by_one(per_channel, pairs):
    """Each by the same network on its own; the joint class is the number that the two write, as the labels are."""
    images = pairs["test"].images[:400]
    logits = per_channel.logits(images)
    assert logits.shape == (400, 100)
    first, second = (per_channel.single.logits(images[:, channel : channel + 1]) for channel in range(2))
    assert torch.equal(logits.argmax(1), 10 * first.argmax(1) + second.argmax(1))
    assert accuracy(per_channel, pairs["test"]) > 0.93**2
    features = per_channel(images)
    assert features.shape == (400, 128) == (400, per_channel.dim)
    assert torch.allclose(features[:, :64], per_channel.single(images[:, :1]), atol=1e-5)
    assert torch.allclose(features[:, 64:], per_channel.single(images[:, 1:]), atol=1e-5)


def test_joint_logits_are_the_log_probabilities_of_independent_channels(digits, tmp_path):
    """Over every triple of classes, against a loop; the last channel's class changes fastest."""
    triples = stacked(digits["train"], channels=3, count=40)
    features = Classifier(updates=2, per_channel=True).build(an_evaluation(tmp_path, {"train": triples}))
    logits = features.logits(triples.images[:2])
    assert logits.shape == (2, 1000)
    assert torch.allclose(logits.logsumexp(1), torch.zeros(2), atol=1e-5)
    each = [features.single.logits(triples.images[:2, c : c + 1]).log_softmax(1) for c in range(3)]
    for a in range(10):
        for b in range(10):
            for c in range(10):
                expected = each[0][:, a] + each[1][:, b] + each[2][:, c]
                assert torch.allclose(logits[:, 100 * a + 10 * b + c], expected, atol=1e-5)


@pytest.mark.extended
@pytest.mark.slow
def test_a_channel_counts_as_an_image_of_its_own(digits, tmp_path):
    """So what is trained is what the plain classifier is on the same single images."""
    pair = stacked(digits["train"], count=100)
    seen: list[tuple[int, int]] = []
    evaluation = an_evaluation(tmp_path, {"train": pair}, seen)
    features = Classifier(per_channel=True).build(evaluation)
    assert len(seen) == -(-30 * 200 // 128), "30 passes over 200 channels"
    seen.clear()
    assert Classifier(per_channel=True).build(evaluation).fingerprint == features.fingerprint
    assert seen == []
    digits_of = torch.stack([pair.condition // 10, pair.condition % 10], 1).flatten()
    alone = ImageDataset(pair.images.reshape(200, 1, 8, 8), "alone", "train", digits_of)
    plain = Classifier().build(an_evaluation(tmp_path, {"train": alone}))
    assert plain.fingerprint == features.fingerprint
    assert plain.preprocessing != features.preprocessing


def test_the_joint_classes_without_the_option_are_another_network(pairs, tmp_path):
    """One of 100 classes: the cache must not mistake one for the other."""
    evaluation = an_evaluation(tmp_path, pairs)
    joint = Classifier(updates=2).build(evaluation)
    assert joint.logits(pairs["test"].images[:3]).shape == (3, int(pairs["train"].condition.max()) + 1)
    assert Classifier(updates=2, per_channel=True).build(evaluation).fingerprint != joint.fingerprint


@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (2, 10), (3, 999), (2, 3), (3, 2)])
def test_classes_that_are_not_the_channels_together_are_refused(channels, classes, tmp_path):
    dataset = noise(classes, channels, 8, torch.arange(classes))
    wanted = rf"the {channels} channels' classes together, k\^{channels} .* noise has {classes} classes"
    with pytest.raises(ComponentError, match=wanted):
        Classifier(per_channel=True).build(an_evaluation(tmp_path, {"train": dataset}))


def test_classes_without_an_image_count_where_they_are_named(tmp_path):
    labels = torch.tensor([0, 1, 5, 2])
    named = ImageDataset(noise(4, 2, 8).images, "noise", "train", labels, tuple("abcdefghi"))
    features = Classifier(updates=1, per_channel=True).build(an_evaluation(tmp_path, {"train": named}))
    assert features.logits(named.images).shape == (4, 9)
    unnamed = an_evaluation(tmp_path, {"train": ImageDataset(named.images, "noise", "train", labels)})
    with pytest.raises(ComponentError, match="noise has 6 classes"):
        Classifier(updates=1, per_channel=True).build(unnamed)


@pytest.mark.extended
@pytest.mark.slow
def test_channels_of_another_shape_are_refused(per_channel):
    with pytest.raises(ComponentError, match="trained on channels of images of 2x8x8, got 3x8x8"):
        per_channel.logits(noise(2, 3, 8).images)


def test_it_may_be_trained_on_another_data_set(trained, digits, tmp_path):
    """The features are those of a run on that data set; what is scored needs no labels."""
    unlabelled = ImageDataset(digits["test"].images, "others", "train", None)
    evaluation = an_evaluation(tmp_path, {"train": unlabelled})
    on_digits = Classifier(dataset=Digits(), updates=2)
    features = on_digits.build(evaluation)
    with_labels = {split: Digits().build(evaluation.places, split) for split in ("train", "test")}
    alone = Classifier(updates=2).build(an_evaluation(tmp_path, with_labels))
    assert features.fingerprint == alone.fingerprint != trained.fingerprint
    larger = ImageDataset(torch.zeros(4, 1, 16, 16, dtype=torch.uint8), "larger", "train", None)
    with pytest.raises(
        ComponentError, match=r"has images of uint8 \(1, 8, 8\); those to score are uint8 \(1, 16, 16\)"
    ):
        on_digits.build(an_evaluation(tmp_path, {"train": larger}))
