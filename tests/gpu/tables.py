"""The experiments of the GPU script, on noise or on the offline digits, so that nothing has to be had first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import noise_data

DIGITS = {
    "name": "digits",
    "dataset": {"name": "digits"},
    "generator": {"name": "mlp", "latent_dim": 8, "hidden": [16]},
    "discriminator": {"name": "mlp", "hidden": [16], "dropout": 0.0},
    "loss": {"name": "bce"},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "train": {"steps": 4, "batch_size": 16, "log_every": 2, "sample_count": 4, "ema": 0.9},
}
"""Two small multilayer perceptrons, without dropout, which on the CPU draws other random numbers."""


def mlp(width: int = 1024) -> dict[str, Any]:
    """The networks of experiments/mnist_mlp.toml, or narrower ones, on noise of MNIST's shape."""
    hidden = [width // 4, width // 2, width]
    return {
        "name": "mlp",
        "plugins": [noise_data.__file__],
        "dataset": {"name": "noise", "channels": 1, "size": 28, "count": 8192},
        "generator": {"name": "mlp", "latent_dim": 100, "hidden": hidden},
        "discriminator": {"name": "mlp", "hidden": hidden[::-1], "dropout": 0.3},
        "loss": {"name": "bce", "reduction": "sum"},
        "optimizer": {"name": "adam", "lr": 2e-4, "betas": [0.9, 0.999]},
        "train": {"steps": 1000, "batch_size": 128},
    }


def dcgan(size: int = 32, channels: int = 64, batch_size: int = 128, count: int = 4096) -> dict[str, Any]:
    """The networks of experiments/cifar_dcgan.toml, or narrower ones, on noise of CIFAR-10's shape or larger."""
    return {
        "name": f"dcgan{size}",
        "plugins": [noise_data.__file__],
        "dataset": {"name": "noise", "channels": 3, "size": size, "count": count},
        "generator": {"name": "dcgan", "channels": channels},
        "discriminator": {"name": "dcgan", "channels": channels},
        "loss": {"name": "bce"},
        "optimizer": {"name": "adam", "lr": 2e-4, "betas": [0.5, 0.999]},
        "train": {"steps": 1000, "batch_size": batch_size},
    }


def write(table: dict[str, Any], folder: Path, name: str = "") -> Path:
    """Writes an experiment as a file."""
    import tomli_w

    file = folder / f"{(name or table['name']).replace(' ', '_')}.toml"
    file.write_text(tomli_w.dumps(table))
    return file
