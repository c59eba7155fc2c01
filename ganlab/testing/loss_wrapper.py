"""The conformance checks of a loss wrapper: it returns a loss, which passes the checks of a loss.

Its tiny trainings are of a loss with a state, which they must keep.
"""

from __future__ import annotations

from ganlab.protocols import Loss
from ganlab.testing.check_result import Fault
from ganlab.testing.inspection import Inspection
from ganlab.testing.loss import check_arithmetic
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.tiny_components import PlainLoss, RelativisticLoss, TinyLoss
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.utils.errors import ComponentError, one_line


def check_loss_wrapper(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a loss wrapper."""
    wraps = inspection.run_check("wraps: returns a loss for a loss", lambda: _check_wraps(inspection))
    relativistic = [lambda: inspection.fresh()(RelativisticLoss())]  # where `generator_uses_real` must be True
    sound = check_arithmetic(inspection, lambda: inspection.fresh()(TinyLoss()), wraps, others=relativistic)
    check_scheduled_options(inspection, tiny, run_training_checks(inspection, tiny, wraps, *sound, stateful=True))


def _check_wraps(inspection: Inspection) -> str:
    """Checks that a wrapper returns a loss for a loss with label targets and for one without, or refuses one."""
    at = inspection.line_of("__call__")
    refusals = []
    for loss, which in ((TinyLoss(), "a loss with label targets"), (PlainLoss(), "a loss without label targets")):
        try:
            wrapped = inspection.fresh()(loss)
        except ComponentError as error:
            refusals.append(f"refuses {which}: {one_line(error, limit=200)}")
            continue
        if not isinstance(wrapped, Loss):
            raise Fault(f"returns {type(wrapped).__name__} for {which}, which is not a loss", at)
    if len(refusals) == 2:
        raise ComponentError("; ".join(refusals))
    return "; ".join(refusals)
