"""`Named`: a dict of values by name that refuses an unknown name in one line, which lists those that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ganlab.utils.errors import ComponentError, did_you_mean, quote

Value = TypeVar("Value")


class UnknownName(ComponentError, KeyError):
    """The error class for a name that is none of those known; it is a `KeyError` too."""

    def __str__(self) -> str:
        return str(self.args[0])


class Named(dict[str, Value]):
    """A dict of values by name: an unknown name raises `UnknownName`, which says what a name stands for, `what`."""

    def __init__(self, what: str, values: Mapping[str, Value] | Iterable[tuple[str, Value]] = ()) -> None:
        super().__init__(values)
        self.what = what

    def __missing__(self, name: str) -> Value:
        listed = did_you_mean(str(name), map(str, self)) or f"; there are: {', '.join(map(str, self)) or 'none'}"
        raise UnknownName(f"there is no {self.what} {quote(name)}{listed}")
