"""ganlab.nn.outputs."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import Tensor


@frozen
class Judged:
    """What a discriminator that also classifies says: `logits` (N,) of being real, `class_logits` (N, classes)."""

    logits: Tensor
    class_logits: Tensor


def logits(output: Any) -> Tensor:
    """The logits, float32 (N,), of what a discriminator returned."""
    tensor: Tensor = output if isinstance(output, Tensor) else output.logits
    return tensor.float()
