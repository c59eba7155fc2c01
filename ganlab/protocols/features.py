"""The protocols of a feature extractor and of its configuration: the features that metrics such as FID compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ganlab.protocols.metric import Evaluation

if TYPE_CHECKING:
    from torch import Tensor


class Features(Protocol):
    """A feature extractor's protocol: maps uint8 images (N, C, H, W) to float32 features (N, dim).

    Optional attribute `takes`, as of a metric: with "any" it maps data of the data set's own type and shape.

    `fingerprint` is a hash of its weights, and `preprocessing` describes how images are resized and normalised: both
    are part of a score's protocol.

    Optional method `spatial(images)`, of images as above: features float32 (N, spatial_dim) that keep what lies where,
    with the attribute `spatial_dim`.

    Optional methods of an extractor that is also a classifier:
    `logits(images)` returns class logits (N, classes) of uint8 images (N, C, H, W).
    `belongs(images)` returns a bool (N,): whether an image belongs to any class.

    Optional method `with_gradients(images)`: features (N, dim), with gradients, of float images (N, C, H, W) in
    [-1, 1]. `ganlab project` compares images by them.
    """

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def preprocessing(self) -> str: ...

    def __call__(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class FeaturesConfig(Protocol):
    """A feature extractor's protocol, its configuration: its options in the experiment file, and `build`.

    Optional attribute `takes`, as of a metric; it says before training what its extractor takes.
    """

    def build(self, evaluation: Evaluation, /) -> Features:
        """A feature extractor's protocol: loads or trains it; raises `ComponentError` where that is impossible."""
        ...
