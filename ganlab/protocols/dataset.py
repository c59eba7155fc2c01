"""ganlab.protocols.dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ganlab.utils.paths import Places

if TYPE_CHECKING:
    from torch import Tensor


class Dataset(Protocol):
    """Images held as one uint8 tensor (N, C, H, W), on the CPU; `ganlab.ImageDataset` is one.

    The images are to be read, not written. They may lie in a file (`ganlab.MappedImages`), so take a part at a time.

    `condition` is None or one entry an image: class labels (N,) int64, or images (N, C, H, W) uint8. `fingerprint`
    is a sha256 of the pixels, so that a score can say what it was measured against.
    """

    @property
    def images(self) -> Tensor: ...

    @property
    def condition(self) -> Tensor | None: ...

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class DatasetConfig(Protocol):
    """The options of a data set."""

    def build(self, places: Places, split: str, /) -> Dataset:
        """Loads "train" or "test", downloading it first where that is possible.

        Raises `ComponentError` for data that is missing or unreadable, or for a split that there is none of.
        """
        ...
