"""Small files of the forms in which the bundled data sets and features find theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch_fidelity.feature_extractor_inceptionv3 as published
import torchvision
from PIL import Image
from safetensors.torch import save_file

from image_files import save, write_idx

RNG = np.random.default_rng(0)


def folder_of_images(data: Path) -> None:
    for number in range(20):
        save(data / "folder" / f"{number}.png", RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8))


def pairs_of_images(data: Path) -> None:
    """20 pictures with both halves in each split."""
    for split in ("train", "test"):
        for number in range(20):
            save(data / "pairs" / split / f"{number}.png", RNG.integers(0, 256, (9, 18, 3), dtype=np.uint8))


def two_domains(data: Path) -> None:
    for folder in ("trainA", "trainB", "testA", "testB"):
        for number in range(20):
            save(data / "domains" / folder / f"{number}.png", RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8))


def parquet(data: Path) -> None:
    """20 training images and 5 test images of two classes, as the hub's data sets are laid out."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for split, count in (("train", 20), ("test", 5)):
        images = [Image.fromarray(RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8)) for _ in range(count)]
        rows = datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(count)]}, features)
        (data / "hub" / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(data / "hub" / "data" / f"{split}-00000-of-00001.parquet")


def mnist(data: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        for part, count in (("train", 64), ("t10k", 32)):
            images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            write_idx(data / name / "raw" / f"{part}-images-idx3-ubyte", images)
            write_idx(data / name / "raw" / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))


def cifar10(data: Path) -> None:
    for split in ("train", "test"):
        for kind in ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"):
            for number in range(3):
                save(
                    data / "cifar10-jpeg" / split / kind / f"{number}.jpg", RNG.integers(0, 256, (32, 32, 3), np.uint8)
                )


def celeba(data: Path) -> None:
    folder = data / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number in range(1, 21):
        pixels = RNG.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / f"{number:06}.jpg")
    (folder / "list_eval_partition.txt").write_text("".join(f"{n:06}.jpg 0\n" for n in range(1, 21)))


def inception(data: Path) -> None:
    folder_of_images(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(published.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = published.FeatureExtractorInceptionV3("random", ["2048"])
    torch.save(network.state_dict(), data / "inception.pth")


QUARTERS = """
import attrs
import ganlab


class Quarters:
    name, dim, fingerprint, preprocessing, spatial_dim = "quarters", 1, "1", "none", 4

    def __call__(self, images):
        return images.flatten(1).float().mean(1, keepdim=True)

    def spatial(self, images):
        return images[:, 0].float().unflatten(2, (2, -1)).unflatten(1, (2, -1)).mean((2, 4)).flatten(1)


@attrs.frozen
class Config:
    "Means of quarters."

    def build(self, evaluation):
        return Quarters()


@ganlab.hookimpl
def register_features(register):
    register("quarters", Config)
"""
"""A plugin of spatial features, of a grey image its quarters."""


def quarters(data: Path) -> None:
    data.mkdir()
    (data / "quarters.py").write_text(QUARTERS)


def squeezenet(data: Path) -> None:
    """Random weights of torchvision's SqueezeNet, for LPIPS."""
    features = torchvision.models.squeezenet1_1().features
    data.mkdir(exist_ok=True)
    save_file({f"features.{key}": value for key, value in features.state_dict().items()}, data / "squeeze.safetensors")


def of_timm(model: str, classes: int = 0) -> Callable[[Path], None]:
    def write(data: Path) -> None:
        folder_of_images(data)
        state = timm.create_model(model, num_classes=classes).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, data / "timm.safetensors")

    return write
