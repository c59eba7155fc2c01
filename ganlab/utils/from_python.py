"""What a caller from Python is told: arguments of other types are refused, and errors name arguments, not options.

Decisions:
- A message is worded once, with the options of the command line. Where a public function was called, and not a command,
  the options in it become the arguments of that function: `--frames` is `frames`, `--no-loop` is `loop=False`.
- Arguments are held against the function's annotations, so that no public function needs checks of types of its own.
- Only the outermost call does both: a public function that a command, or another public one, calls is internal.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import Any, ParamSpec, TypeVar

from ganlab.utils.errors import GanlabError, UserError, quote

P = ParamSpec("P")
R = TypeVar("R")

ALIASES = {"set": ("overrides",), "out": ("path",), "sampler": ("name",)}
"""Arguments of public functions that are called otherwise than the options of the commands."""

_is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)

_SPANS = re.compile(r"`[^`]*`|(?<!\w)'[^']*'|(?<!\S)(?P<options>\(?--[a-z][a-z-]*(?: --[a-z][a-z-]*)*)")
"""In a message: what is quoted, which stays as it is, or one or more options in a row."""


@contextmanager
def command_running() -> Iterator[None]:
    """While it is open, errors are those of a command, also where it calls functions that are public in Python."""
    token = _is_inside.set(True)
    try:
        yield
    finally:
        _is_inside.reset(token)


def from_python(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function public: called from Python it refuses arguments of other types, and its errors name arguments.

    An iterator that is given for an `Iterable` becomes a tuple. Raises UserError.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def public(*args: P.args, **kwargs: P.kwargs) -> R:
        if _is_inside.get():
            return function(*args, **kwargs)
        with command_running():
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own error, which names the function
            _check_types(function, signature, given)
            try:
                return function(*given.args, **given.kwargs)
            except GanlabError as error:
                _reword(error, function.__name__, signature, args[:1] if "self" in signature.parameters else ())
                if isinstance(error, UserError):  # a mistake of the caller: where it was found says nothing to him
                    raise error.with_traceback(None) from None
                raise

    return public


# --------------------------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------------------------


def _check_types(function: Callable[..., Any], signature: inspect.Signature, given: inspect.BoundArguments) -> None:
    """Refuses what is given to a function from Python in another type than it says; UserError names the argument."""
    hints = typing.get_type_hints(function)
    for name, value in given.arguments.items():
        if name not in hints:
            continue
        hint = hints[name]
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            hint = GenericAlias(tuple, (hint,))
        try:
            given.arguments[name] = _fitted(value, hint)
        except _Unfit:
            texts = isinstance(value, (str, bytes, Path)) and typing.get_origin(hint) is not UnionType
            advice = f"; write [{quote(value)}]" if texts and _fits([value], hint) else ""
            shown = quote(value) if isinstance(value, _SHOWN) else type(value).__name__
            shown = str(value) if isinstance(value, bool) else shown  # not as in TOML
            line = f"{function.__name__}: {name}: expected {_in_words(hint)}, got {shown}{advice}"
            raise UserError(line) from None


_SHOWN = (str, bytes, int, float, list, tuple, NoneType, Path)
"""Types of values that a message repeats."""


class _Unfit(Exception):
    """An argument from Python has another type than is wanted."""


def _fits(value: object, hint: Any) -> bool:
    try:
        _fitted(value, hint)
    except _Unfit:
        return False
    return True


def _fitted(value: Any, hint: Any) -> Any:
    """An argument from Python as its annotation wants it; raises _Unfit where it is something else."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, UnionType):
        fitting = next((part for part in parts if _fits(value, part)), None)
        if fitting is None and not any(part is NoneType and value is None for part in parts):
            raise _Unfit
        return value if fitting is None else _fitted(value, fitting)
    if origin is tuple:  # of a `*argument`
        return tuple(_fitted(item, parts[0]) for item in value)
    if origin in (Iterable, Sequence):
        return _fitted_list(value, parts[0])
    if hint is int:
        return _whole(value)
    if hint is float:
        if isinstance(value, (bool, Collection)) or not hasattr(type(value), "__float__"):  # an array is a collection
            raise _Unfit
        return value
    if not isinstance(value, origin or hint):
        raise _Unfit
    return value


def _fitted_list(value: Any, part: Any) -> Any:
    """A list from Python, of items that are fitted themselves; a text is none, nor is a mapping."""
    if isinstance(value, (str, bytes, Path, Mapping)) or not hasattr(type(value), "__iter__"):
        raise _Unfit
    if getattr(value, "ndim", 1) == 0:  # an array without a dimension
        raise _Unfit
    return tuple(_fitted(item, part) for item in value)


def _whole(value: Any) -> int:
    """A whole number of Python, NumPy or torch, as one of Python; True and False are none."""
    try:
        if isinstance(value, bool):
            raise _Unfit
        return operator.index(value)
    except TypeError:
        raise _Unfit from None


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    NoneType: "None",
    Mapping: "a dictionary",
}


def _in_words(hint: Any) -> str:
    """What an argument from Python is to be, in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        *first, last = [_in_words(part) for part in parts]
        return f"{', '.join(first)} or {last}"
    if origin is tuple:
        return _in_words(parts[0])
    if origin in (Iterable, Sequence):
        words = [_in_words(part) for part in (typing.get_args(parts[0]) or parts)]
        return f"a list of {' or '.join(f'{word.split(maxsplit=1)[-1]}s' for word in words)}"
    return _WORDS.get(origin or hint, f"a {(origin or hint).__name__}")


# --------------------------------------------------------------------------------------------------------------------
# Messages
# --------------------------------------------------------------------------------------------------------------------


def _reword(error: GanlabError, function: str, signature: inspect.Signature, owner: tuple[object, ...]) -> None:
    """Puts a function's arguments in the place of the command's options in an error's message."""
    replace = functools.partial(_reworded, function=function, signature=signature, owner=owner)
    error.args = tuple(replace(part) if isinstance(part, str) else part for part in error.args)
    if isinstance(error, UserError):
        error.problems = tuple(map(replace, error.problems))


def _reworded(line: str, function: str, signature: inspect.Signature, owner: tuple[object, ...]) -> str:
    def in_python(match: re.Match[str]) -> str:
        if not match["options"]:
            return match[0]
        options = match["options"].lstrip("(")
        names = [_argument(option, function, signature, owner) or option for option in options.split()]
        return "(" * match["options"].startswith("(") + (", " if len(names) > 1 else "").join(names)

    return _SPANS.sub(in_python, line)


def _argument(option: str, function: str, signature: inspect.Signature, owner: tuple[object, ...]) -> str | None:
    """What a caller from Python writes for an option of the command; None where the function has nothing like it.

    It is an argument of the function, or an attribute of the object whose method it is.
    """
    word = option.removeprefix("--").replace("-", "_")
    if word == function:
        return function
    for name in (word, f"{word}s", *ALIASES.get(word, ())):
        if name in signature.parameters:
            is_switch = isinstance(signature.parameters[name].default, bool)
            return f"{name}=True" if is_switch else name
    switched = word.removeprefix("no_")
    if switched != word and switched in signature.parameters:
        return f"{switched}=False"
    return word if any(hasattr(part, word) for part in owner) else None
