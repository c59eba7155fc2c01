"""The exception classes, each with the exit code of the command, and helpers that format values for error messages.

A mistake in the user's input is a `UserError`: it has one line for each problem and is shown without a traceback. A
component that cannot work with its options raises `ComponentError`; the core adds the file and the table they are from.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable
from pathlib import Path


class GanlabError(Exception):
    """The base class of all errors that ganlab raises on purpose."""

    exit_code = 1


class UserError(GanlabError):
    """The error class for wrong user input. `problems` holds one line for each thing to fix."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvalidRules(UserError):
    """The error class for a game that the core refuses: a fault of its plugin, as `ganlab check` reports it."""


class ComponentError(GanlabError):
    """The error class that a component (a plugin's class) raises if it cannot work with its options or environment.

    The message should say what it got and what it expected. The core puts the experiment's file and table in front and
    treats it as a user error (exit code 2).
    """

    exit_code = 2


class NoSplit(ComponentError):
    """The error class that a data set raises for a split that it does not have, such as that of test images."""


class CannotWrite(GanlabError, OSError):
    """The error class for a file that could not be written; the file's previous content is unchanged."""


class PluginFailed(GanlabError):
    """The error class for an exception in a plugin's code that ends the command.

    `trace` is the traceback from the plugin's own code on.
    """

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


class OutOfMemory(GanlabError):
    """Error: a training step ran out of memory."""


class NotDeterministic(GanlabError):
    """The error class for an operation without a deterministic implementation while `train.deterministic` is set."""


class RaisedElsewhere(GanlabError):
    """The error class for an error of another process of a distributed job: it has its text and its exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class LostProcess(GanlabError):
    """The error class for another process of a distributed job that has ended, which says why itself."""


_CONNECTION_LOST = re.compile(r"Connection (reset|closed|refused)|Broken pipe")
"""In messages of gloo and NCCL: the other end of a connection is gone."""


def is_lost_process(error: BaseException) -> bool:
    """Whether this is torch's error of a collective operation that failed because another process has ended."""
    return isinstance(error, RuntimeError) and _CONNECTION_LOST.search(str(error)) is not None


class Diverged(GanlabError):
    """The error class for training that diverged: a loss term, a gradient, a weight or the EMA is NaN or infinite."""

    exit_code = 3


class SamplesNotFinite(Diverged):
    """The error class for generated images that are NaN or infinite, which no metric can score."""


class Interrupted(GanlabError):
    """The error class for a run that a signal stopped; its state is saved and it can be resumed.

    `path` is the run's folder, once the run has ended.
    """

    exit_code = 75
    path: Path | None = None


def one_line(error: object, limit: int = 300) -> str:
    """For error messages: an exception (or a text) on one line of at most `limit` characters; if empty, its class."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}…"


def error_text(error: BaseException) -> str:
    """For error messages: an exception on one line, with its type."""
    return f"{type(error).__name__}: {one_line(error)}"


def printable(text: object) -> str:
    """For messages and pages: a text whose bytes of a file name that are not UTF-8 are written as `\\xe9`.

    Python holds such bytes as lone surrogates, which no encoding of a text has.
    """
    return re.sub("[\ud800-\udfff]", _as_escape, str(text))


def _as_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


LONGEST_NAME = 100
"""The longest name, in characters, that an error message repeats in full or compares with the known names."""


_REPR_OF_BYTE = re.compile(r"((?<!\\)(?:\\\\)*)\\udc([89a-f][0-9a-f])")
"""How `repr` writes a byte that is not UTF-8, after whole pairs of backslashes, each of which stands for one."""


def quote(value: object) -> str:
    """In an error line: formats any value on one line of at most 60 characters, as in TOML.

    Bytes that are not UTF-8 are written as `\\xe9`, as `printable` does.
    """
    value = list(value) if isinstance(value, tuple) else value
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    text = _REPR_OF_BYTE.sub(r"\1\\x\2", text)
    return text if len(text) <= 60 else f"{text[:57]}…"


def counted(count: int, noun: str) -> str:
    """For messages: a number with its noun, as in "1 image" and "2,000 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def whole_number(name: str, value: object, low: int, high: int = 2**63 - 1) -> int:
    """Raises a UserError unless the value of an option is a whole number in this range, of Python, NumPy or torch.

    True and False are none, and 1.0 is none either: a text is made of some of these values, such as a seed.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise UserError(f"{name} {quote(value)}: expected a whole number")
    if not low <= number <= high:
        most = f" and at most {high:,}" if number > high else ""
        shown = number if abs(number) < 10**30 else "…"
        raise UserError(f"{name} {shown}: expected at least {low}{most}")
    return number


def quote_key(key: str) -> str:
    """Quotes a key for an error message."""
    return key if len(key) <= LONGEST_NAME and re.fullmatch(r"[A-Za-z0-9_-]+", key) else quote(key)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """For error messages: the suffix `"; did you mean 'margin'?"` with the most similar known name, or nothing."""
    if len(name) > LONGEST_NAME:  # difflib takes quadratic time
        return ""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)
    return f"; did you mean {near[0]!r}?" if near else ""
