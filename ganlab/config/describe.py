"""Describes options in words: the values that an option's type accepts, its meaning and its default.

The same words are used in errors about an experiment file, in `ganlab plugins` and in the docs. They name TOML values,
not Python types.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import frozen

from ganlab.plugin.failures import CatchPluginErrors
from ganlab.plugin.fields import COMPONENT, NESTED, TABLE
from ganlab.plugin.kinds import KINDS
from ganlab.utils.errors import quote
from ganlab.utils.interval import INTERVAL_SYNTAX, Interval

_NOUNS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    dict: ("a table", "tables"),
    Mapping: ("a table", "tables"),
    list: ("a list", "lists"),
    Sequence: ("a list", "lists"),
    tuple: ("a list", "lists"),
    Interval: (INTERVAL_SYNTAX, INTERVAL_SYNTAX),
    Any: ("any value", "any values"),
}


@frozen
class Option:
    """The description of an option. `default` is None if it is required; `doc` is empty if it is undocumented."""

    name: str
    type: str
    default: str | None
    doc: str


def options_of(cls: type) -> list[Option]:
    """Describes all options of an attrs class: of a component, or of a table of the experiment file."""
    hints = typing.get_type_hints(cls)
    docs = option_docs(cls)
    return [
        Option(f.alias, describe_option_type(f, hints[f.name]), _default(f), docs.get(f.alias, "") + _where(f))
        for f in attrs.fields(cls)
        if f.init
    ]


def _where(f: attrs.Attribute[Any]) -> str:
    """Describes where an option is written, unless it is where its component is."""
    return f" It is written in `[{f.metadata[TABLE]}]`." if TABLE in f.metadata else ""


def describe_option_type(f: attrs.Attribute[Any], kind: Any) -> str:
    """Describes what an option accepts, such as "a whole number" or "the name of a loss or a table"."""
    if NESTED in f.metadata:
        nested = f.metadata[NESTED]
        return describe_component(nested) if nested in KINDS else describe_type(typing.get_args(kind)[1])
    if COMPONENT not in f.metadata:
        return describe_type(kind)
    name = f.metadata[COMPONENT]
    return f"a list of tables ([[{name}]])" if is_component_list(f) else describe_component(name)


def describe_component(kind: str) -> str:
    """Describes how TOML names a component of a kind."""
    article = "" if kind == "features" else "an " if kind[0] in "aeiou" else "a "
    return f"the name of {article}{kind} or a table"


def is_component_list(f: attrs.Attribute[Any]) -> bool:
    """Whether to describe an attrs field as a list: made by `ganlab.components`, not by `ganlab.component`."""
    return isinstance(f.default, attrs.Factory)  # type: ignore[arg-type]


def describe_type(kind: Any, plural: bool = False) -> str:
    """Describes the TOML values of a Python type, such as "a list of 2 numbers"; None is omitted (TOML has none)."""
    if kind in _NOUNS:
        return _NOUNS[kind][plural]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return alternatives([quote(choice) for choice in arguments])
    if origin in (typing.Union, types.UnionType):
        return alternatives([describe_type(member, plural) for member in arguments if member is not type(None)])
    if isinstance(origin, type) and issubclass(origin, Sequence):
        head = "lists" if plural else "a list"
        inner = [argument for argument in arguments if argument is not Ellipsis]
        if origin is not tuple or Ellipsis in arguments:
            return f"{head} of {describe_type(inner[0], plural=True)}"
        if len(set(inner)) == 1:
            return f"{head} of {len(inner)} {describe_type(inner[0], plural=True)}"
        return f"{head} of {', '.join(describe_type(member) for member in inner)}"
    if origin in _NOUNS:
        return _NOUNS[origin][plural]
    if (isinstance(origin, type) and issubclass(origin, Mapping)) or attrs.has(kind):
        return _NOUNS[dict][plural]
    return str(getattr(kind, "__name__", kind))


def alternatives(words: Sequence[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def class_description(cls: type) -> str:
    """Describes a component: the docstring of its class without the lines that document its options."""
    return "\n\n".join(paragraph for paragraph, explained in _paragraphs(cls) if not explained)


def option_docs(cls: type) -> dict[str, str]:
    """Describes options in their class's words: parses docstring lines such as "lr: the learning rate".

    "one, other: …" documents several options; it continues up to the next empty line.
    """
    return {name: text for text, names in _paragraphs(cls) for name in names}


def _paragraphs(cls: type) -> list[tuple[str, tuple[str, ...]]]:
    """Splits a class's docstring at empty lines and before every option; each part has the options it documents."""
    names = {f.alias for f in attrs.fields(cls) if f.init}
    found: list[tuple[list[str], tuple[str, ...]]] = [([], ())]
    # "size: of each. count: of all" on one line is split as well.
    text = re.sub(
        rf"(?<=[.;]) (?=(?:{'|'.join(names)})(?:, \w+)*: )" if names else "$^", "\n", inspect.getdoc(cls) or ""
    )
    for line in text.splitlines():
        match = re.match(r"(\w+(?:, \w+)*): +(.*)", line)
        if match and names.issuperset(explained := tuple(match[1].split(", "))):
            found.append(([match[2]], explained))
        elif not line.strip():
            found.append(([], ()))
        else:
            found[-1][0].append(line.strip() if found[-1][1] else line)
    return [((" " if explained else "\n").join(lines), explained) for lines, explained in found if lines]


def _default(f: attrs.Attribute[Any]) -> str | None:
    """Describes an option's default as in an experiment file; None for a required option."""
    if f.default is attrs.NOTHING:
        return None
    value: Any = f.default
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        if value.takes_self:
            return "made from the other options"
        with CatchPluginErrors() as caught:
            value = value.factory()
        if caught.error is not None:
            return f"none, since it raises {type(caught.error).__name__}"
    if value is None:
        return "none"
    if isinstance(value, Interval):
        value = value.to_toml()
    return quote(list(value) if isinstance(value, tuple) else value)
