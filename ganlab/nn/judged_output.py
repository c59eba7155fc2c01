"""The output of a network that judges images: bare logits, or an object that has them together with class logits."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import Tensor

from ganlab.protocols.logits import logits_per_image


@frozen
class Judged:
    """The output of a classifying discriminator: `logits` (N,) of being real, and `class_logits` (N, classes)."""

    logits: Tensor
    class_logits: Tensor


def logits(output: Any) -> Tensor:
    """Returns the logits, float32 (N,), of a discriminator's output: means over patches, and over several tensors."""
    return logits_per_image(output).float()
