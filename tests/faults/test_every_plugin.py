"""Every bundled component in a run that is killed in the middle of a step, held against one that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch_fidelity.feature_extractor_inceptionv3 as published
from PIL import Image
from safetensors.torch import save_file

from children import Child, Command
from ganlab.plugins import load_plugins
from image_files import save, write_idx
from run_folders import assert_same_run
from saboteur import AtUpdate

Write = Callable[..., Path]
RNG = np.random.default_rng(0)


def folder_of_images(data: Path) -> None:
    for number in range(20):
        save(data / "folder" / f"{number}.png", RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8))


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


def of_timm(model: str) -> Callable[[Path], None]:
    def write(data: Path) -> None:
        folder_of_images(data)
        state = timm.create_model(model, num_classes=0).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, data / "timm.safetensors")

    return write


DCGAN = {"name": "dcgan", "channels": 4}
SIXTEEN = {"name": "digits", "size": 16}
CLASSIFIER = {"name": "classifier", "updates": 10, "dim": 8}
SCORED = {"samples": 16, "features": CLASSIFIER}


FOLDER = {"name": "image_folder", "path": "folder", "size": 8}


def features(samples: int = 16, **table: Any) -> dict[str, Any]:
    return {"metric": [{"name": "fid", "samples": samples, "features": table}], "floor": False}


def large_features(**table: Any) -> dict[str, Any]:
    """Which take so long that the data must be few."""
    return {"dataset": FOLDER, **features(4, **table)}


CHANGES: dict[str, tuple[dict[str, Any], Callable[[Path], None] | None]] = {
    "generator mlp": ({}, None),
    "generator dcgan": ({"dataset": SIXTEEN, "generator": {**DCGAN, "latent_dim": 8}}, None),
    "discriminator mlp": ({}, None),
    "discriminator dcgan": ({"dataset": SIXTEEN, "discriminator": DCGAN}, None),
    "loss bce": ({}, None),
    "loss least_squares": ({"loss": "least_squares"}, None),
    "loss relativistic": ({"loss": "relativistic"}, None),
    "loss_wrapper label_smoothing": ({"loss_wrapper": [{"name": "label_smoothing"}]}, None),
    "penalty l2_generator": ({"penalty": [{"name": "l2_generator", "weight": 0.01, "every": 2}]}, None),
    "optimizer adam": ({}, None),
    "optimizer sgd": ({"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}}, None),
    "optimizer rmsprop": ({"optimizer": {"name": "rmsprop", "lr": 1e-3}}, None),
    "dataset digits": ({}, None),
    "dataset ring": ({"dataset": {"name": "ring", "count": 100}}, None),
    "dataset grid": ({"dataset": {"name": "grid", "count": 100}}, None),
    "dataset mnist": ({"dataset": "mnist"}, mnist),
    "dataset fashion_mnist": ({"dataset": "fashion_mnist"}, mnist),
    "dataset stacked_mnist": ({"dataset": {"name": "stacked_mnist", "count": 50}}, mnist),
    "dataset cifar10": ({"dataset": "cifar10"}, cifar10),
    "dataset celeba": ({"dataset": {"name": "celeba", "size": 8}}, celeba),
    "dataset image_folder": ({"dataset": FOLDER}, folder_of_images),
    "metric fid": ({"metric": [{"name": "fid", "every": 2, **SCORED}]}, None),
    "metric kid": ({"metric": [{"name": "kid", "every": 2, "subsets": 2, "subset_size": 8, **SCORED}]}, None),
    "metric precision_recall": ({"metric": [{"name": "precision_recall", "every": 2, **SCORED}]}, None),
    "metric inception_score": ({"metric": [{"name": "inception_score", "every": 2, **SCORED}]}, None),
    "metric mode_coverage": ({"metric": [{"name": "mode_coverage", "every": 2, **SCORED}]}, None),
    "tracker csv": ({"tracker": [{"name": "csv"}]}, None),
    "tracker tensorboard": ({"tracker": [{"name": "tensorboard"}]}, None),
    "tracker mlflow": ({"tracker": [{"name": "mlflow"}]}, None),
    "features classifier": (features(**CLASSIFIER), None),
    "features pixels": (features(name="pixels"), None),
    "features inception": (large_features(name="inception", weights="data/inception.pth"), inception),
    "features dinov2": (
        large_features(name="dinov2", size="small", weights="data/timm.safetensors"),
        of_timm("vit_small_patch14_dinov2.lvd142m"),
    ),
    "features timm": (
        large_features(name="timm", model="test_vit", weights="data/timm.safetensors"),
        of_timm("test_vit"),
    ),
}
"""What makes the small experiment use a component, and the data that it needs."""


def test_every_bundled_component_is_among_them() -> None:
    registry = load_plugins().registry
    kinds = {kind for kind, _ in registry._components} - {"launcher"}  # tests/plugins/launchers kills those
    assert {f"{kind} {part.name}" for kind in kinds for part in registry.of_kind(kind)} == set(CHANGES)


@pytest.mark.parametrize("component", CHANGES)
def test_killed_in_a_step(component: str, table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """In the fifth step, when the discriminator has had its update, with a checkpoint of the third."""
    changes, data = CHANGES[component]
    table["train"] |= {"steps": 6, "checkpoint_every": 3, "ema": 0.9}
    table |= changes
    if data is not None:
        data(tmp_path / "data")
    file = write(table)
    whole = Child(Command("run", file, "--out", "whole"), tmp_path / "log")
    assert whole.ended() == 0, whole.said
    killed = Child(Command("run", file, "--out", "r", before=AtUpdate(4)), tmp_path / "log")
    assert killed.ended() == -signal.SIGKILL, killed.said
    again = Child(Command("run", file, "--out", "r", "--resume"), tmp_path / "log")
    assert again.ended() == 0, again.said
    assert "resuming r at step 3" in again.said
    assert_same_run(Path("whole"), Path("r"))
