"""Target accuracy: how often a game's own classifier is right about real images, as in domain adaptation.

PixelDA reports it on the test images of the target domain (Bousmalis et al. 2017, arXiv:1612.05424, table 1), whose
labels the game never saw.
"""

from __future__ import annotations

from typing import ClassVar, Literal

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


@frozen
class TargetAccuracy:
    """Target accuracy: the fraction of a split's images to which the game's class logits give their own class.

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be class logits (N, classes).
    split: whose images are classified; they must have class labels.
    """

    takes: ClassVar[Takes] = "any"

    every: Interval = Interval()
    output: str = field(default="class_logits", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"

    def prepare(self, evaluation: Evaluation) -> None:
        """Target accuracy refuses a game without the output, and data without the split or without class labels."""
        evaluation.outputs(self.output, self.split)
        highest_label(evaluation, self.split)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`target_accuracy`, from 0 to 1."""
        import torch

        most = highest_label(evaluation, self.split)
        right = [torch.empty(0, dtype=torch.float64, device=evaluation.device)]
        done, total = 0, len(evaluation.dataset(self.split).images)
        for logits, images, condition in evaluation.outputs(self.output, self.split):
            if logits.ndim != 2 or logits.shape[1] <= most:
                shape = tuple(logits.shape[1:])
                raise ComponentError(
                    f"the output {self.output!r} has the shape {shape}; wanted logits of {most + 1} classes or more"
                )
            labels = labels_in(condition)
            assert labels is not None  # as the data set has them
            right.append(logits.argmax(1).eq(labels).double())
            done += len(images)
            evaluation.progress(f"classes of {self.split} images", done, total)
        return Scores(
            values={"target_accuracy": float(evaluation.gather(torch.cat(right)).mean())},
            better={"target_accuracy": "higher"},
            protocol={"metric": "target_accuracy", **about_output(self.output, evaluation.dataset(self.split))},
        )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("target_accuracy", TargetAccuracy)
