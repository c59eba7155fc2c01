"""Code accuracy: how well a code that was learnt without labels finds the classes, by the best one-to-one assignment.

InfoGAN reports it for MNIST: each value of the categorical code is matched with a digit (Chen et al. 2016,
arXiv:1606.03657, section 7.2).

Decisions:
- The assignment is that of the images that are scored, as for clusterings. It has as many degrees of freedom as there
  are codes, against thousands of images.
- A code that has no class, where there are more codes than classes, is wrong of all its images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Evaluation,
    Interval,
    Metric,
    Register,
    Scores,
    Takes,
    about_output,
    hookimpl,
    labels_in,
)
from ganlab_plugins.metrics._class_labels import highest_label

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class CodeAccuracy:
    """Code accuracy: the fraction of a split's images whose class is that of their code, assigned one to one.

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be logits of a code (N, codes).
    split: whose images are scored; they must have class labels, which the game does not see.
    """

    takes: ClassVar[Takes] = "any"

    every: Interval = Interval()
    output: str = field(default="category_logits", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"

    def prepare(self, evaluation: Evaluation) -> None:
        """Code accuracy refuses a game without the output, and data without the split or without class labels."""
        evaluation.outputs(self.output, self.split)
        highest_label(evaluation, self.split)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`code_accuracy`, from 0 to 1."""
        import torch

        classes = highest_label(evaluation, self.split) + 1
        dataset = evaluation.dataset(self.split)
        found = [torch.zeros(0, 2, dtype=torch.int64, device=evaluation.device)]
        done, total = 0, len(dataset.images)
        for logits, images, condition in evaluation.outputs(self.output, self.split):
            if logits.ndim != 2:
                shape = tuple(logits.shape[1:])
                raise ComponentError(f"the output {self.output!r} has the shape {shape}; wanted logits of a code")
            labels = labels_in(condition)
            assert labels is not None  # as the data set has them
            found.append(torch.stack([logits.argmax(1), labels], 1))
            done += len(images)
            evaluation.progress(f"codes of {self.split} images", done, total)
        pairs = evaluation.gather(torch.cat(found))
        codes = int(pairs[:, 0].max()) + 1
        counts = torch.bincount(pairs[:, 0] * classes + pairs[:, 1], minlength=codes * classes).view(codes, classes)
        return Scores(
            values={"code_accuracy": assigned(counts) / len(pairs)},
            better={"code_accuracy": "higher"},
            protocol={
                "metric": "code_accuracy",
                **about_output(self.output, dataset),
                "assignment": "one to one, best on these images",
            },
        )


def assigned(counts: Tensor) -> int:
    """How many images the best one-to-one assignment of codes to classes gets right, of counts (codes, classes)."""
    from scipy.optimize import linear_sum_assignment

    table = counts.cpu().numpy()
    return int(table[linear_sum_assignment(table, maximize=True)].sum())


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("code_accuracy", CodeAccuracy)
