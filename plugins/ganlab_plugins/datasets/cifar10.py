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
    Progress,
    Register,
    check_split,
    downloading,
    hookimpl,
    image_size,
    no_progress,
    one_line,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab import ImageDataset

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
JPEG_FOLDER = "cifar10-jpeg"


@frozen
class CIFAR10:
    """CIFAR-10: photographs of ten classes of animals and vehicles, with class labels.

    size: height and width in pixels; sizes other than 32 are resized.
    source: "original" is the published data, downloaded on first use. "jpeg" is a substitute for when it is not
        available: the same photographs after lossy JPEG compression, in `cifar10-jpeg/{train,test}/CLASS/*.jpg` in the
        data folder; the data set is then named "cifar10-jpeg", and an FID against it must never be compared with a
        published one. "auto" uses the original if it is present, else the JPEG files if they are present (with a
        warning), else downloads the original.
    """

    size: int = image_size(32)
    source: Literal["auto", "original", "jpeg"] = "auto"

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        from ganlab import ImageDataset, resize_images

        check_split("cifar10", split)
        if self._takes_jpeg(places.data):
            name = JPEG_FOLDER
            images, labels = _jpeg(places, split, progress)
        else:
            name = "cifar10"
            images, labels = _original(places, split)
        return ImageDataset(resize_images(images, self.size), name, split, labels, CLASSES)

    def _takes_jpeg(self, data: Path) -> bool:
        if self.source != "auto":
            return self.source == "jpeg"
        # A damaged original is downloaded again or refused, never silently replaced by the JPEG files.
        if (data / "cifar-10-batches-py").exists() or (data / "cifar-10-python.tar.gz").exists():
            return False
        if not (data / JPEG_FOLDER).is_dir():
            return False
        warnings.warn(
            f"cifar10: the original is not in {data}, so its lossy JPEG copy is used: scores against it are not "
            'comparable with published ones; source = "original" downloads the original',
            UserWarning,
            stacklevel=3,
        )
        return True


def _original(places: Places, split: str) -> tuple[Tensor, Tensor]:
    import torch
    import torchvision

    def read(download: bool) -> Any:
        # The files are pickles; torchvision reads them only after their MD5 sums match those of the published files.
        return torchvision.datasets.CIFAR10(str(places.data), train=split == "train", download=download)

    try:
        try:
            data = read(download=False)
        except RuntimeError:  # torchvision's error for files that are missing or not the published ones
            with downloading("cifar10", places.data, "cifar-10-python.tar.gz"):
                data = read(download=True)
    except OSError as error:
        raise ComponentError(f"cifar10: cannot read the files in {places.data} ({one_line(error)})") from error
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def _jpeg(places: Places, split: str, progress: Progress) -> tuple[Tensor, Tensor]:
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
    return decode_files(folder, names, size=32, cache=places.cache, progress=progress), torch.tensor(labels)


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("cifar10", CIFAR10)
