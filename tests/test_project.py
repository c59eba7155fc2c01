"""Projection of images into latents, held against least squares, a run's own images, and random latents."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ganlab import UserError, load_run
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.image_values import ValueForm
from ganlab.evaluation.network_sampler import NetworkSampler, sampler_of
from ganlab.evaluation.sampling import generate_images
from ganlab.protocols import ImageSpec, Sampler
from ganlab.run.images_to_project import FileOptions, read_files
from ganlab.run.latents_file import read_latents
from ganlab.run.project import ProjectionOptions, project
from ganlab_plugins.features.classifier import ClassifierFeatures, PerChannelFeatures, classifier_network, folded
from image_files import pictures, write_dicom, write_video
from stubs import CPU, photos

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


class Linear(nn.Module):
    """Images that are linear in the latents."""

    latent_dim = 3

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.layer = nn.Linear(3, size)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(size, 3, generator=torch.Generator().manual_seed(0)) / 4)
            self.layer.bias.copy_(torch.randn(size, generator=torch.Generator().manual_seed(1)) / 4)

    def forward(self, z: Tensor, condition: Any) -> Tensor:
        return self.layer(z).view(-1, 1, 4, 4)


class Sampled:
    """A run, as far as a projection looks at it."""

    path, device = Path("r"), CPU

    def __init__(self, network: nn.Module, dtype: str = "float32", sampler: Sampler | None = None) -> None:
        self.sampler = NetworkSampler(sampler or sampler_of("g"), {"g": network.eval()}, dtype)
        self.conditions, self.sampled = ConditionSampler(), ImageSpec.of((1, 4, 4), dtype)

    def check_samples(self, truncation: float | None = None) -> None:
        """It makes samples."""


def test_a_linear_generator_is_inverted_as_least_squares_does() -> None:
    run = Sampled(Linear())
    targets = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    found = project(run, targets, ProjectionOptions(updates=250, starts=64))
    layer = run.sampler.networks["g"].layer
    for index in range(2):
        wanted = torch.linalg.lstsq(layer.weight, targets[index].flatten() - layer.bias).solution
        assert (found.latents[index] - wanted).abs().max() < 5e-3
        residual = (layer(wanted) - targets[index].flatten()).square().mean().sqrt()
        assert found.errors[index] == pytest.approx(residual.item(), rel=1e-4)
    assert (found.first_errors > found.errors).all()
    alone = project(run, targets[1:], ProjectionOptions(updates=250, starts=64))
    assert torch.allclose(alone.latents[0], found.latents[1], atol=5e-3), "an image does not depend on the others"
    assert layer.weight.requires_grad
    assert layer.weight.grad is None


def test_the_balance_of_pixels_and_features_is_each_images_own() -> None:
    """Beside images that are far from all that is generated, the few updates lead to the same latents."""
    run = Sampled(Linear())
    target = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    options = ProjectionOptions(updates=5, starts=8, features=lambda images: images[:, 0, 0] ** 3)
    alone = project(run, target, options)
    beside = project(run, torch.cat([target, torch.full((3, 1, 4, 4), 9.0)]), options)
    assert torch.allclose(beside.latents[0], alone.latents[0], atol=1e-5)


class Styled(nn.Module):
    """Images that are linear in the styles of two layers, (N, 2, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Linear(), Linear()])
        with torch.no_grad():
            self.layers[1].layer.weight.copy_(self.layers[0].layer.weight.roll(1, 0))

    def forward(self, w: Tensor, condition: Any) -> Tensor:
        return self.layers[0](w[:, 0], None) + self.layers[1](w[:, 1], None)


def test_styles_are_free_in_each_layer_or_the_same_in_all() -> None:
    """Both against least squares: of six numbers, and of the three that both layers have."""
    sampler = Sampler(
        ("g",),
        lambda networks, w, condition: networks["g"](w, condition),
        lambda networks, count, random, truncation: torch.randn(count, 1, 3, generator=random).expand(-1, 2, -1),
        styles=True,
    )
    run = Sampled(Styled(), sampler=sampler)
    target = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    first, second = (part.layer for part in run.sampler.networks["g"].layers)
    right = target.flatten() - first.bias - second.bias
    free = project(run, target, ProjectionOptions(updates=400, starts=64)).latents
    wanted = torch.linalg.lstsq(torch.cat([first.weight, second.weight], 1), right).solution
    assert (free.flatten() - wanted).abs().max() < 0.02
    one = project(run, target, ProjectionOptions(updates=400, starts=64, one_style=True)).latents
    wanted = torch.linalg.lstsq(first.weight + second.weight, right).solution
    assert torch.equal(one[:, 0], one[:, 1])
    assert (one[0, 0] - wanted).abs().max() < 0.02
    with pytest.raises(UserError, match=r"^--one-style: r: the latents of this run are no styles"):
        project(Sampled(Linear()), target, ProjectionOptions(one_style=True))


@pytest.mark.extended
@pytest.mark.slow
def test_features_pull_the_latents_to_what_they_see() -> None:
    """Features that see the first row of pixels alone: with a large weight that row is least squares' own."""
    run = Sampled(Linear())
    target = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    options = ProjectionOptions(300, 64, features=lambda images: images[:, 0, 0], feature_weight=1e5)
    found = project(run, target, options)
    layer = run.sampler.networks["g"].layer
    wanted = torch.linalg.lstsq(layer.weight[:4], target.flatten()[:4] - layer.bias[:4]).solution
    assert (found.latents[0] - wanted).abs().max() < 0.03
    with pytest.raises(UserError, match=r"the features are \(1, 4, 4\); expected \(1, dim\)"):
        project(run, target, ProjectionOptions(1, 64, features=lambda images: images[:, 0]))


def test_the_classifiers_features_with_gradients_are_those_without() -> None:
    network = classifier_network((1, 8, 8), 4, 10).eval().requires_grad_(False)
    features = ClassifierFeatures(folded(network[0]), network[1], (1, 8, 8), CPU, "", 4)
    images = photos(3, 0, 1)[:, :, :8, :8]
    pixels = (images.float() / 127.5 - 1).requires_grad_(True)
    found = features.with_gradients(pixels)
    assert torch.allclose(found, features(images), atol=1e-5)
    found.square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    both = PerChannelFeatures(features, 2)
    two = torch.cat([images, images.flip(3)], 1)
    assert torch.allclose(both.with_gradients(two.float() / 127.5 - 1), both(two), atol=1e-5)


def test_image_files_are_read_as_the_run_samples() -> None:
    """Pictures, arrays, DICOM files and frames of videos, against the numbers that were written."""
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray((values * 4).astype(np.uint8)).save("grey.png")
    np.save("plain.npy", (values * 4).astype(np.uint8))
    np.save("own.npy", values.astype(np.float32) - 32)
    Image.fromarray(values * 1000).save("deep.png")
    grey, deep = ImageSpec.of((1, 8, 8)), ImageSpec.of((1, 8, 8), "uint16")
    wanted = torch.from_numpy(values.astype(int))
    read = read_files(grey, [Path("grey.png"), Path("plain.npy")], FileOptions())
    assert read.names == ["grey.png", "plain.npy"]
    assert torch.equal(read.images[:, 0].int(), (wanted * 4).int().expand(2, 8, 8))
    own = read_files(grey, [Path("own.npy")], FileOptions.of([-32, 31], 1)).images
    assert torch.equal(own[0, 0].int(), (wanted * 255 / 63).round().int())
    window = read_files(grey, [Path("own.npy")], FileOptions.of([-20, 20], 1)).images
    assert torch.equal(window[0, 0].int(), ((wanted - 12).clamp(0, 40) * 255 / 40).round().int())
    assert torch.equal(read_files(deep, [Path("deep.png")], FileOptions()).images[0, 0].int(), (wanted * 1000).int())
    of_run = ValueForm("uint16", (0, 63), background="#ff0000")
    Image.fromarray(values).save("dark.png")
    scaled = read_files(grey, [Path("dark.png")], FileOptions(), own=of_run).images
    assert torch.equal(scaled[0, 0].int(), (wanted * 255 / 63).round().int())
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("clear.png")
    laid = read_files(ImageSpec.of((3, 8, 8)), [Path("clear.png")], FileOptions(), own=attrs.evolve(of_run, range=None))
    assert laid.images[0, :, 0, 0].tolist() == [255, 0, 0]
    zipped = zipfile.ZipFile("set.zip", "w")
    zipped.write("grey.png", "in/grey.png")
    zipped.close()
    assert torch.equal(read_files(grey, [Path("set.zip")], FileOptions()).images, read.images[:1])
    os.mkfifo("pipe.png")
    for path, options, words in (
        ("own.npy", FileOptions(), "own.npy: its samples are 32-bit float grey, for which no value stands for white;"),
        ("grey.png", FileOptions(None, 2), "--frame-step 2: is for videos and DICOM files; none is given"),
        ("pipe.png", FileOptions(), "pipe.png: is not a file"),
        ("dark.png", FileOptions(), "dark.png has 16 bits a sample, but no value above 63, which becomes level 0"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            read_files(grey, [Path(path)], options)
    for limits in ([3, 3], [0, float("inf")], [1]):
        with pytest.raises(UserError, match=r"^--range .*: expected two finite numbers, the lower one first"):
            FileOptions.of(limits, 1)


@pytest.mark.extended
@pytest.mark.slow
def test_frames_of_videos_and_dicom_files_are_read() -> None:
    pydicom, av = pytest.importorskip("pydicom"), pytest.importorskip("av")
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    write_dicom(pydicom, Path("scan.dcm"), np.stack([values * 60, values * 30, values]))
    write_video(av, Path("clip.mp4"))
    grey = ImageSpec.of((1, 8, 8))
    read = read_files(grey, [Path("scan.dcm")], FileOptions(None, 2))
    assert read.names == ["scan.dcm#0", "scan.dcm#2"]
    for image, factor in zip(read.images, (60, 1), strict=True):
        assert torch.equal(image[0].int(), torch.from_numpy(values * 255.0 * factor / 4095).round().int())
    read = read_files(ImageSpec.of((3, 32, 48)), [Path("clip.mp4")], FileOptions(None, 13))
    assert read.names == [f"clip.mp4#{index}" for index in (0, 13, 26, 39)]
    wanted = torch.from_numpy(np.stack(pictures()[::13])).permute(0, 3, 1, 2)
    assert (read.images.int() - wanted.int())[:, :, 20:, 20:].abs().max() <= 3
    Path("broken.mp4").write_bytes(b"none")
    with pytest.raises(UserError, match=r"^broken.mp4: cannot be read as an image"):
        read_files(grey, [Path("broken.mp4")], FileOptions())


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    table["generator"] = {"name": "conditional", "network": table["generator"]}
    table["discriminator"] = {"name": "conditional", "network": table["discriminator"]}
    assert ganlab("run", write(table), "--out", "r", "--set", "train.steps=1")[0] == 0
    return Path("r")


def test_a_runs_own_image_is_found_again(run: Path, ganlab: Ganlab) -> None:
    """Pictures of the run itself, one of another size, and what is written of them."""
    loaded = load_run(run)
    images, labels = loaded.sample_with_condition(2, seed=123)
    label = int(labels[0])
    for index, image in enumerate(images):
        Image.fromarray(image[0].numpy()).resize((8 * (1 + index),) * 2, Image.Resampling.NEAREST).save(f"{index}.png")
    options = ("--updates", 300, "--starts", 64, "--latents", "safetensors")
    code, out, err = ganlab("project", run, "0.png", "1.png", "--out", "p", "--label", label, *options)
    assert code == 0, err
    record = json.loads(Path("p/projection.json").read_text())
    first, second = record["images"]
    assert second["result"] == "00001-1.png"
    assert first["error"] < 0.1 * first["best_random"]
    assert out.splitlines()[0].startswith(
        f"0.png: error {first['error']:.3g} of 255, of the best of 64 random latents "
    )
    assert out.splitlines()[-1] == "2 images projected by plain weights at step 1: p"
    names = {"00000-0.png", "00001-1.png", "pairs.png", "latents.safetensors", "trajectory.webp", "projection.json"}
    assert {path.name for path in Path("p").iterdir()} == names
    result = np.asarray(Image.open("p/00000-0.png")).astype(int)
    assert np.sqrt(np.square(result - images[0, 0].numpy()).mean()) == pytest.approx(first["error"])
    given = read_latents(loaded, Path("p/latents.safetensors"))
    assert given.condition.tolist() == [label, label]
    (made,) = generate_images(loaded.sampler, given.z, loaded.device, given.condition)
    assert np.abs(made[0, 0].numpy().astype(int) - result).max() <= 1
    film = Image.open("p/trajectory.webp")
    assert film.n_frames > 10
    assert ganlab("sample", run, "--latents", "p/latents.safetensors", "--walk", "--out", "w.gif")[0] == 0
    html = loaded.project(images, updates=1, starts=4, label=label)._repr_html_()
    assert html.count("<img") == 1
    assert html.count("(") == 2
    # Without --label the class is that of the best random latents.
    free = loaded.project(images[:1], updates=5, starts=256)
    assert free.errors[0] <= free.first_errors[0]
    assert 0 <= int(free.condition[0]) < 10
    assert free.film().frames.shape[0] == len(free.trajectory)
    assert torch.equal(loaded.project(["0.png"], updates=1, starts=4, label=label).targets, images[:1])
    free.save("z.npz")
    assert torch.equal(read_latents(loaded, Path("z.npz")).z, free.latents)


@pytest.mark.extended
@pytest.mark.slow
def test_what_cannot_be_projected(run: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save("a.png")
    Path("b.png").write_bytes(b"none")
    Path("full").mkdir()
    Path("full/mine").touch()
    Path("empty").mkdir()
    before = sorted(Path().iterdir())
    for arguments, words in (
        ([], "project: no images"),
        (["gone.png"], "gone.png: no such file or folder"),
        (["b.png"], "b.png: cannot be read as an image"),
        (["empty"], "empty: contains no images"),
        (["a.png", "--range", "3", "-3"], "--range 3 -3: expected two finite numbers, the lower one first"),
        (["a.png", "--frame-step", "2"], "--frame-step 2: is for videos and DICOM files; none is given"),
        (["a.png", "--frame-step", "0"], "--frame-step 0: expected at least 1"),
        (["a.png", "--out", "full"], "--out full: a folder that is not empty"),
        (["a.png", "--out", "a.png/p"], "a.png is not a folder"),
        (["a.png", "--out", "x.png"], "--out x.png: expected a folder"),
        (["a.png", "--label", "10"], "--label 10: expected one of the 10 classes"),
        (["a.png", "--updates", 0], "--updates 0: expected at least 1"),
        (["a.png", "--lr", "inf"], "--lr inf: expected a finite number above 0"),
        (["a.png", "--feature-weight", 3], "--feature-weight: is for features that are compared; add --features NAME"),
        (["a.png", "--set", "features.model=x"], "--set: is for features that are compared; add --features NAME"),
        (["a.png", "--features", "clasifier"], "did you mean 'classifier'?"),
        (["a.png", "--features", "timm"], "--set features.model: missing; text is needed"),
        (
            ["a.png", "--features", "timm", "--set", "model=x"],
            "--set model: is no option of the features; did you mean",
        ),
        (["a.png", "--features", "pixels"], "--features pixels: they have no gradients"),
    ):
        code, out, err = ganlab("project", run, *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), (arguments, err)
        assert words in err
    with monkeypatch.context() as patch:

        def ends(*given: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr("ganlab.run.project.generate_images", ends)
        code, out, err = ganlab("project", run, "a.png", "--updates", 2, "--out", "p")
        assert (code, out, err) == (75, "", "p: nothing is written; the same command starts again\n")
    assert sorted(Path().iterdir()) == before


class Deaf(nn.Module):
    """Images that do not depend on the latents."""

    latent_dim = 3

    def forward(self, z: Tensor, condition: Any) -> Tensor:
        return torch.zeros(len(z), 1, 4, 4)


def test_samplers_and_tensors_that_have_no_way_back() -> None:
    options = ProjectionOptions(2, 4)
    with pytest.raises(UserError, match=r"^r: what is sampled has no gradient by its latents"):
        project(Sampled(Deaf()), torch.zeros(1, 1, 4, 4), options)
    none = Sampler(
        ("g",), lambda networks, z, condition: networks["g"](z, None), lambda n, count, *_: torch.zeros(count, 0)
    )
    with pytest.raises(UserError, match=r"^r: what is sampled has no latents"):
        project(Sampled(Deaf(), sampler=none), torch.zeros(1, 1, 4, 4), options)
    for wrong, words in (
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), r"images are torch.uint8 \(1, 1, 4, 4\); the run samples"),
        (torch.zeros(1, 1, 4, 5), "the run samples images, float32"),
        (torch.zeros(0, 1, 4, 4), "no images"),
        (torch.full((1, 1, 4, 4), torch.nan), "images are not finite"),
    ):
        with pytest.raises(UserError, match=words):
            project(Sampled(Linear()), wrong, options)
