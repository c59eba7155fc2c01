"""Images of 16 bits: a folder of grey PNG or TIFF files, such as scans, depth maps or radiographs, with all levels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge
from PIL import Image, UnidentifiedImageError

import ganlab


def read(file: Path) -> torch.Tensor:
    """The levels of a picture, uint16 (1, H, W); one of 8 bits has 257 times its levels, so that white stays white."""
    try:
        with Image.open(file) as image:
            levels = np.array(image)
    except (OSError, UnidentifiedImageError) as error:
        raise ganlab.ComponentError(f"{file} cannot be read: {ganlab.one_line(error)}") from error
    if levels.ndim != 2 or levels.dtype not in (np.uint8, np.uint16, np.int32):
        raise ganlab.ComponentError(f"{file} is {levels.dtype} {levels.shape}; expected a grey picture")
    if levels.dtype == np.uint8:
        levels = levels * np.uint16(257)
    return torch.from_numpy(levels.astype(np.uint16))[None]


@frozen
class Grey16:
    """Grey images of 16 bits from a folder, in the order of their names; networks are given them in [-1, 1].

    folder: the folder; a relative path is relative to $GANLAB_DATA.
    test_every: of so many images one is in the test split.
    """

    folder: str = ganlab.location()
    test_every: int = field(default=10, validator=ge(2))

    def build(self, places: ganlab.Places, split: str) -> ganlab.ImageDataset:
        ganlab.check_split("grey16", split)
        folder = places.data / self.folder
        files = sorted(file for file in folder.glob("*") if file.suffix.lower() in (".png", ".tif", ".tiff"))
        mine = [file for number, file in enumerate(files) if (number % self.test_every == 0) == (split == "test")]
        if not mine:
            raise ganlab.ComponentError(f"{folder} has no .png or .tif files for the {split} split")
        return ganlab.ImageDataset(same_size([read(file) for file in mine], folder), Path(folder).name, split)


def same_size(images: Sequence[torch.Tensor], folder: Path) -> torch.Tensor:
    if sizes := {tuple(image.shape[1:]) for image in images[1:]} - {tuple(images[0].shape[1:])}:
        raise ganlab.ComponentError(f"{folder}: expected images of one size, got also {sorted(sizes)[0]}")
    return torch.stack(list(images))


@ganlab.hookimpl
def register_datasets(register: ganlab.Register[ganlab.DatasetConfig]) -> None:
    register("grey16", Grey16)
