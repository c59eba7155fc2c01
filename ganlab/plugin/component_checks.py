"""Checks of a class that a plugin registers: its name, that it is `@attrs.frozen`, and the members of its protocol.

All problems of a class are reported at once, each with the line and the signature that was expected.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import attrs

from ganlab.plugin.kinds import Kind
from ganlab.utils.errors import quote


def component_name_problems(name: Any) -> list[str]:
    if isinstance(name, str) and name.isidentifier():
        return []
    wanted = "a component's name must be letters, digits and '_', a letter first"
    return [f"{wanted}, got {name_or_repr(name)}: register(name, class)"]


def component_class_problems(kind: Kind, cls: Any) -> list[str]:
    """Checks a component class: returns every reason why it cannot be one of that kind, and what was expected."""
    wanted = "expected a class decorated with @attrs.frozen"
    if not isinstance(cls, type):
        return [
            f"{wanted}, got {name_or_repr(cls)}" + (", an instance; register its class" if attrs.has(type(cls)) else "")
        ]
    problems = []
    options = {f.name: f for f in attrs.fields(cls)} if attrs.has(cls) else {}
    if "__attrs_attrs__" not in vars(cls):
        what = "dataclass" if dataclasses.is_dataclass(cls) else "class"
        problems.append(f"{wanted}, got the {what} {cls.__name__}, which is not")
    elif not attrs.inspect(cls).is_frozen:
        problems.append(f"{wanted}, got {cls.__name__}, which is not frozen: a component's options do not change")
    missing = [name for name in kind.members if name not in options and _member(cls, name) is None]
    if missing:
        signatures = ", ".join(member_signature(kind.protocol, name) for name in missing)
        problems.append(f"{cls.__name__} is not a valid {kind.table}: missing {signatures}")
    problems += [
        problem for name in kind.members if name not in options for problem in _member_problems(kind, cls, name)
    ]
    if any(f.init and f.alias == "name" for f in options.values()):
        problems.append(f"{cls.__name__}: no option can be called 'name', which chooses the component in a table")
    untyped = [f.name for f in options.values() if f.init and f.type is None]
    if untyped:
        typed = ", ".join(f"{name}: TYPE = …" for name in untyped)
        problems.append(f"{cls.__name__}: options without a type: {', '.join(untyped)}; write {typed}")
    problems += [
        f"{cls.__name__}: {name} = {quote(value)} has no type annotation, so it is not an option; write {name}: "
        f"{type(value).__name__} = {quote(value)}, {name}: ClassVar[{type(value).__name__}] for what is no option, or "
        "name a constant in capitals"
        for name, value in vars(cls).items()
        if type(value) in (bool, int, float, str, tuple)
        if name.islower() and name[0] != "_" and name not in (*kind.members, *kind.flags, *inspect.get_annotations(cls))
    ]
    problems += [
        f"{cls.__name__}: {name} is {name_or_repr(value)}; expected True or False"
        for name in kind.flags
        if not isinstance(value := _flag_default(cls, options, name), bool | property)
    ]
    try:
        typing.get_type_hints(cls)
    except NameError as error:
        problems.append(f"{cls.__name__}: the type annotation of an option cannot be resolved: {error}")
    return problems


def _member_problems(kind: Kind, cls: type, name: str) -> list[str]:
    """Checks a member of a component class against the protocol: a method or a property, and its arguments."""
    static = _member(cls, name)
    function = static.__func__ if isinstance(static, staticmethod | classmethod) else static
    if not isinstance(function, FunctionType):
        wants_method = isinstance(_member(kind.protocol, name), FunctionType)
        if static is None or callable(static) or not wants_method:
            return []
        return [f"{cls.__name__}: {name} is {quote(static)}; expected {member_signature(kind.protocol, name)}"]
    code = inspect.unwrap(function).__code__
    at = f"{cls.__name__}: {{}} ({code.co_filename}, line {code.co_firstlineno}): expected"
    declared = _member(kind.protocol, name)
    if isinstance(declared, property):
        return [f"{at.format(name + ', a method')} an option or a property: {member_signature(kind.protocol, name)}"]
    arguments = list(inspect.signature(declared).parameters)[isinstance(static, staticmethod | classmethod) :]
    try:
        inspect.signature(getattr(cls, name)).bind(*arguments)
    except TypeError:
        return [f"{at.format(signature_text(function))} {member_signature(kind.protocol, name)}"]
    # Arguments are passed by position: the protocol's names in another order would get each other's values.
    own = [parameter for parameter in inspect.signature(function).parameters if parameter in arguments]
    if set(own) == set(arguments) and own != arguments:
        return [f"{at.format(signature_text(function))} {member_signature(kind.protocol, name)}, in this order"]
    return []


def _flag_default(cls: type, options: Mapping[str, Any], name: str) -> Any:
    """Reads an optional bool attribute for the component checks; True if it is absent or has no default."""
    if name not in options:
        return True if (value := _member(cls, name)) is None else value
    default = options[name].default
    return default if isinstance(default, int | float | str | tuple) else True


def _member(cls: type, name: str) -> Any:
    """Reads a class attribute for the component checks, without descriptors or the metaclass (which has `__call__`)."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def name_or_repr(value: Any) -> str:
    """A class's or function's name, or repr."""
    return value.__name__ if isinstance(value, type | FunctionType) else quote(value)


def member_signature(protocol: type, name: str) -> str:
    """What a component check expects, a protocol's member, as an author writes it: `generator(self, real, fake)`."""
    member = _member(protocol, name)
    if isinstance(member, property):
        return f"{name}: {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
    return signature_text(member)


def signature_text(function: Callable[..., Any]) -> str:
    """A function's signature, without types."""
    parameters = [str(p.replace(annotation=p.empty)) for p in inspect.signature(function).parameters.values()]
    return f"{function.__name__}({', '.join(parameters)})"
