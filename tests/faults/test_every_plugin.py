"""Every bundled component in a run that is killed in the middle of a step, held against one that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from children import Child, Command
from data_files import (
    celeba,
    cifar10,
    inception,
    mnist,
    of_timm,
    pairs_of_images,
    parquet,
    quarters,
    squeezenet,
    two_domains,
)
from ganlab.plugin.loader import load_plugins
from run_folders import assert_same_run
from saboteur import AtUpdate, InEnvironment
from test_distributed import environments

Write = Callable[..., Path]

MLP = {"name": "mlp", "hidden": [16]}
DCGAN = {"name": "dcgan", "channels": 4}
SIXTEEN = {"name": "digits", "size": 16}
CLASSIFIER = {"name": "classifier", "updates": 10, "dim": 8}
SCORED = {"samples": 16, "features": CLASSIFIER}


SQUEEZE = {"weights": "data/squeeze.safetensors", "network": "squeeze", "enlarge": 3}

TEST_VIT = {"model": "test_vit", "weights": "data/timm.safetensors"}
FOLDER = {"name": "image_folder", "path": "folder", "size": 8}


def features(**table: Any) -> dict[str, Any]:
    return {"metric": [{"name": "fid", "samples": 16, "features": table}], "floor": False}


def large_features(**table: Any) -> dict[str, Any]:
    """Which take so long that the data must be few, and are so many that FID's algebra would take longer still."""
    metric = {"name": "kid", "samples": 4, "subsets": 2, "subset_size": 4, "features": table}
    return {"dataset": FOLDER, "metric": [metric], "floor": False}


CHANGES: dict[str, tuple[dict[str, Any], Callable[[Path], None] | None]] = {
    "game gan, generator mlp, discriminator mlp, loss bce, optimizer adam, dataset digits": ({}, None),
    "generator dcgan, discriminator dcgan": (
        {"dataset": SIXTEEN, "generator": {**DCGAN, "latent_dim": 8}, "discriminator": DCGAN},
        None,
    ),
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
    "generator conditional, discriminator conditional, metric class_accuracy, features classifier": (
        {
            "generator": {"name": "conditional", "network": {**MLP, "latent_dim": 8}},
            "discriminator": {"name": "conditional", "network": MLP},
            "metric": [{"name": "class_accuracy", "every": 2, **SCORED}],
        },
        None,
    ),
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
    "dataset ring, loss relativistic, features pixels": (
        {"dataset": {"name": "ring", "count": 100}, "loss": "relativistic", **features(name="pixels")},
        None,
    ),
    "dataset grid, loss minimax, penalty l2_generator": (
        {
            "dataset": {"name": "grid", "count": 100},
            "loss": "minimax",
            "penalty": [{"name": "l2_generator", "weight": 0.01, "every": 2}],
        },
        None,
    ),
    "dataset mnist, loss_wrapper label_smoothing, optimizer sgd": (
        {
            "dataset": "mnist",
            "loss_wrapper": [{"name": "label_smoothing"}],
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        },
        mnist,
    ),
    "dataset fashion_mnist, loss least_squares, optimizer rmsprop": (
        {"dataset": "fashion_mnist", "loss": "least_squares", "optimizer": {"name": "rmsprop", "lr": 1e-3}},
        mnist,
    ),
    "dataset stacked_mnist": ({"dataset": {"name": "stacked_mnist", "count": 50}}, mnist),
    "dataset cifar10": ({"dataset": "cifar10"}, cifar10),
    "dataset celeba": ({"dataset": {"name": "celeba", "size": 8}}, celeba),
    "dataset huggingface": ({"dataset": {"name": "huggingface", "path": "hub", "size": 8}}, parquet),
    "dataset glyphs, game pix2pix, generator unet, discriminator patchgan, metric psnr, metric ssim, "
    "metric reconstruction_error, metric output_fid": (
        {
            "game": "pix2pix",
            "metric": [
                {"name": "psnr", "every": 2},
                {"name": "ssim", "every": 2, "window": 7},
                {"name": "reconstruction_error", "every": 2, "output": "translation"},
                {"name": "output_fid", "every": 2, "features": "pixels"},
            ],
            "dataset": {"name": "glyphs", "size": 8},
            "generator": {"name": "unet", "channels": 4},
            "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1},
        },
        None,
    ),
    "game cyclegan, generator resnet_translator": (
        {
            "game": {"name": "cyclegan", "pool": 20},
            "dataset": SIXTEEN,
            "source": SIXTEEN,
            "generator": {"name": "resnet_translator", "channels": 4, "blocks": 1},
        },
        None,
    ),
    "game cut": (
        {
            "game": {"name": "cut", "patches": 8, "dim": 8},
            "dataset": SIXTEEN,
            "source": SIXTEEN,
            "generator": {"name": "resnet_translator", "channels": 4, "blocks": 1},
        },
        None,
    ),
    "game vae_gan, generator mlp_encoder": (
        {"game": "vae_gan", "encoder": {"name": "mlp_encoder", "hidden": [8], "latent_dim": 2}},
        None,
    ),
    "game aae, generator dcgan_encoder": (
        {"game": "aae", "dataset": SIXTEEN, "encoder": {"name": "dcgan_encoder", "channels": 4}},
        None,
    ),
    "game bigan, discriminator mlp_joint": (
        {
            "game": "bigan",
            "encoder": {"name": "mlp_encoder", "hidden": [8]},
            "discriminator": {"name": "mlp_joint", "hidden": [8], "dropout": 0.2},
        },
        None,
    ),
    "game infogan, metric code_accuracy": (
        {
            "game": {"name": "infogan", "categories": [3], "continuous": 1, "hidden": 8},
            "metric": [{"name": "code_accuracy", "every": 2}],
        },
        None,
    ),
    "game pixelda, metric target_accuracy": (
        {
            "game": {"name": "pixelda", "channels": 4},
            "metric": [{"name": "target_accuracy", "every": 2}],
            "dataset": {"name": "digits"},
            "source": {"name": "digits"},
            "generator": {"name": "resnet_translator", "channels": 4, "blocks": 1, "latent_dim": 2, "latent_maps": 1},
            "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1},
        },
        None,
    ),
    "game vqgan, metric codebook_use": (
        {
            "game": {"name": "vqgan", "start": 1, "codes": 8, "dim": 4, "channels": 4, "blocks": 1, "halvings": 1},
            "metric": [{"name": "codebook_use", "every": 2}],
            "generator": None,
            "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1},
            "loss": "hinge",
        },
        None,
    ),
    "dataset degraded, dataset photographs, game pix2pix, discriminator vgg, metric lpips, features lpips": (
        {
            "game": {"name": "pix2pix", "perceptual": 1.0},
            "dataset": {
                "name": "degraded",
                "dataset": {"name": "photographs", "size": 8, "stride": 64},
                **{"blur": 1.0, "smaller": 2, "grey": True, "hole": 0.2, "noise": 5.0},
            },
            "generator": {"name": "unet", "channels": 4},
            "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1},
            "content": {"name": "vgg", "layers": 3, "channels": 4},
            "metric": [
                {"name": "lpips", **SQUEEZE},
                {"name": "cmmd", "samples": 4, "features": {"name": "lpips", **SQUEEZE}},
            ],
            "floor": False,
        },
        squeezenet,
    ),
    "dataset blended": (
        {"dataset": {"name": "blended", "over": {"name": "photographs", "size": 8, "stride": 32}}},
        None,
    ),
    "dataset image_pairs": ({"dataset": {"name": "image_pairs", "path": "pairs/train", "size": 8}}, pairs_of_images),
    "dataset unpaired": ({"dataset": {"name": "unpaired", "path": "domains", "size": 8}}, two_domains),
    "metric fid, metric kid, metric precision_recall, metric inception_score, metric mode_coverage, metric cmmd": (
        {
            "metric": [
                {"name": "fid", "every": 2, **SCORED},
                {"name": "kid", "every": 2, "subsets": 2, "subset_size": 8, **SCORED},
                *({"name": name, "every": 2, **SCORED} for name in ("precision_recall", "inception_score", "cmmd")),
                {"name": "mode_coverage", "every": 2, **SCORED},
            ]
        },
        None,
    ),
    "tracker csv, tracker tensorboard, tracker mlflow": ({"tracker": ["csv", "tensorboard", "mlflow"]}, None),
    "features inception": (large_features(name="inception", weights="data/inception.pth"), inception),
    "metric sfid": (
        {
            "plugins": ["data/quarters.py"],
            "metric": [{"name": "sfid", "every": 2, "samples": 16, "features": "quarters"}],
            "floor": False,
        },
        quarters,
    ),
    "features dinov2": (
        large_features(name="dinov2", size="small", weights="data/timm.safetensors"),
        of_timm("vit_small_patch14_dinov2.lvd142m"),
    ),
    "features timm, features clip, dataset image_folder": (
        {
            "dataset": FOLDER,
            "metric": [
                {"name": metric, "samples": 4, "features": {"name": name, **TEST_VIT}}
                for metric, name in (("fid", "timm"), ("cmmd", "clip"))
            ],
            "floor": False,
        },
        of_timm("test_vit", classes=7),  # in the place of CLIP's projection
    ),
}
"""What makes the small experiment use a component, or some at once (None: without the table), and the data it needs."""


def test_every_bundled_component_is_among_them() -> None:
    registry = load_plugins().registry
    kinds = {kind for kind, _ in registry._components} - {"launcher"}  # tests/plugins/launchers kills those
    among = {component for together in CHANGES for component in together.split(", ")}
    among |= {"tracker wandb", "tracker trackio"}  # tests/plugins/trackers kills those
    assert {f"{kind} {part.name}" for kind in kinds for part in registry.of_kind(kind)} == among


FIRST, *OTHERS = CHANGES
ON_TWO = (
    "game cyclegan, generator resnet_translator",
    "game cut",
    "game pixelda, metric target_accuracy",
    "game vqgan, metric codebook_use",
    "game vae_gan, generator mlp_encoder",
    "game aae, generator dcgan_encoder",
    "game bigan, discriminator mlp_joint",
    "game infogan, metric code_accuracy",
    "dataset degraded, dataset photographs, game pix2pix, discriminator vgg, metric lpips, features lpips",
)
"""What is killed on two processes too: games with moves of several players and data sets, and frozen networks."""


@pytest.mark.kill
@pytest.mark.parametrize("together", [FIRST, *(pytest.param(one, marks=pytest.mark.extended) for one in OTHERS)])
def test_killed_in_a_step(together: str, table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """In the fifth step, when all moves but the last have had their update, with a checkpoint of the third."""
    data = CHANGES[together][1]
    if data is not None:
        data(tmp_path / "data")
    file = write(with_changes(table, together))
    whole = Child(Command("run", file, "--out", "whole"), tmp_path / "log")
    assert whole.ended() == 0, whole.said
    killed = Child(Command("run", file, "--out", "r", before=AtUpdate(4)), tmp_path / "log")
    assert killed.ended() == -signal.SIGKILL, killed.said
    again = Child(Command("run", file, "--out", "r", "--resume"), tmp_path / "log")
    assert again.ended() == 0, again.said
    assert "resuming r at step 3" in again.said
    assert_same_run(Path("whole"), Path("r"))


def with_changes(table: dict[str, Any], together: str) -> dict[str, Any]:
    """The small experiment as it uses some components."""
    table["train"] |= {"steps": 6, "checkpoint_every": 3, "ema": 0.9}
    return {key: value for key, value in (table | CHANGES[together][0]).items() if value is not None}


@pytest.mark.extended
@pytest.mark.torchrun
@pytest.mark.parametrize("together", ON_TWO)
def test_killed_in_a_step_on_two_processes(together: str, table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """As on one; both are killed, as by a machine that stops."""
    if (data := CHANGES[together][1]) is not None:
        data(tmp_path / "data")
    file = write(with_changes(table, together))

    def run(*arguments: object, dies: bool = False) -> list[int]:
        children = []
        for rank, environment in enumerate(environments(2)):
            before = InEnvironment(environment, 4 if dies else None)
            command = Command("run", file, "--device", "cpu", *arguments, before=before)
            children.append(Child(command, tmp_path / f"{rank}.log"))
        return [child.ended() for child in children]

    assert run("--out", "whole") == [0, 0]
    assert run("--out", "r", dies=True) == [-signal.SIGKILL] * 2
    assert run("--out", "r", "--resume") == [0, 0]
    assert "resuming r at step 3" in (tmp_path / "0.log").read_text()
    assert_same_run(Path("whole"), Path("r"))
