"""The protocols of a data set and of its configuration: what `[dataset]` builds."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from ganlab.utils.paths import Places
from ganlab.utils.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab.protocols.condition import Condition


class Dataset(Protocol):
    """A data set's protocol: images as one uint8 tensor (N, C, H, W) on the CPU, as in `ganlab.ImageDataset`.

    They may also be uint16 or float32, and signals (N, C, T) or rows of a table (N, D): `images` all the same.
    The images are read-only. They may be memory-mapped (`ganlab.MappedImages`), so read them in slices.

    `condition` is None or has one entry for each image: class labels (N,) int64, images (N, C, H, W) uint8 or uint16,
    or attributes or images float32 (N, K, …); or it is a mapping of several such tensors by name.
    `fingerprint` is a sha256 of the pixels, which a score records as its reference data.

    Optional attribute `weights`, float (N,): how often each image is drawn in training, relative to the others.
    """

    @property
    def images(self) -> Tensor: ...

    @property
    def condition(self) -> Condition: ...

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class DatasetConfig(Protocol):
    """A data set's protocol, its configuration: its options in the experiment file, and `build`.

    A data set that may take long to load declares `progress` as in `ReportingDatasetConfig`.
    """

    def build(self, places: Places, split: str, /) -> Dataset:
        """A data set's protocol: loads the split "train" or "test", and downloads it first where that is possible.

        Raises `ComponentError` for missing or unreadable data, or `NoSplit`, one of these, for a split that does not
        exist.
        """
        ...


class ReportingDatasetConfig(Protocol):
    """A data set's protocol, its configuration, where `build` reports its progress: optional.

    While it works, `build` calls `progress(what, done, total)` several times a second, from the main thread. What that
    raises (KeyboardInterrupt, once a signal has asked the run to stop) ends the loading.
    """

    def build(self, places: Places, split: str, progress: Progress = ...) -> Dataset: ...


def build_dataset(config: DatasetConfig, places: Places, split: str, progress: Progress) -> Dataset:
    """Builds a data set, with `progress` where its configuration is a `ReportingDatasetConfig`."""
    build: Any = config.build
    if "progress" in inspect.signature(build).parameters:
        return cast("ReportingDatasetConfig", config).build(places, split, progress=progress)
    return config.build(places, split)
