"""The logits in what a discriminator returns: of any shape, one tensor or several, and as one number for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor


def all_logits(output: Any) -> tuple[Tensor, ...]:
    """Returns the logits of a discriminator's output: (N,), or (N, …) such as maps of patches; a list has several.

    The output is a tensor, an object that has them as `logits`, or a list of these.
    Raises `ComponentError` for anything else.
    """
    import torch

    if isinstance(output, list) and output:
        return tuple(tensor for part in output for tensor in all_logits(part))
    found = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
    if isinstance(found, list):
        return all_logits(found)
    if not isinstance(found, torch.Tensor):
        raise ComponentError(
            f"returns {type(output).__name__}; expected a tensor of logits, an object that has them as 'logits', or a "
            "list of these"
        )
    return (found,)


def logits_per_image(output: Any) -> Tensor:
    """Returns the logits of a discriminator's output as (N,): means over patches and over several tensors."""
    import torch

    rows = [part if part.ndim == 1 else part.flatten(1).mean(1) for part in all_logits(output)]
    return rows[0] if len(rows) == 1 else torch.stack(rows).mean(0)
