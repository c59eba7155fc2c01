"""The result of one conformance check: passed, a fault with the line at fault, refused by the component, or skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from ganlab.utils.errors import ComponentError, GanlabError

Result = Literal["passed", "fault", "refused", "skipped"]


@frozen
class Check:
    """The result of one conformance check of a component; `what` was checked, in words.

    `detail` is the fault, what was refused, or what was measured, in one line. `at` is the line at fault, "file:line",
    where there is one.
    """

    what: str
    result: Result
    detail: str = ""
    at: str = ""

    @property
    def passed(self) -> bool:
        """Whether the check found no fault."""
        return self.result != "fault"

    def __str__(self) -> str:
        return ": ".join(part for part in (self.what, self.at, self.detail) if part)


class Fault(GanlabError):
    """Raised where the result of a conformance check is a fault. `at` is the line at fault."""

    def __init__(self, message: str, at: str = "") -> None:
        super().__init__(message)
        self.at = at


def summarize_refusals(refusals: Sequence[str], cases: int) -> str:
    """The result of a check in cases of which a component refused some; raises ComponentError where it refused all."""
    if len(refusals) == cases:
        raise ComponentError(refusals[0])
    return "; ".join(dict.fromkeys(refusals))
