"""MNIST and Fashion-MNIST: 60,000 and 10,000 grey images of 28x28 pixels each, downloaded on first use.

Sources: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition,
Proceedings of the IEEE 86(11), 1998; H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017, arXiv:1708.07747.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from ganlab import ImageDataset


FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@frozen
class MNIST:
    """MNIST: handwritten digits with class labels, from `MNIST/raw` in the data folder.

    size: height and width in pixels; sizes other than 28 are resized.
    """

    size: int = image_size(28)

    def build(self, places: Places, split: str) -> ImageDataset:
        return _build("mnist", "MNIST", self.size, places, split)


@frozen
class FashionMNIST:
    """Fashion-MNIST: grey photographs of clothes with class labels, from `FashionMNIST/raw` in the data folder.

    size: height and width in pixels; sizes other than 28 are resized.
    """

    size: int = image_size(28)

    def build(self, places: Places, split: str) -> ImageDataset:
        return _build("fashion_mnist", "FashionMNIST", self.size, places, split)


def _build(name: str, torchvision_name: str, size: int, places: Places, split: str) -> ImageDataset:
    import torchvision

    from ganlab import ImageDataset, resize_images

    check_split(name, split)
    reader = getattr(torchvision.datasets, torchvision_name)
    raw = places.data / torchvision_name / "raw"

    def read(download: bool) -> Any:
        return reader(str(places.data), train=split == "train", download=download)

    try:
        if all((raw / file).is_file() for file in FILES):
            data = read(download=False)
        else:
            with downloading(name, places.data, f"{torchvision_name}/raw/{', '.join(FILES)}"):
                data = read(download=True)
    except (OSError, RuntimeError, AssertionError, ValueError, KeyError) as error:
        raise ComponentError(
            f"{name}: a file in {raw} is unreadable or damaged ({one_line(error)}); remove it to download it again"
        ) from error
    return ImageDataset(
        resize_images(data.data.unsqueeze(1), size),
        name,
        split,
        data.targets.long(),
        tuple(str(c) for c in data.classes),
    )


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("mnist", MNIST)
    register("fashion_mnist", FashionMNIST)
