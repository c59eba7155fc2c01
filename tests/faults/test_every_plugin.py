"""Every bundled component in a run that is killed in the middle of a step, held against one that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from children import Child, Command
from data_files import celeba, cifar10, folder_of_images, inception, mnist, of_timm, parquet
from ganlab.plugin.loader import load_plugins
from run_folders import assert_same_run
from saboteur import AtUpdate

Write = Callable[..., Path]

MLP = {"name": "mlp", "hidden": [16]}
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
    "loss hinge, penalty r1, penalty orthogonal, penalty consistency, augmentation flip": (
        {
            "loss": "hinge",
            "penalty": [{"name": "r1", "every": 2}, {"name": "orthogonal"}, {"name": "consistency"}],
            "augmentation": ["flip"],
        },
        None,
    ),
    "loss wasserstein, penalty gradient_penalty, augmentation diffaugment": (
        {"loss": "wasserstein", "penalty": ["gradient_penalty"], "augmentation": ["diffaugment"]},
        None,
    ),
    "loss value, penalty dragan, penalty path_length, augmentation ada, discriminator packed": (
        {
            "loss": "value",
            "penalty": ["dragan", "path_length"],
            "augmentation": [{"name": "ada", "p": 0.2, "interval": 32, "ramp": 500}],
            "discriminator": {"name": "packed", "network": MLP},
        },
        None,
    ),
    "loss relativistic_average, penalty r2, generator resnet, discriminator resnet": (
        {
            "loss": "relativistic_average",
            "penalty": ["r2"],
            "generator": {"name": "resnet", "latent_dim": 8, "channels": 4},
            "discriminator": {"name": "resnet", "channels": 4},
        },
        None,
    ),
    "generator r3gan, discriminator r3gan, penalty class_loss": (
        {
            "generator": {"name": "r3gan", "latent_dim": 8, "widths": [8, 4], "group_width": 4},
            "discriminator": {"name": "r3gan", "widths": [4, 8], "group_width": 4, "head": "class_logits"},
            "penalty": ["class_loss", {"name": "class_loss", "player": "generator"}],
        },
        None,
    ),
    "generator conditional, discriminator conditional, metric class_accuracy": (
        {
            "generator": {"name": "conditional", "network": {**MLP, "latent_dim": 8}},
            "discriminator": {"name": "conditional", "network": MLP},
            "metric": [{"name": "class_accuracy", "every": 2, **SCORED}],
        },
        None,
    ),
    "optimizer adam": ({}, None),
    "optimizer sgd": ({"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}}, None),
    "optimizer rmsprop": ({"optimizer": {"name": "rmsprop", "lr": 1e-3}}, None),
    "schedule constant, schedule linear, schedule cosine": (
        {
            "penalty": [{"name": "r1", "every": 2}],
            "schedule": [
                {"name": "constant", "key": "generator.optimizer.lr", "warmup": 3},
                {"name": "linear", "key": "penalty.0.gamma", "to": 1.0},
                {"name": "cosine", "key": "discriminator.optimizer.betas.1", "to": 0.9},
            ],
        },
        None,
    ),
    "dataset digits": ({}, None),
    "dataset ring": ({"dataset": {"name": "ring", "count": 100}}, None),
    "dataset grid": ({"dataset": {"name": "grid", "count": 100}}, None),
    "dataset mnist": ({"dataset": "mnist"}, mnist),
    "dataset fashion_mnist": ({"dataset": "fashion_mnist"}, mnist),
    "dataset stacked_mnist": ({"dataset": {"name": "stacked_mnist", "count": 50}}, mnist),
    "dataset cifar10": ({"dataset": "cifar10"}, cifar10),
    "dataset celeba": ({"dataset": {"name": "celeba", "size": 8}}, celeba),
    "dataset huggingface": ({"dataset": {"name": "huggingface", "path": "hub", "size": 8}}, parquet),
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
"""What makes the small experiment use a component, or some at once, and the data that it needs."""


def test_every_bundled_component_is_among_them() -> None:
    registry = load_plugins().registry
    kinds = {kind for kind, _ in registry._components} - {"launcher"}  # tests/plugins/launchers kills those
    among = {component for together in CHANGES for component in together.split(", ")}
    assert {f"{kind} {part.name}" for kind in kinds for part in registry.of_kind(kind)} == among


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
