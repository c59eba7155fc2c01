"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, available without a download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49; scikit-learn ships its test set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import ge, le

from ganlab import (
    DatasetConfig,
    Places,
    Register,
    check_split,
    hookimpl,
    image_size,
)

if TYPE_CHECKING:
    from ganlab import ImageDataset

TEST_IMAGES = 297


@frozen
class Digits:
    """Grey images of digits with class labels, from scikit-learn.

    There is no official split: the last 297 images in file order are used as the test split, the first 1,500 as the
    training split.

    size: height and width in pixels; sizes other than 8 are resized.
    margin: pixels of black on each side, within `size`, as MNIST's digits have 4 of 28; here a digit fills its image.
    """

    size: int = image_size(8)
    margin: int = field(default=0, validator=[ge(0), le(2**16)])

    def __attrs_post_init__(self) -> None:
        if 2 * self.margin >= self.size:
            raise ValueError(f"margin: {self.margin} on both sides leaves nothing of size = {self.size}")

    def build(self, places: Places, split: str) -> ImageDataset:
        import torch
        from sklearn.datasets import load_digits

        from ganlab import ImageDataset, resize_images

        check_split("digits", split)
        digits = load_digits()
        part = slice(-TEST_IMAGES, None) if split == "test" else slice(None, -TEST_IMAGES)
        # The values range from 0 to 16.
        images = torch.from_numpy(digits.images[part]).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        margin = self.margin
        return ImageDataset(
            torch.nn.functional.pad(resize_images(images, self.size - 2 * margin), (margin,) * 4),
            "digits",
            split,
            torch.from_numpy(digits.target[part]).long(),
            tuple(str(name) for name in digits.target_names),
        )


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("digits", Digits)
