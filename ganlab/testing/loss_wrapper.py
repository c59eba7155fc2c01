"""ganlab.testing.loss_wrapper."""

from __future__ import annotations

from ganlab.protocols import Loss
from ganlab.testing.inspection import (
    Fault,
    Inspection,
)
from ganlab.testing.loss import look_at_loss
from ganlab.testing.scheduled_options import look_at_options
from ganlab.testing.tiny_components import (
    PlainLoss,
    TinyLoss,
)
from ganlab.testing.tiny_training import TinyGame, look_at_game
from ganlab.utils.errors import ComponentError, one_line


def check_loss_wrapper(inspection: Inspection, game: TinyGame) -> None:
    wraps = inspection.look("wraps: a loss in, a loss out", lambda: _wraps(inspection))
    sound = look_at_loss(inspection, lambda: inspection.fresh()(TinyLoss()), wraps)
    look_at_options(inspection, game, look_at_game(inspection, game, wraps, *sound, terms=True))


def _wraps(inspection: Inspection) -> str:
    at = inspection.line_of("__call__")
    refusals = []
    for loss, which in ((TinyLoss(), "a loss with label targets"), (PlainLoss(), "a loss without label targets")):
        try:
            wrapped = inspection.fresh()(loss)
        except ComponentError as error:
            refusals.append(f"refuses {which}: {one_line(error, limit=200)}")
            continue
        if not isinstance(wrapped, Loss):
            raise Fault(f"gives {type(wrapped).__name__} for {which}, which is no loss", at)
    if len(refusals) == 2:
        raise ComponentError("; ".join(refusals))
    return "; ".join(refusals)
