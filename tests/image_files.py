"""Image files that tests write, and what an image folder makes of them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from ganlab import Places
from ganlab_plugins.datasets.image_folder import ImageFolder

RNG = np.random.default_rng(0)


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None) -> np.ndarray:
    pixels = noise(8, 8, 3) if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_idx(path: Path, values: np.ndarray) -> None:
    """MNIST's own format: two zero bytes, the type (8 is uint8), the number of axes, each length, the data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def built(places: Places, split: str = "train", **options: object) -> np.ndarray:
    return ImageFolder(**{"path": "set", "size": 8, **options}).build(places, split).images.numpy()  # type: ignore[arg-type]


def hwc(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)
