"""Values of what a game makes of a split, a value or a row for each image: what metrics of a game's outputs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab.protocols import Evaluation


def output_scores(evaluation: Evaluation, output: str, split: str, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Scores a game's output that is images against the images of a split: float64 (N, …), of all processes, in order.

    `score(output, images)` returns values (n,), or rows (n, …) such as features, of images (n, C, H, W), both float32
    in about [-1, 1]. Raises `ComponentError` where the output has another shape than the images.
    """
    import torch

    found = [torch.empty(0, dtype=torch.float64, device=evaluation.device)]
    done, total = 0, len(evaluation.dataset(split).images)
    for made, images, _ in evaluation.outputs(output, split):
        if made.shape != images.shape:
            got, wanted = tuple(made.shape[1:]), tuple(images.shape[1:])
            raise ComponentError(f"the output {output!r} has the shape {got}; wanted that of the images, {wanted}")
        found.append(score(made.float(), images).double())
        done += len(images)
        evaluation.progress(f"{output} of {split} images", done, total)
    return evaluation.gather(torch.cat(found))
