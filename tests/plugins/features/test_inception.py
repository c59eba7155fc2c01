"""The Inception features, held against torch-fidelity given the same file (of random weights: none is downloaded)."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as published
from safetensors.torch import save_file

from ganlab import ComponentError
from ganlab_plugins.features import inception
from stubs import an_evaluation, photos

pytestmark = pytest.mark.large


@pytest.fixture(scope="session")
def features(weights, tmp_path_factory) -> inception.InceptionFeatures:
    return inception.Inception(str(weights)).build(an_evaluation(tmp_path_factory.mktemp("places")))


def test_features_are_torch_fidelitys(weights, features):
    theirs = published.FeatureExtractorInceptionV3("theirs", ["2048"], str(weights))
    for images in (photos(3, 0), photos(2, 1)[:, :, :20, :27]):
        ours = features(images)
        assert ours.dtype == torch.float32
        assert ours.shape == (len(images), 2048) == (len(images), features.dim)
        assert ours.std(0).mean() > 1e-3  # otherwise the comparison could not fail
        torch.testing.assert_close(ours, theirs(images)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.extended
def test_features_with_gradients_are_those_without(features):
    images = photos(2, 0)[:, :, :24, :24]
    pixels = (images.float() / 127.5 - 1).requires_grad_(True)
    found = features.with_gradients(pixels)
    torch.testing.assert_close(found, features(images), rtol=1e-3, atol=1e-4)
    found.square().sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_grey_images_are_three_equal_channels(features):
    grey = photos(2, 0, channels=1)
    torch.testing.assert_close(features(grey), features(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ComponentError, match="1 or 3 channels, got 4"):
        features(photos(1, 0, channels=4))


def test_either_format_gives_the_same_fingerprint(weights, features, tmp_path):
    state = torch.load(weights, weights_only=True)
    save_file(dict(state), tmp_path / "same.safetensors")
    evaluation = an_evaluation(tmp_path)
    same = inception.Inception(str(tmp_path / "same.safetensors")).build(evaluation)
    assert same.fingerprint == features.fingerprint
    state["fc.bias"][0] += 1
    save_file(dict(state), tmp_path / "other.safetensors")
    other = inception.Inception(str(tmp_path / "other.safetensors")).build(evaluation)
    assert other.fingerprint != features.fingerprint


def test_building_leaves_the_global_generator_and_settings_alone(weights, tmp_path):
    generator, precision = torch.get_rng_state(), torch.backends.cudnn.conv.fp32_precision
    inception.Inception(str(weights)).build(an_evaluation(tmp_path))(photos(1, 0))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.backends.cudnn.conv.fp32_precision == precision
    assert torch.is_grad_enabled()


def test_files_of_other_networks_are_refused_in_one_line(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    missing = {name: tensor for name, tensor in state.items() if name != "fc.bias"}
    files = {
        "other.pth": {"weight": torch.ones(1)},
        "missing.pth": missing,
        "shape.pth": {**missing, "fc.bias": torch.ones(1000)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ComponentError, match=name.replace(".", r"\.") + " does not hold the weights") as caught:
            inception.inception_network(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no network"), OSError("disk full"), RuntimeError("invalid hash")]
)
def test_a_failed_download_says_what_to_do(error, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ComponentError, match=r"could not be downloaded .* weights = \"FILE\"") as caught:
        inception.Inception().build(an_evaluation(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_download_is_kept_and_a_damaged_one_is_not_trusted(weights, features, monkeypatch, tmp_path):
    calls = []

    def download(url, dst, hash_prefix, progress):
        calls.append((url, hash_prefix))
        Path(dst).write_bytes(weights.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(inception, "HASH_PREFIX", inception.hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
    evaluation = an_evaluation(tmp_path)
    assert inception.Inception().build(evaluation).fingerprint == features.fingerprint
    path = inception.downloaded_weights(tmp_path / "cache" / "weights")
    assert calls == [(published.URL_INCEPTION_V3, inception.HASH_PREFIX)]
    path.write_bytes(path.read_bytes()[:-1])
    inception.downloaded_weights(tmp_path / "cache" / "weights")
    assert len(calls) == 2
