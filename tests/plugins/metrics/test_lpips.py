"""LPIPS against torchmetrics, with a network of random weights in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchmetrics.functional.image import lpips as theirs

from ganlab import ComponentError, Evaluation, ImageDataset, to_float, to_uint8
from ganlab_plugins.features.lpips import LPIPS as LPIPSFeatures
from ganlab_plugins.metrics import lpips
from stubs import an_evaluation, photos


def network_file(name: str) -> tuple[theirs._LPIPS, dict[str, Tensor]]:
    """torchmetrics' network of LPIPS with random weights, and these by the names of torchvision's file."""
    network = theirs._LPIPS(net=name, pnet_rand=True)
    state = network.net.state_dict()
    named = {f"features.{key.split('.', 2 if 'slices' in key else 1)[-1]}": value for key, value in state.items()}
    save_file({**named, "classifier.1.weight": torch.zeros(2, 2)}, f"{name}.safetensors")
    return network, named


def evaluation(folder: Path, made: Tensor, target: Tensor) -> Evaluation:
    """An evaluation of a translation that is these images, of targets (n, C, H, W) uint8."""
    dataset = ImageDataset(target, "photos", "test")

    def outputs(name: str, split: str) -> Iterator[tuple[Tensor, Tensor, None]]:
        for part, real in zip(made.split(4), target.split(4), strict=True):
            yield part, to_float(real), None

    return attrs.evolve(an_evaluation(folder), outputs=outputs, dataset=lambda split: dataset)


@pytest.mark.parametrize(
    ("name", "channels", "enlarge"),
    [
        ("squeeze", 3, 1),
        *(
            pytest.param(*case, marks=(pytest.mark.extended, pytest.mark.large))
            for case in [("alex", 1, 2), ("vgg", 3, 1)]
        ),
    ],
)
def test_lpips_is_that_of_torchmetrics(
    name: str, channels: int, enlarge: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network, _ = network_file(name)
    target = photos(6, 0, channels)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    made = (to_float(target) + 0.4 * noise).clamp(-1, 1)
    before = torch.random.get_rng_state()
    metric = lpips.LPIPS(f"{name}.safetensors", network=name, enlarge=enlarge)
    scores = metric.evaluate(evaluation(tmp_path, made, target))
    assert torch.equal(torch.random.get_rng_state(), before)
    larger = [
        torch.nn.functional.interpolate(to_float(images).expand(-1, 3, -1, -1), scale_factor=enlarge, mode="bilinear")
        for images in (to_uint8(made), target)
    ]
    assert scores.values["lpips"] == pytest.approx(float(network(*larger).mean()), rel=1e-4)
    # The features' squared distances are LPIPS, with gradients too.
    features = LPIPSFeatures(f"{name}.safetensors", name, enlarge=enlarge).build(evaluation(tmp_path, made, target))
    ours, real = features(to_uint8(made)), features(target)
    assert ours.shape == (6, features.dim)
    assert (ours - real).square().sum(1).mean().item() == pytest.approx(scores.values["lpips"], rel=1e-4)
    pixels = to_float(target).requires_grad_(True)
    found = features.with_gradients(pixels)
    assert torch.allclose(found, real, atol=1e-5)
    found.square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    equal = metric.evaluate(evaluation(tmp_path, to_float(target), target))
    assert equal.values["lpips"] == 0
    assert equal.protocol["network"] == scores.protocol["network"]


def test_what_does_not_fit_lpips_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, named = network_file("squeeze")

    def refused(channels: int = 3, side: int = 32, **options: object) -> str:
        target = torch.zeros(2, channels, side, side, dtype=torch.uint8)
        metric = lpips.LPIPS(**{"weights": "squeeze.safetensors", "network": "squeeze", **options})
        with pytest.raises(ComponentError) as caught:
            metric.prepare(evaluation(tmp_path, to_float(target), target))
        return str(caught.value)

    assert refused(weights="none.pth") == "there is no weights file none.pth"
    assert refused(network="alex") == (
        "squeeze.safetensors does not hold the weights of torchvision's alexnet: 'features.0.weight' is (64, 3, 3, 3), "
        "wanted (64, 3, 11, 11)"
    )
    del named["features.12.expand3x3.bias"]
    save_file(named, "part.safetensors")
    assert "'features.12.expand3x3.bias' is missing, wanted (256,)" in refused(weights="part.safetensors")
    assert refused(side=8, network="alex") == (
        "images of 8x8 are too small for the network 'alex' with enlarge = 1; use a larger factor"
    )
    assert refused(channels=4) == "lpips compares images of 1 or 3 channels, got 4"
    said = refused(linear="squeeze.safetensors")
    assert "does not hold the weights of LPIPS's channels: 'lin0.model.1.weight' is missing" in said
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'ganlab[lpips]', or set linear = FILE, such as squeeze.pth" in refused()
