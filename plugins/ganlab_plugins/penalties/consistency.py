"""Consistency regularisation (CR-GAN; Zhang et al. 2020, arXiv:1910.12027), between an image and its augmentation."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Augmentation, Penalty, Register, Step, component, hookimpl


@frozen
class Consistency:
    """Consistency: `weight` times the mean squared difference of the logits of real images and of augmented ones.

    augmentation: the augmentation; flips and translations in the paper.
    weight: the factor (10 in the paper).
    every: add the term on every k-th update, times k.
    player: the name of the network whose loss it is added to, or of a table; "discriminator" unless given.
    """

    augmentation: Augmentation = component("augmentation", default="flip")
    weight: float = field(default=10.0, validator=[ge(0), le(1e9)])
    every: int = field(default=1, validator=[ge(1), le(10**12)])
    _player: str | None = None

    def __attrs_post_init__(self) -> None:
        if getattr(self.augmentation, "adaptive", False):
            raise ValueError("augmentation.adaptive: must be false here, where it observes no logits to adapt to")

    @property
    def player(self) -> str:
        return self._player or "discriminator"

    def penalty(self, step: Step) -> Tensor:
        changed = self.augmentation.augment(step.real)
        return self.weight * (step.judge(step.real) - step.judge(changed)).square().mean()


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("consistency", Consistency)
