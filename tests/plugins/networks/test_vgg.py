"""VGG against torchvision's: the same features of a weights file that has all of its layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize

from ganlab import ComponentError, ImageSpec
from ganlab_plugins.networks.vgg import VGG


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_torchvisions_vgg(channels: int, tmp_path: Path) -> None:
    whole = make_layers(cfgs["E"][:8])  # six convolutions and two poolings
    tensors = {f"features.{key}": value for key, value in whole.state_dict().items()}
    save_file(tensors | {"classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg.safetensors")
    config = VGG(layers=5, weights=str(tmp_path / "vgg.safetensors"))
    network = config.build(ImageSpec(channels, 9, 12))
    config.initialise(network)
    pixels = torch.randint(256, (2, channels, 9, 12), dtype=torch.uint8)
    colour = (pixels / 255).expand(-1, 3, -1, -1)
    expected = whole[:12](normalize(colour, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    logits, features = network(pixels / 127.5 - 1, None, True)
    torch.testing.assert_close(features, expected)
    assert features.shape[1:] == network.feature_shape
    assert logits.shape == (2,)


def test_random_weights_keep_the_scale_of_features() -> None:
    """The mean square of what He et al. draw is that of the input; it would fall by a factor of 6 in each layer."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    squares = [
        VGG(layers=n, channels=16).build(ImageSpec(3, 32, 32))(images, None, True)[1].square().mean() for n in (2, 16)
    ]
    assert 0.02 < squares[1] / squares[0] < 30


def test_what_does_not_fit_vgg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="vgg needs images of at least 16x16 pixels with layers = 16; here they"):
        VGG().build(ImageSpec(3, 8, 20))
    with pytest.raises(ComponentError, match=r"vgg judges images in \[-1, 1\] with 1 or 3 channels; here they are"):
        VGG().build(ImageSpec(4, 32, 32))
    config = VGG(layers=1, channels=8, weights=str(tmp_path / "vgg.safetensors"))
    network = config.build(ImageSpec(3, 8, 8))
    with pytest.raises(ComponentError, match="there is no weights file"):
        config.initialise(network)
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}, config.weights)
    shapes = r"does not fit: features\.0\.weight is \(64, 3, 3, 3\), and the network's is \(8, 3, 3, 3\); expected"
    with pytest.raises(ComponentError, match=f"weights: .* {shapes} .* VGG-19, which have 64 channels and not 8"):
        config.initialise(network)
    save_file({"conv1.weight": torch.zeros(1)}, config.weights)
    names = r"it has no features\.0\.weight, features\.0\.bias, and holds conv1\.weight; expected torchvision's weights"
    with pytest.raises(ComponentError, match=names):
        config.initialise(network)
