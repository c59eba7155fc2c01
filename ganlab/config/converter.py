"""Converts TOML tables to attrs classes and back, with strict types and all errors at once.

cattrs selects the conversion for each type. Its lenient defaults ("false" is True, 3.9 is 3) are replaced by hooks that
accept a value only if it has the type. A field made by `ganlab.component(kind)` accepts a component: its name, or a
table with `name` and its options, which are the fields of its class.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import cattrs
from attrs import frozen

from ganlab.config.describe import describe_component, describe_option_type, describe_type, is_component_list
from ganlab.plugin.component import Component, MissingComponent
from ganlab.plugin.failures import CatchPluginErrors, attribute_to_plugin
from ganlab.plugin.fields import COMPONENT, NESTED
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.registry import Registry
from ganlab.utils.errors import ComponentError, PluginFailed, UserError, did_you_mean, one_line, quote, quote_key
from ganlab.utils.interval import Interval

MAX_NAMED_PROBLEMS = 10
"""The most problems of one kind in a table or list that are listed one by one."""

MOST_TABLES, MOST_VALUES, LONGEST_TEXT = 100, 1000, 4096
"""Limits of a list of components, of any other list, and of a text in characters."""


@frozen
class Problem:
    """An error that the converter found. `path` is its key, such as "loss.margin"; empty for the whole table."""

    path: str
    message: str

    def under(self, prefix: str | int) -> Problem:
        head = f"[{prefix}]" if isinstance(prefix, int) else prefix
        joint = "." if self.path and not self.path.startswith("[") else ""
        return Problem(f"{head}{joint}{self.path}", self.message)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidTable(Exception):
    """Exception with all problems of a table that cannot be converted to its class."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class TableConverter:
    """Converts between TOML tables and attrs classes; component names are looked up in the registry."""

    def __init__(
        self,
        registry: Registry,
        optional: Collection[str] = (),
        more_keys: Mapping[type, Collection[str]] | None = None,
    ) -> None:
        """Conversion with this registry; an unknown component of an `optional` kind becomes a `MissingComponent`.

        `more_keys` are keys of a class's table that were taken out of it, for messages about unknown ones.
        """
        self.registry = registry
        self.optional = optional
        self.more_keys = more_keys or {}
        self.converter = cattrs.Converter(detailed_validation=True)
        for kind in (bool, int, str, float):
            self.converter.register_structure_hook(kind, _strict(kind))
        self.converter.register_structure_hook(Path, lambda value, _: Path(_strict(str)(value, str)))
        self.converter.register_structure_hook(Interval, lambda value, _: Interval.parse(value))
        self.converter.register_structure_hook_func(_is_literal, _literal)
        self.converter.register_structure_hook_func(_is_sequence, self._sequence)
        self.converter.register_structure_hook_func(_is_mapping, self._mapping)
        self.converter.register_structure_hook_func(_is_union, self._union)
        self.converter.register_structure_hook_func(
            lambda cls: isinstance(cls, type) and attrs.has(cls) and cls is not Interval, self._table
        )

    # ----------------------------------------------------------------------------------------------------------------
    # Reading
    # ----------------------------------------------------------------------------------------------------------------

    def read(self, table: object, cls: type[Any]) -> Any:
        """Converts a TOML table to an instance of `cls`. Raises InvalidTable with all problems."""
        return self._table(table, cls)

    def _table(self, table: object, cls: type[Any]) -> Any:
        if not isinstance(table, Mapping):
            raise InvalidTable([Problem("", f"expected a table, got {quote(table)}")])
        hints = typing.get_type_hints(cls)
        fields = {f.alias: f for f in attrs.fields(cls) if f.init and NESTED not in f.metadata}
        known = [*fields, *self.more_keys.get(cls, ())]
        unknown = [key for key in table if key not in fields]
        problems = [
            Problem(quote_key(key), f"unknown key{did_you_mean(key, known) or _listing(known)}")
            for key in unknown[:MAX_NAMED_PROBLEMS]
        ]
        if len(unknown) > MAX_NAMED_PROBLEMS:
            problems.append(Problem("", f"and {len(unknown) - MAX_NAMED_PROBLEMS:,} more unknown keys"))
        values: dict[str, Any] = {}
        for key, f in fields.items():
            with _collect_problems(problems, key):
                if key in table:
                    values[key] = self._field(f, hints[f.name], table[key])
                elif COMPONENT in f.metadata and isinstance(f.default, str):
                    values[key] = self._field(f, hints[f.name], f.default)
                elif f.default is attrs.NOTHING:
                    raise ValueError(f"missing; {describe_option_type(f, hints[f.name])} is needed")
        for key, value in values.items():
            with _collect_problems(problems, key):
                _validate(fields[key], value)
        if problems:
            raise InvalidTable(problems)
        with _collect_problems(problems, ""):
            return cls(**values)
        # The messages of __attrs_post_init__ start with the name of the option at fault.
        heads = [(problem, *problem.message.partition(": ")) for problem in problems]
        raise InvalidTable([Problem(head, rest) if head in fields else problem for problem, head, _, rest in heads])

    def _field(self, f: attrs.Attribute[Any], kind: Any, value: object) -> Any:
        if COMPONENT not in f.metadata:
            return self.converter.structure(value, kind)
        name = f.metadata[COMPONENT]
        if not is_component_list(f):
            return None if value is None else self.component(name, value)
        if not isinstance(value, list):
            raise ValueError(f"expected {describe_option_type(f, kind)}, got {quote(value)}")
        if len(value) > MOST_TABLES:
            raise ValueError(f"expected at most {MOST_TABLES} tables, got {len(value):,}")
        problems: list[Problem] = []
        made = []
        for index, item in enumerate(value):
            with _collect_problems(problems, index):
                made.append(self.component(name, item))
        if problems:
            raise InvalidTable(problems)
        return tuple(made)

    def component(self, kind: str, value: object) -> Any:
        """Converts a component's name, or a table with `name` and its options, to an instance of its class."""
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            raise ValueError(f"expected {describe_component(kind)}, got {quote(value)}")
        name = table.get("name")
        if not isinstance(name, str):
            names = ", ".join(c.name for c in self.registry.of_kind(kind))
            raise ValueError(f"name: expected the name of a {kind} ({names}), got {quote(name) if name else 'none'}")
        try:
            component = self.registry.find(kind, name)
        except UserError as error:
            if kind in self.optional:
                return MissingComponent(kind, name, {key: item for key, item in table.items() if key != "name"})
            raise InvalidTable([Problem("name", line) for line in error.problems]) from None
        with CatchPluginErrors() as caught:  # a validator, a converter or a default that a plugin computes
            return self._table({key: item for key, item in table.items() if key != "name"}, component.cls)
        raised = caught.error
        assert raised is not None
        if not isinstance(raised, InvalidTable | PluginFailed):
            raised = attribute_to_plugin(raised, self.registry, f"when {kind} {name!r} was made from its options")
        raise raised

    def _sequence(self, value: object, kind: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"expected {describe_type(kind)}, got {quote(value)}")
        if len(value) > MOST_VALUES:
            raise ValueError(f"expected at most {MOST_VALUES:,} values, got {len(value):,}")
        arguments = typing.get_args(kind) or (Any, ...)
        inner = [argument for argument in arguments if argument is not Ellipsis]
        fixed = typing.get_origin(kind) is tuple and Ellipsis not in arguments
        if fixed and len(value) != len(inner):
            raise ValueError(f"expected {describe_type(kind)}, got {quote(value)}")
        problems: list[Problem] = []
        made = []
        for index, item in enumerate(value):
            with _collect_problems(problems, index):
                made.append(self.converter.structure(item, inner[index] if fixed else inner[0]))
        if problems:
            more = (
                [Problem("", f"and {len(problems) - MAX_NAMED_PROBLEMS:,} more")]
                if len(problems) > MAX_NAMED_PROBLEMS
                else []
            )
            raise InvalidTable([*problems[:MAX_NAMED_PROBLEMS], *more])
        return tuple(made) if tuple in (kind, typing.get_origin(kind)) else made

    def _mapping(self, value: object, kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected {describe_type(kind)}, got {quote(value)}")
        if len(value) > MOST_VALUES:
            raise ValueError(f"expected at most {MOST_VALUES:,} keys, got {len(value):,}")
        problems: list[Problem] = []
        made = {}
        for key, item in value.items():
            with _collect_problems(problems, quote_key(key)):
                made[key] = self.converter.structure(item, (*typing.get_args(kind), Any, Any)[1])
        if problems:
            raise InvalidTable(problems[:MAX_NAMED_PROBLEMS])
        return made

    def _union(self, value: object, kind: Any) -> Any:
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        if value is None and len(members) < len(typing.get_args(kind)):
            return None
        failures: list[Problem] = []
        for member in members:
            tried: list[Problem] = []
            with _collect_problems(tried, ""):
                return self.converter.structure(value, member)
            failures += tried
        if len(members) == 1:
            raise InvalidTable(failures)
        raise ValueError(f"expected {describe_type(kind)}, got {quote(value)}")

    # ----------------------------------------------------------------------------------------------------------------
    # Writing
    # ----------------------------------------------------------------------------------------------------------------

    def write(self, instance: Any) -> dict[str, Any]:
        """Converts an instance back to a TOML table with all its options; None is omitted."""
        table: dict[str, Any] = {}
        for f in attrs.fields(type(instance)):
            value = getattr(instance, f.name)
            if f.init and value is not None and NESTED not in f.metadata:
                table[f.alias] = self._written(value, f.metadata.get(COMPONENT))
        return table

    def components_in(self, instance: Any) -> Iterator[Component]:
        """Yields all registered components that were converted for an experiment, nested ones too."""
        for f in attrs.fields(type(instance)):
            kind, value = f.metadata.get(COMPONENT), getattr(instance, f.name)
            if f.metadata.get(NESTED) in KINDS:
                kind, value = f.metadata[NESTED], tuple(value.values())
            if kind is not None and value is not None:
                for item in value if isinstance(value, tuple) else (value,):
                    if isinstance(item, MissingComponent):
                        continue
                    yield self.registry.component_of(kind, item)
                    yield from self.components_in(item)

    def _written(self, value: Any, kind: str | None) -> Any:
        if isinstance(value, (tuple, list)):
            return [self._written(item, kind) for item in value]
        if isinstance(value, MissingComponent):
            return {"name": value.name, **value.options}
        if kind is not None:
            return {"name": self.registry.component_of(kind, value).name, **self.write(value)}
        if isinstance(value, Interval):
            return value.to_toml()
        if attrs.has(type(value)):
            return self.write(value)
        if isinstance(value, Mapping):
            return {key: self._written(item, None) for key, item in value.items()}
        return str(value) if isinstance(value, Path) else value


class _collect_problems:
    """Context manager that turns conversion errors in its body into problems under a key."""

    def __init__(self, problems: list[Problem], key: str | int) -> None:
        self.problems, self.key = problems, key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        found = list(_error_to_problems(error))
        self.problems += [problem.under(self.key) if self.key != "" else problem for problem in found]
        return bool(found)


def _error_to_problems(error: BaseException) -> Iterator[Problem]:
    if isinstance(error, InvalidTable):
        yield from error.problems
    elif isinstance(error, BaseExceptionGroup):  # cattrs, for its own containers
        for inner in error.exceptions:
            yield from _error_to_problems(inner)
    elif isinstance(error, (ValueError, TypeError, UserError, ComponentError, cattrs.StructureHandlerNotFoundError)):
        yield Problem("", one_line(error))


def _validate(f: attrs.Attribute[Any], value: object) -> None:
    """Runs the validator of one converted attrs field, so that one invalid option does not hide another."""
    if f.validator is None:
        return
    try:
        f.validator(None, f, value)
    except (ValueError, TypeError) as error:
        # Messages of attrs start with the field's name and end with a value; some validators add more arguments.
        text = str(error.args[0]).removeprefix(f"'{f.name}' ").replace(f"Length of '{f.name}'", "its length")
        text = re.sub(r": [^:]*$", "", text)
        raise ValueError(text if repr(value) in text else f"{text}, got {quote(value)}") from None


def _strict(kind: type) -> Callable[[object, Any], Any]:
    def structure(value: object, _: Any) -> Any:
        if type(value) is int and kind in (int, float) and not -(2**63) <= value < 2**63:
            raise ValueError("expected a number of at most 64 bits")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"expected {describe_type(kind)}, got {quote(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number, got {quote(value)}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"a text cannot hold a zero byte, got {quote(value)}")
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise ValueError(f"expected a text of at most {LONGEST_TEXT:,} characters, got {len(value):,}")
        return value

    return structure


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _literal(value: object, kind: Any) -> Any:
    choices = typing.get_args(kind)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    near = did_you_mean(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
    raise ValueError(f"expected {describe_type(kind)}, got {quote(value)}{near}")


def _is_sequence(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in (list, tuple, Sequence)


def _is_mapping(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in (dict, Mapping)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _listing(fields: Collection[str]) -> str:
    return f"; the keys are: {', '.join(fields)}" if fields else "; it has no options"
