"""CIFAR-10: 50,000 and 10,000 colour photographs of 32x32 pixels in ten classes, downloaded on first use.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images, University of Toronto, 2009.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from ganlab import (
    ComponentError,
    DatasetConfig,
    Places,
    Register,
    check_split,
    downloading,
    hookimpl,
    image_size,
    one_line,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab import ImageDataset

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
JPEG_FOLDER = "cifar10-jpeg"


@frozen
class CIFAR10:
    """Photographs of ten kinds of animals and vehicles, with class labels.

    size: height and width in pixels; other than 32, the images are resized.
    source: "original" is the published data, downloaded on first use. "jpeg" is a stand-in for where it cannot be had:
        the same photographs after a JPEG compression that lost detail, in `cifar10-jpeg/{train,test}/CLASS/*.jpg` in
        the data folder; the data set is then named "cifar10-jpeg", and an FID against it must never be set beside a
        published one. "auto" takes the original where it is there, else the JPEG files where they are there (and
        warns), else downloads the original.
    """

    size: int = image_size(32)
    source: Literal["auto", "original", "jpeg"] = "auto"

    def build(self, places: Places, split: str) -> ImageDataset:
        from ganlab import ImageDataset
        from ganlab_plugins.datasets._image_decoding import resize_images

        check_split("cifar10", split)
        if self._takes_jpeg(places.data):
            name = JPEG_FOLDER
            images, labels = _jpeg(places, split)
        else:
            name = "cifar10"
            images, labels = _original(places, split)
        return ImageDataset(resize_images(images, self.size), name, split, labels, CLASSES)

    def _takes_jpeg(self, data: Path) -> bool:
        if self.source != "auto":
            return self.source == "jpeg"
        # A damaged original is still the original: it is mended by a download or refused, never quietly replaced.
        if (data / "cifar-10-batches-py").exists() or (data / "cifar-10-python.tar.gz").exists():
            return False
        if not (data / JPEG_FOLDER).is_dir():
            return False
        warnings.warn(
            f"cifar10: the original is not in {data}, so its JPEG copy is used, which has lost detail: scores against "
            'it do not compare with published ones; source = "original" downloads the original',
            UserWarning,
            stacklevel=3,
        )
        return True


def _original(places: Places, split: str) -> tuple[Tensor, Tensor]:
    import torch
    import torchvision

    def read(download: bool) -> Any:
        # The files are pickles; this reads them only after it has found their MD5 to be that of the published ones.
        return torchvision.datasets.CIFAR10(str(places.data), train=split == "train", download=download)

    try:
        try:
            data = read(download=False)
        except RuntimeError:  # torchvision's word for files that are not there, or not the published ones
            with downloading("cifar10", places.data, "cifar-10-python.tar.gz"):
                data = read(download=True)
    except OSError as error:
        raise ComponentError(f"cifar10: cannot read the files in {places.data} ({one_line(error)})") from error
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def _jpeg(places: Places, split: str) -> tuple[Tensor, Tensor]:
    import torch

    from ganlab_plugins.datasets._decoded_cache import decode_files

    folder = places.data / JPEG_FOLDER / split
    names, labels = [], []
    for label, kind in enumerate(CLASSES):
        files = sorted(path.name for path in (folder / kind).glob("*.jpg"))
        if not files:
            raise ComponentError(
                f"{JPEG_FOLDER}: there are no .jpg files in {folder / kind}; wanted {folder}/CLASS/*.jpg"
            )
        names += [f"{kind}/{file}" for file in files]
        labels += [label] * len(files)
    return decode_files(folder, names, size=32, cache=places.cache), torch.tensor(labels)


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("cifar10", CIFAR10)
