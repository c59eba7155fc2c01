"""The auxiliary classification loss of AC-GAN (Odena et al. 2017, arXiv:1610.09585), which both players minimise."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor
from torch.nn.functional import cross_entropy

from ganlab import ComponentError, Penalty, Register, Step, hookimpl


@frozen
class ClassLoss:
    """`weight` times the cross-entropy of the discriminator's class logits and the images' class labels (AC-GAN).

    A discriminator's term is computed on real and fake images, that of any other network on fake images. It needs a
    discriminator with class logits (head = "class_logits"). An experiment usually lists it twice, once for each player.

    player: the name of the network whose loss it is added to, or of a table: "discriminator", "generator", another.
    weight: the factor.
    real_only: compute the discriminator's term on real images only.
    every: add the term on every k-th update, times k.
    """

    player: str = "discriminator"
    weight: float = field(default=1.0, validator=[ge(0), le(1e9)])
    real_only: bool = False
    every: int = field(default=1, validator=[ge(1), le(10**12)])

    def penalty(self, step: Step) -> Tensor:
        outputs: list[Any] = [step.fake_logits]
        if step.player == step.judged_by:
            outputs = [step.real_logits] if self.real_only else [step.real_logits, step.fake_logits]
        labels = step.condition
        if not isinstance(labels, Tensor) or labels.ndim != 1 or not hasattr(outputs[0], "class_logits"):
            raise ComponentError('class_loss needs a discriminator with head = "class_logits", and class labels')
        return self.weight * torch.stack([cross_entropy(o.class_logits.float(), labels) for o in outputs]).sum()


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("class_loss", ClassLoss)
