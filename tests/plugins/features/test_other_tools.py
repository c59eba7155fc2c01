"""Inception's features in the ways of pytorch-fid and clean-fid, held against these tools with the same weights file.

The weights are random: none are downloaded. Where a tool is not installed (clean-fid, in Python's index), its test is
skipped and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_fid.inception as theirs
import torch
from attrs import evolve
from PIL import Image
from pytorch_fid.fid_score import get_activations
from torch import Tensor, nn

from ganlab_plugins.features.inception import Inception, InceptionFeatures, resized
from stubs import an_evaluation, photos

IMAGES = photos(2, 1)[:, :, :30]


@pytest.fixture(scope="module")
def tool(weights: Path) -> nn.Module:
    """pytorch-fid's own network, with the weights of the file. clean-fid has a copy of its code."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(theirs, "load_state_dict_from_url", lambda *a, **k: torch.load(weights, weights_only=True))
        network: nn.Module = theirs.fid_inception_v3()
    return network.eval().requires_grad_(False)


def pooled(network: Any, images: Tensor) -> Tensor:
    """Images that are resized and normalised, through the blocks of pytorch-fid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "fid_inception_v3", lambda: network)
        blocks = theirs.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    with torch.no_grad():
        return blocks(images)[0][:, :, 0, 0]


@pytest.fixture(scope="module")
def ours(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> InceptionFeatures:
    return Inception(str(weights)).build(an_evaluation(tmp_path_factory.mktemp("places")))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{index}.png" for index in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return list(map(str, paths))


def check(found: Tensor, wanted: Tensor) -> None:
    assert found.std(0).mean() > 1e-3  # otherwise the comparison could not fail
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-3 * float(found.std(0).mean()))


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.xdist_group("parity")
def test_features_are_pytorch_fids(
    tool: nn.Module, ours: InceptionFeatures, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "fid_inception_v3", lambda: tool)
    network = theirs.InceptionV3([3]).eval()
    located: list[Tensor] = []  # the layer of sFID
    tool.get_submodule("Mixed_6d.branch1x1").register_forward_hook(lambda *args: located.append(args[2]))
    wanted = get_activations(files, network, batch_size=3, dims=2048, device="cpu", num_workers=0)
    features = evolve(ours, resize="pytorch-fid")
    check(features(IMAGES), torch.from_numpy(wanted).float())
    spatial = features.spatial(IMAGES)
    assert spatial.shape == (len(IMAGES), features.spatial_dim)
    check(spatial.view(-1, 17, 17, 7), located[0][:, :7].permute(0, 2, 3, 1))


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.xdist_group("parity")
def test_features_are_clean_fids(tool: nn.Module, ours: InceptionFeatures, files: list[str]) -> None:
    """Its reading of files and its resizing; its network is a file of code, in whose place is that of pytorch-fid."""
    clean = pytest.importorskip("cleanfid.fid", reason="clean-fid is not installed: pip install --no-deps clean-fid")
    wanted = clean.get_files_features(
        files,
        model=lambda images: pooled(tool, (images - 128) / 128),
        num_workers=0,
        device=torch.device("cpu"),
        mode="clean",
        verbose=False,
    )
    check(evolve(ours, resize="clean-fid")(IMAGES), torch.from_numpy(wanted).float())


@pytest.mark.parametrize(("height", "width"), [(30, 41), (400, 310), (299, 299)])
def test_images_are_resized_as_pillow_resizes_channels_of_floats(height: int, width: int) -> None:
    image = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0)).float()
    channels = [Image.fromarray(channel.numpy()).resize((299, 299), Image.Resampling.BICUBIC) for channel in image[0]]
    wanted = torch.from_numpy(np.stack([np.asarray(channel).clip(0, 255) for channel in channels]))
    assert (resized(image, "clean-fid")[0] * 128 + 128 - wanted).abs().max() < 0.02
    if (height, width) != (299, 299):  # otherwise the comparison could not fail
        assert (resized(image, "tensorflow")[0] * 128 + 128 - wanted).abs().max() > 10
