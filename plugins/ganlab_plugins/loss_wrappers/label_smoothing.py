"""Label smoothing (Salimans et al. 2016, arXiv:1606.03498): target labels of the discriminator other than 1 and 0."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, le

from ganlab import ComponentError, Loss, LossWrapper, Register, TargetedLoss, hookimpl


@frozen
class LabelSmoothing:
    """Label smoothing: changes the discriminator's target labels of a loss; the generator's loss is unchanged,
    but in `bigan`, where generator and encoder minimise the discriminator's with exchanged labels.

    real: the target label of real images.
    fake: the target label of fake images. Above 0, the optimal discriminator gives fakes no incentive to move where
        there are no real images (section 3.4 of the paper), so smoothing is one-sided by default.
    """

    real: float = field(default=0.9, validator=[ge(0), le(1)])
    fake: float = field(default=0.0, validator=[ge(0), le(1)])

    def __call__(self, loss: Loss) -> Loss:
        if not isinstance(loss, TargetedLoss):
            raise ComponentError(
                f"the loss {type(loss).__name__} has no label targets to smooth; label smoothing needs a loss with "
                "with_targets(real=…, fake=…), such as 'bce'"
            )
        return loss.with_targets(real=self.real, fake=self.fake)


@hookimpl
def register_loss_wrappers(register: Register[LossWrapper]) -> None:
    register("label_smoothing", LabelSmoothing)
