"""ganlab.protocols.features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ganlab.protocols.metric import Evaluation

if TYPE_CHECKING:
    from torch import Tensor


class Features(Protocol):
    """Maps uint8 images (N, C, H, W) to float32 features (N, dim). `fingerprint` is a hash of its weights.

    Features that also classify may have `logits(images)`: class logits (N, classes) of uint8 images (N, C, H, W).
    Features that can tell that an image is of no class may have `belongs(images)`: bool (N,).
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
    """The options of a feature extractor."""

    def build(self, evaluation: Evaluation, /) -> Features:
        """Loads or trains the network; raises `ComponentError` where it cannot."""
        ...
