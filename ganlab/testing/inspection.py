"""One component under conformance check: running a check, recording its result, finding the line at fault.

Decisions:
- A check that finds a fault raises `Fault`. A component that raises `ComponentError` refuses, which is shown and is
  not a fault.
- Any other exception of the component's code is a fault too, at the deepest line of the component's own file.
- A check that depends on one that did not pass is skipped and says so: one fault is reported once.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import define, field

from ganlab.plugin.failures import CatchPluginErrors
from ganlab.testing.check_result import Check, Fault
from ganlab.utils.errors import ComponentError, InvalidRules, PluginFailed, UserError, error_text, one_line
from ganlab.utils.paths import PACKAGE

_CORE = str(PACKAGE)
_TORCH = str(Path(torch.__file__).parent)


@define
class Inspection:
    """The inspection of one component: the component under conformance check, and the checks made so far.

    `instance` itself is never used: each check takes a `fresh()` one.
    """

    kind: str
    cls: type
    instance: Any = None
    checks: list[Check] = field(factory=list)

    @property
    def file(self) -> str:
        """The source file of the inspected component's class."""
        try:
            return inspect.getsourcefile(self.cls) or ""
        except TypeError:  # made at run time
            return ""

    def run_check(self, what: str, work: Callable[[], str | None], *after: Check) -> Check:
        """Runs one check of an inspection and records its result; skips it unless all of `after` passed.

        `what` is the text that users see. `work` raises Fault where it finds one, and may return a note.
        """
        if any(check.result != "passed" for check in after):
            found = Check(what, "skipped", "depends on a check that did not pass")
        else:
            found = self._run(what, work)
        self.checks.append(found)
        return found

    def _run(self, what: str, work: Callable[[], str | None]) -> Check:
        note: str | None = None
        with CatchPluginErrors() as caught:
            note = work()
        return Check(what, "passed", note or "") if caught.error is None else self._failed(what, caught.error)

    def _failed(self, what: str, error: BaseException) -> Check:
        """The result of an inspection's check that raised an error."""
        if isinstance(error, Fault):
            return Check(what, "fault", one_line(error), error.at)
        if isinstance(error, InvalidRules):
            return Check(what, "fault", one_line(error), self.line_of("build"))
        if isinstance(error, (ComponentError, UserError)):
            text = one_line(error)
            return Check(what, "refused", text if text.startswith("refuses") else f"refuses: {text}")
        if isinstance(error, PluginFailed) and error.__cause__ is not None:
            error = error.__cause__
        return Check(what, "fault", error_text(error), self.line_that_raised(error))

    def run_all(self, work: Callable[[], None]) -> None:
        """Runs all checks of an inspection; what the component raises outside of them is a fault of its own."""
        with CatchPluginErrors() as caught:
            work()
        if caught.error is not None:
            self.checks.append(self._failed("complete: the checks of its kind come to their end", caught.error))

    def fresh(self) -> Any:
        """Returns an unused copy of the inspected component, with the same options and a state of its own."""
        made = attrs.evolve(self.instance)
        copied: Any = None
        with CatchPluginErrors() as caught:
            copied = copy.deepcopy(made)
        if caught.error is not None:
            what = f"cannot be copied, as a run copies it before it trains: {error_text(caught.error)}"
            raise Fault(what, self.line_of_class()) from caught.error
        return copied

    def shorten(self, **options: Any) -> None:
        """Sets options of the inspected component to values that take less time, unless it refuses them."""
        with CatchPluginErrors():
            self.instance = attrs.evolve(self.instance, **options)

    @property
    def stops_gradient(self) -> bool:
        """Whether the inspected component's class declares `stops_gradient`: that gradients are stopped on purpose."""
        return getattr(self.cls, "stops_gradient", False) is True

    def line_that_raised(self, error: BaseException) -> str:
        """Returns the deepest line, "file:line", of the inspected component's own file that led to an exception."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        return f"{self.file}:{lines[-1]}" if lines else ""

    def line_of(self, method: str, owner: Any = None) -> str:
        """Returns the line that an inspection calls at fault: where the method of `owner` or of the component begins.

        The class's line where the method is the core's or torch's own.
        """
        for cls in (type(owner), self.cls) if owner is not None else (self.cls,):
            function: Any = inspect.getattr_static(cls, method, None)
            function = inspect.unwrap(getattr(function, "fget", None) or function)  # torch wraps an optimiser's step
            code = getattr(function, "__code__", None)
            if code is not None and not code.co_filename.startswith((_CORE, _TORCH, "<")):
                return f"{code.co_filename}:{code.co_firstlineno}"
        return self.line_of_class()

    def line_of_class(self) -> str:
        """Returns the line at which the inspected component's class begins."""
        try:
            return f"{self.file}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):
            return self.file


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="ganlab-check-") as folder:
        yield Path(folder)
