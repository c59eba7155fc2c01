"""Inception's features and FID in the ways of pytorch-fid and clean-fid, held against these tools.

Both are given the same weights file, of random weights: none are downloaded. Where a tool is not installed (clean-fid,
in Python's index), its test is skipped and says so.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_fid.inception as theirs
import torch
from attrs import evolve
from PIL import Image
from pytorch_fid import fid_score
from torch import Tensor, nn

from ganlab_plugins.features import inception
from ganlab_plugins.features.inception import Inception, InceptionFeatures, resized
from stubs import an_evaluation, photos

Command = Callable[..., tuple[int, str, str]]

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
    wanted = fid_score.get_activations(files, network, batch_size=3, dims=2048, device="cpu", num_workers=0)
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


# ---------------------------------------------------------------------------------------------------------------------
# Whole scores: files, resizing, moments and distance, with 64 features of the network's first layers, which are quick
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Real and generated pictures, too few for 64 features: both covariances are singular."""
    sets = (photos(4, 1), photos(3, 2) // 2 + 50)
    found = tmp_path / "real", tmp_path / "made"
    for folder, images in zip(found, sets, strict=True):
        folder.mkdir()
        for index, image in enumerate(images[:, :, :30]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return found


@pytest.fixture
def first_layers(
    tool: nn.Module, ours: InceptionFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Tensor], Tensor]:
    """Ours with the layers up to pytorch-fid's block 0, averaged; the same of theirs, of normalised images."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(theirs, "fid_inception_v3", lambda: tool)
    monkeypatch.setattr(inception, "LAYERS", (*inception.LAYERS[:4], "AvgPool"))
    monkeypatch.setattr(Inception, "build", lambda self, evaluation: evolve(ours, resize=self.resize, dim=64))
    block = theirs.InceptionV3([0], resize_input=False, normalize_input=False).eval()
    return lambda images: block(images)[0].mean((2, 3))


def scored(ganlab: Command, folders: tuple[Path, Path], resize: str, **options: str) -> float:
    given = {"metric.0.features.resize": resize, "dataset.size": "original"} | options
    settings = [part for item in given.items() for part in ("--set", "{}={}".format(*item))]
    paths = (folders[1], "--against", folders[0])
    code, out, err = ganlab("score", *paths, "--features", "inception", "--no-floor", "--json", *settings)
    assert code == 0, err
    (record,) = json.loads(out)
    assert resize in record["protocol"]["features"]["preprocessing"].lower().replace(" 1", "")
    return float(record["value"])


def write_moments(ganlab: Command, folder: str, resize: str, out: str) -> None:
    settings = ("--set", f"features.resize={resize}", "--set", "dataset.size=original")
    code, _, err = ganlab("moments", folder, "--features", "inception", "--out", out, *settings)
    assert code == 0, err


def as_tensorflow_resizes(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bilinear, of (N, 3, H, W) to 299x299: the corners are those of the first pixels, not their centres."""
    for axis in (2, 3):
        count = images.shape[axis]
        at = np.arange(299) * count / 299
        low = np.floor(at).astype(int)
        share = np.expand_dims(at - low, list(range(1, 4 - axis)))
        images = images.take(low, axis) * (1 - share) + images.take(np.minimum(low + 1, count - 1), axis) * share
    return images.astype(np.float32)


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.xdist_group("parity")
def test_scores_and_moments_are_pytorch_fids(
    first_layers: Callable[[Tensor], Tensor], folders: tuple[Path, Path], ganlab: Command, tmp_path: Path
) -> None:
    real, made = map(str, folders)
    about = {"batch_size": 3, "device": "cpu", "dims": 64, "num_workers": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        fid_score.save_fid_stats([real, str(tmp_path / "theirs.npz")], **about)
        write_moments(ganlab, real, "pytorch-fid", "ours.npz")
        wanted, read = (
            fid_score.calculate_fid_given_paths([str(tmp_path / f"{whose}.npz"), made], **about)
            for whose in ("theirs", "ours")
        )
    assert wanted > 0.1
    found = scored(ganlab, folders, "pytorch-fid")
    given = scored(ganlab, folders, "pytorch-fid", **{"metric.0.moments": str(tmp_path / "theirs.npz")})
    assert [found, given, read] == pytest.approx([wanted] * 3, rel=2e-4)


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.xdist_group("parity")
def test_scores_and_moments_are_clean_fids(
    tool: nn.Module,
    first_layers: Callable[[Tensor], Tensor],
    folders: tuple[Path, Path],
    ganlab: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In its three modes. Its networks are files of code, in whose place is that of pytorch-fid."""
    clean = pytest.importorskip("cleanfid.fid", reason="clean-fid is not installed: pip install --no-deps clean-fid")

    class Network(nn.Module):
        def __init__(self, path: str, download: bool = True, resize_inside: bool = False) -> None:
            super().__init__()
            self.resize_inside = resize_inside

        def forward(self, images: Tensor) -> Tensor:
            if self.resize_inside:
                images = torch.from_numpy(as_tensorflow_resizes(images.numpy()))
            return first_layers((images - 128) / 128)

    class Averaged(nn.Module):
        def __init__(self, output_blocks: list[int], **options: bool) -> None:
            super().__init__()
            self.network = network([0], **options)

        def forward(self, images: Tensor) -> list[Tensor]:
            return [self.network(images)[0].mean((2, 3), keepdim=True)]

    network = importlib.import_module("cleanfid.inception_pytorch").InceptionV3
    monkeypatch.setattr("cleanfid.inception_pytorch.fid_inception_v3", lambda: tool)
    monkeypatch.setattr("cleanfid.features.InceptionV3", Averaged)
    monkeypatch.setattr("cleanfid.features.InceptionV3W", Network)
    monkeypatch.setattr("cleanfid.__file__", str(tmp_path / "__init__.py"))  # its files of moments are beside it
    real, made = map(str, folders)
    about = {"num_workers": 0, "device": torch.device("cpu"), "verbose": False}

    def wanted(mode: str, *folders: str, **of: str) -> float:
        return float(clean.compute_fid(*folders, mode=mode, use_dataparallel=False, **of, **about))

    for mode, resize in {"legacy_tensorflow": "tensorflow", "legacy_pytorch": "pytorch-fid"}.items():
        assert scored(ganlab, folders, resize) == pytest.approx(wanted(mode, real, made), rel=2e-4), mode
    clean.make_custom_stats("theirs", real, **about)
    write_moments(ganlab, real, "clean-fid", "stats/ours_clean_custom_na.npz")
    right = wanted("clean", made, dataset_name="theirs", dataset_split="custom")
    read = wanted("clean", made, dataset_name="ours", dataset_split="custom")
    found = scored(ganlab, folders, "clean-fid")
    moments = str(tmp_path / "stats" / "theirs_clean_custom_na.npz")
    given = scored(ganlab, folders, "clean-fid", **{"metric.0.moments": moments})
    assert [found, given, read] == pytest.approx([right] * 3, rel=2e-4)
