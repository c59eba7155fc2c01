"""The conformance suite on every bundled component: each passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bad_plugins import faults
from data_files import (
    celeba,
    cifar10,
    folder_of_images,
    inception,
    mnist,
    of_timm,
    pairs_of_images,
    parquet,
    squeezenet,
    two_domains,
)
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.testing import conformance
from tiers import spread

pytestmark = pytest.mark.usefixtures("quick_timing")


ENCODER = {"name": "mlp_encoder", "hidden": [8], "latent_dim": 2}

OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "dataset mnist": ({}, mnist),
    "dataset fashion_mnist": ({}, mnist),
    "dataset stacked_mnist": ({"count": 50}, mnist),
    "dataset cifar10": ({}, cifar10),
    "dataset celeba": ({"size": 8}, celeba),
    "dataset huggingface": ({"path": "hub", "size": 8}, parquet),
    "dataset image_folder": ({"path": "folder", "size": 8}, folder_of_images),
    "dataset ring": ({"count": 1000}, None),
    "dataset grid": ({"count": 1000}, None),
    "dataset photographs": ({"size": 8, "stride": 32}, None),
    "dataset degraded": ({"smaller": 2, "noise": 5.0}, None),
    "dataset blended": ({"over": {"name": "photographs", "size": 8, "stride": 32}}, None),
    "dataset image_pairs": ({"path": "pairs/train", "test_path": "pairs/test", "size": 8}, pairs_of_images),
    "dataset unpaired": ({"path": "domains", "size": 8}, two_domains),
    "features classifier": ({"updates": 10, "dim": 8}, None),
    "features inception": ({"weights": "data/inception.pth"}, inception),
    "features timm": ({"model": "test_vit", "weights": "data/timm.safetensors"}, of_timm("test_vit")),
    "game cut": (
        {
            "source": {"name": "photographs", "size": 8, "stride": 64},
            "generator": {"name": "resnet_translator", "channels": 2, "blocks": 1, "halvings": 1},
            **{"patches": 8, "dim": 8},
        },
        None,
    ),
    # What it judges are pairs with the codes, and the suite's own discriminator does not look at these.
    "game bigan": ({"discriminator": {"name": "mlp_joint", "hidden": [8]}}, None),
    "game vae_gan": ({"discriminator": {"name": "mlp", "hidden": [8]}, "encoder": ENCODER}, None),
    "game infogan": (
        {
            "generator": {"name": "mlp", "latent_dim": 9, "hidden": [8]},
            "discriminator": {"name": "mlp", "hidden": [8]},
            **{"categories": [3, 2], "continuous": 1, "hidden": 8},
        },
        None,
    ),
    "game aae": ({"encoder": ENCODER}, None),
    "game pix2pix": ({"perceptual": 1.0, "content": {"name": "vgg", "layers": 3, "channels": 8}}, None),
    "game pixelda": (
        {
            "source": {"name": "digits"},
            "generator": {"name": "resnet_translator", "channels": 4, "blocks": 1, "halvings": 1, "norm": "none"},
            "channels": 4,
        },
        None,
    ),
    "game vqgan": ({"codes": 8, "dim": 4, "channels": 4, "blocks": 1, "halvings": 1}, None),
    "generator unet": ({"channels": 8}, None),
    "generator dcgan_encoder": ({"channels": 8}, None),
    "generator resnet_translator": ({"channels": 4, "blocks": 2}, None),
    "discriminator patchgan": ({"channels": 8, "halvings": 1}, None),
    # Not the cluster of another test, which takes nodes away from it.
    "launcher ray": ({"address": "local"}, None),
    "launcher slurm": ({"cluster": "local"}, None),
    "metric kid": ({"subsets": 2, "subset_size": 8}, None),
    "metric ssim": ({"window": 7}, None),
    "metric lpips": ({"weights": "data/squeeze.safetensors", "network": "squeeze", "enlarge": 3}, squeezenet),
    "features lpips": ({"weights": "data/squeeze.safetensors", "network": "squeeze", "enlarge": 3}, squeezenet),
    "discriminator vgg": ({"layers": 3, "channels": 8}, None),
}
"""What a component needs besides its defaults: options, and files in the data folder."""


REFUSED = {
    "loss_wrapper label_smoothing": "refuses a loss without label targets",
}
"""What is refused and said, though nothing is at fault."""


BUNDLED = {f"{part.kind} {part.name}": part for kind in KINDS for part in load_plugins().registry.of_kind(kind)}


# They are what `timm` is, with one network's name, and take half a minute.
del BUNDLED["features dinov2"], BUNDLED["features clip"]


SMALL: list[tuple[str, dict[str, Any]]] = [
    ("generator resnet", {"channels": 8}),
    ("discriminator resnet", {"channels": 8}),
    ("generator r3gan", {"widths": [16, 16, 16, 16]}),
    ("discriminator r3gan", {"widths": [16, 16, 16, 16]}),
    # The gain of self-attention is a parameter without dimensions.
    ("discriminator dcgan", {"channels": 4, "attention": [8]}),
    # Only a penalty trains the head.
    ("discriminator mlp", {"hidden": [8], "head": "class_logits"}),
]
"""Networks with few channels, and with options that the defaults leave out."""


LARGE = ["generator resnet", "discriminator resnet", "generator r3gan", "discriminator r3gan"]
"""Networks that take long with their default widths, which are checked too, but not in the default run."""


SLOW = {
    **dict.fromkeys([*LARGE, "features inception"], pytest.mark.large),
    "launcher ray": pytest.mark.ray,
    **dict.fromkeys(["tracker mlflow", "tracker wandb", "tracker trackio"], pytest.mark.slow),
}
"""Those that are checked in the extended tier, and why."""


KEPT = {next(name for name in BUNDLED if name.startswith(f"{kind} ") and name not in SLOW) for kind in KINDS}
"""One component of each kind, which is checked in the default tier."""


def bundled_case(component: str) -> Any:
    marks = [] if component in KEPT else [pytest.mark.extended, SLOW.get(component, pytest.mark.slow)]
    return pytest.param(component, marks=marks)


@pytest.mark.parametrize("component", [bundled_case(component) for component in BUNDLED])
def test_a_bundled_component_passes(component: str, tmp_path: Path) -> None:
    options, data = OPTIONS.get(component, ({}, None))
    if data is not None:
        data(tmp_path / "data")
    passes(component, options)


MORE: list[tuple[str, dict[str, Any]]] = [
    ("generator dcgan", {"channels": 4, "attention": [8]}),
    ("generator resnet", {"channels": 8, "attention": [8]}),
    # Only a penalty trains the head.
    ("discriminator dcgan", {"channels": 4, "head": "class_logits"}),
    ("discriminator resnet", {"channels": 8, "head": "class_logits"}),
]
"""More of them, in the extended tier."""


@pytest.mark.parametrize(
    ("component", "options"),
    spread(2, [*SMALL, *(pytest.param(*case, marks=[pytest.mark.extended, pytest.mark.slow]) for case in MORE)]),
    ids=str,
)
def test_a_bundled_network_passes_with_few_channels(component: str, options: dict[str, Any]) -> None:
    passes(component, options)


def passes(component: str, options: dict[str, Any]) -> None:
    """Runs the conformance suite on a bundled component with these options: nothing is at fault or left out."""
    part = BUNDLED[component]
    (subject,) = [
        subject
        for subject in conformance(str(part.origin.file), {part.kind: {part.name: options}} if options else None)
        if (subject.kind, subject.name) == (part.kind, part.name)
    ]
    checks = subject.check()
    assert faults(checks) == []
    # Some of the small data sets have no test split; nothing else may be refused or left out.
    assert [str(found) for found in checks if found.result != "passed" and "test split:" not in found.what] == []
    assert REFUSED.get(component, "") in " ".join(found.detail for found in checks)
