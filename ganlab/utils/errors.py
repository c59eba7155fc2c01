"""The ways a command can end other than well, each with its exit code.

A user's mistake is a `UserError`: it carries one line a problem, all of them, and never shows a traceback. A component
that cannot work with what it was given raises `ComponentError`; build adds the file and the table it came from.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class GanlabError(Exception):
    """Base of everything that ganlab raises on purpose."""

    exit_code = 1


class UserError(GanlabError):
    """The user's input is wrong. `problems` holds one line for each thing to mend."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ComponentError(GanlabError):
    """Raised by a component (a plugin's class) that refuses its options or its surroundings.

    The message says what was got and what was wanted; the core puts the experiment's file and table before it and
    treats it as the user's mistake (exit code 2).
    """

    exit_code = 2


class CannotWrite(GanlabError, OSError):
    """A file that could not be written whole; what was there before still is."""


class PluginFailed(GanlabError):
    """A plugin's code raised where nothing can go on without it. `trace` is the traceback from its own code on."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


class OutOfMemory(GanlabError):
    """A step needs more memory than there is."""


class NotDeterministic(GanlabError):
    """train.deterministic is asked for, and an operation has no deterministic implementation."""


class Diverged(GanlabError):
    """A term, a gradient, a weight or the running average became NaN or infinite."""

    exit_code = 3


class Interrupted(GanlabError):
    """The run was asked to stop; its state is saved and it can be resumed."""

    exit_code = 75


def one_line(error: object, limit: int = 300) -> str:
    """What an error (or a text) says, or its name where it says nothing, without line breaks and not without end."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}…"


LONGEST_NAME = 100
"""Characters of the longest name that anything may have; what is longer was no slip of the pen."""


def quote(value: object) -> str:
    """A value as the user wrote it, shortened, on one line."""
    value = list(value) if isinstance(value, tuple) else value
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def quote_key(key: str) -> str:
    """A key as TOML has it, shortened: in quotes, without line breaks, where it is more than letters and digits."""
    return key if len(key) <= LONGEST_NAME and re.fullmatch(r"[A-Za-z0-9_-]+", key) else quote(key)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'margin'?"` for the nearest known name, else an empty string."""
    if len(name) > LONGEST_NAME:  # the search for the nearest takes quadratic time
        return ""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)
    return f"; did you mean {near[0]!r}?" if near else ""
