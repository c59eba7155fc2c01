"""The class head of a discriminator: projection, or class logits as in AC-GAN."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ganlab.nn.judged_output import Judged
from ganlab.nn.layers import classes_of, wanted_labels
from ganlab.protocols import ImageSpec

HeadName = Literal["plain", "projection", "class_logits"]


class ClassHead(nn.Module):
    """A discriminator's class head: from features (N, width) and logits (N,) to the output of a class-conditional one.

    "projection" adds the inner product of the features and the class's embedding to the logit (Miyato and Koyama 2018,
    arXiv:1802.05637); "class_logits" also returns a logit for each class (AC-GAN; Odena et al. 2017, arXiv:1610.09585),
    for the penalty `class_loss`; "plain" returns the logits unchanged.
    """

    def __init__(self, name: HeadName, width: int, images: ImageSpec) -> None:
        super().__init__()
        self.name = name
        if name != "plain":
            classes = classes_of(images, f'head = "{name}"')
            self.classes = nn.Embedding(classes, width) if name == "projection" else nn.Linear(width, classes)
            nn.init.xavier_uniform_(self.classes.weight)

    def forward(self, features: Tensor, logits: Tensor, condition: Tensor | None) -> Tensor | Judged:
        if self.name == "projection":
            product: Tensor = features * self.classes(wanted_labels(condition, 'head = "projection"'))
            return logits + product.sum(1)
        return Judged(logits, self.classes(features)) if self.name == "class_logits" else logits
