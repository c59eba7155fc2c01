"""What a check is, and what every kind's checks are made of: looking, blaming a line, differences, random states.

Decisions:
- A check that finds a fault raises `Fault`; one that a component refuses by `ComponentError` is no fault, and is said.
- What a stranger's code raises is a fault too, with the deepest line of the component's own file.
- A check that rests on one that failed is left out and says so: one fault is told once.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganlab.plugin.failures import Guard
from ganlab.utils.errors import ComponentError, GanlabError, UserError, one_line
from ganlab.utils.paths import PACKAGE
from ganlab.utils.rng import global_state, seed_everything

Result = Literal["passed", "fault", "refused", "skipped"]

CPU = torch.device("cpu")
_CORE = str(PACKAGE)
_TORCH = str(Path(torch.__file__).parent)


@frozen
class Check:
    """One thing that was looked at: `what` in words, how it went, and what there is to say.

    `detail` is the fault, what was refused, or what was measured, in one line. `at` is the line at fault, "file:line",
    where there is one.
    """

    what: str
    result: Result
    detail: str = ""
    at: str = ""

    @property
    def passed(self) -> bool:
        """Whether there is no fault."""
        return self.result != "fault"

    def __str__(self) -> str:
        return ": ".join(part for part in (self.what, self.at, self.detail) if part)


class Fault(GanlabError):
    """What a check found. `at` is the line at fault."""

    def __init__(self, message: str, at: str = "") -> None:
        super().__init__(message)
        self.at = at


@define
class Inspection:
    """One component under check: `instance` is never used itself; each use takes a fresh one."""

    kind: str
    cls: type
    instance: Any = None
    checks: list[Check] = field(factory=list)

    @property
    def file(self) -> str:
        """The file of the component's class."""
        try:
            return inspect.getsourcefile(self.cls) or ""
        except TypeError:  # made at run time
            return ""

    def look(self, what: str, work: Callable[[], str | None], *after: Check) -> Check:
        """Does the work and writes down how it went; leaves it out where one of `after` found a fault."""
        if any(check.result != "passed" for check in after):
            found = Check(what, "skipped", "rests on a check that did not pass")
        else:
            found = self._looked(what, work)
        self.checks.append(found)
        return found

    def _looked(self, what: str, work: Callable[[], str | None]) -> Check:
        note: str | None = None
        with Guard() as guard:
            note = work()
        error = guard.error
        if error is None:
            return Check(what, "passed", note or "")
        if isinstance(error, Fault):
            return Check(what, "fault", one_line(error), error.at)
        if isinstance(error, (ComponentError, UserError)):
            text = one_line(error)
            return Check(what, "refused", text if text.startswith("refuses") else f"refuses: {text}")
        return Check(what, "fault", raised(error), self.line_that_raised(error))

    def fresh(self) -> Any:
        """A component with the same options that nobody has used: what is no option is made anew."""
        return copy.deepcopy(attrs.evolve(self.instance))

    def line_that_raised(self, error: BaseException) -> str:
        """The deepest line of the component's own file that led to an error."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        return f"{self.file}:{lines[-1]}" if lines else ""

    def line_of(self, method: str, owner: Any = None) -> str:
        """The line where a method of `owner` or of the component begins, unless that is the core's or torch's own."""
        for cls in (type(owner), self.cls) if owner is not None else (self.cls,):
            function: Any = inspect.getattr_static(cls, method, None)
            function = inspect.unwrap(getattr(function, "fget", None) or function)  # torch wraps an optimiser's step
            code = getattr(function, "__code__", None)
            if code is not None and not code.co_filename.startswith((_CORE, _TORCH, "<")):
                return f"{code.co_filename}:{code.co_firstlineno}"
        return self.line_of_class()

    def line_of_class(self) -> str:
        try:
            return f"{self.file}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):
            return self.file


def raised(error: BaseException) -> str:
    """An error in a line, with its name."""
    return f"{type(error).__name__}: {one_line(error)}"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ganlab-check-") as folder:
        yield Path(folder)


class Lines(TorchDispatchMode):
    """Notes the first lines of a file where a value became not finite, and where random numbers were drawn."""

    def __init__(self, file: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.file = file
        self.not_finite = self.random = ""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.random = self.random or self._line()
        if not self.not_finite and not all(map(finite, tree_leaves(result))):
            self.not_finite = self._line()
        return result

    def _line(self) -> str:
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename == self.file:
                return f"{self.file}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        return ""


def finite(value: Any) -> bool:
    """Whether a value is no tensor of floats, or one that is finite."""
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers that are the same each time, and draw from no global stream."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def check_scalar(value: Any, at: str) -> None:
    """Raises Fault for what is no scalar tensor of floats."""
    if not isinstance(value, Tensor):
        raise Fault(f"gives {type(value).__name__}, wanted a scalar tensor", at)
    if value.shape != () or not value.is_floating_point():
        raise Fault(f"gives {value.dtype} of shape {tuple(value.shape)}, wanted a scalar of floats: take the mean", at)


# ---------------------------------------------------------------------------------------------------------------------
# Gradients against differences
# ---------------------------------------------------------------------------------------------------------------------

_STEPS = ((1e-6, 1e-3), (1e-4, 1e-3), (1e-2, 2e-2))
"""Sizes of a difference and how far it may be off; the larger are for code that rounds to float32 on its way."""

_DTYPE = re.compile(r"dtype|scalar type|[Ii]nput type")


def compare_with_differences(value: Callable[[], Tensor], leaves: Sequence[Tensor], of: str, at: str) -> str | None:
    """Holds the gradient of `value` by float64 leaves against central differences along a random direction.

    `value` must not depend on earlier calls; what it draws at random is the same in each. Raises Fault; gives a note
    where the code takes no float64.
    """

    def seeded() -> Tensor:
        seed_everything(0)
        return value()

    for leaf in leaves:
        leaf.requires_grad_(True)
    try:
        gradients = torch.autograd.grad(seeded(), leaves, allow_unused=True)
    except RuntimeError as error:
        if not _DTYPE.search(str(error)):
            raise
        return f"not taken, since the code takes no float64: {one_line(error, limit=120)}"
    directions = [noise(*leaf.shape, seed=number, dtype=leaf.dtype) for number, leaf in enumerate(leaves, 1)]
    # Of length 1, so that however many leaves there are a small difference stays this side of a kink.
    length = float(sum(direction.square().sum() for direction in directions)) ** 0.5
    directions = [direction / length for direction in directions]
    pairs = zip(gradients, directions, strict=True)
    told = float(sum((gradient * direction).sum() for gradient, direction in pairs if gradient is not None))
    seen = 0.0
    for size, tolerance in _STEPS:
        ends = []
        for sign in (1, -1):
            _move(leaves, directions, sign * size)
            ends.append(float(seeded().detach()))
            _move(leaves, directions, -sign * size)
        difference = (ends[0] - ends[1]) / (2 * size)
        if abs(told - difference) <= tolerance * max(abs(told), abs(difference)) + 1e-9:
            return None
        seen = seen or difference
    raise Fault(f"the gradient of {of} is wrong: along a random direction {told:.6g}, by differences {seen:.6g}", at)


@torch.no_grad()
def _move(leaves: Sequence[Tensor], directions: Sequence[Tensor], by: float) -> None:
    for leaf, direction in zip(leaves, directions, strict=True):
        leaf.add_(direction, alpha=by)


# ---------------------------------------------------------------------------------------------------------------------
# Global random states
# ---------------------------------------------------------------------------------------------------------------------

_STREAMS = {"torch": "torch's", "python": "Python's", "numpy": "NumPy's"}


def draws(work: Callable[[], Any]) -> str:
    """Whose global random numbers the work draws; nobody's is empty."""
    seed_everything(0)
    before = global_state()
    work()
    after = global_state()
    return " and ".join(whose for name, whose in _STREAMS.items() if not same(before[name], after[name]))


def same(one: Any, other: Any) -> bool:
    """Whether two states, of tensors in dicts and lists, are equal to the bit."""
    return difference(one, other) is None


def difference(one: Any, other: Any, at: str = "") -> str | None:
    """The first place where two states differ, or None."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        if equal and one.is_floating_point():
            equal = torch.equal(one.isnan(), other.isnan())
            one, other = one.nan_to_num(), other.nan_to_num()
        return None if equal and torch.equal(one, other) else at or "the whole"
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        places = [(one[key], other[key], f"{at}.{key}" if at else str(key)) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        places = [(a, b, f"{at}[{index}]") for index, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if type(one) is type(other) and bool(one == other) else at or "the whole"
    return next((found for a, b, place in places if (found := difference(a, b, place)) is not None), None)
