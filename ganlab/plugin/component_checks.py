"""ganlab.plugin.component_checks."""

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
    return [
        f"a component's name is letters, digits and '_', a letter first, got {name_or_repr(name)}: register(name, class)"
    ]


def component_class_problems(kind: Kind, cls: Any) -> list[str]:
    """Why a class is no component of a kind: every reason, each with what was wanted."""
    wanted = "expected a class decorated with @attrs.frozen"
    if not isinstance(cls, type):
        return [
            f"{wanted}, got {name_or_repr(cls)}" + (": an instance; give its class" if attrs.has(type(cls)) else "")
        ]
    problems = []
    options = {f.name: f for f in attrs.fields(cls)} if attrs.has(cls) else {}
    if "__attrs_attrs__" not in vars(cls):
        what = "dataclass" if dataclasses.is_dataclass(cls) else "class"
        problems.append(f"{wanted}, got the {what} {cls.__name__} without that")
    elif not attrs.inspect(cls).is_frozen:
        problems.append(f"{wanted}, got {cls.__name__}, which is not frozen: a component's options do not change")
    lacking = [name for name in kind.methods if name not in options and _member(cls, name) is None]
    if lacking:
        right = ", ".join(member_signature(kind.protocol, name) for name in lacking)
        problems.append(f"{cls.__name__} is no {kind.table}: it lacks {right}")
    problems += [found for name in kind.methods if name not in options for found in _misfit(kind, cls, name)]
    untyped = [f.name for f in options.values() if f.init and f.type is None]
    if untyped:
        typed = ", ".join(f"{name}: TYPE = …" for name in untyped)
        problems.append(f"{cls.__name__}: options without a type: {', '.join(untyped)}; write {typed}")
    problems += [
        f"{cls.__name__}: {name} = {quote(value)} has no type, so that it is no option; write {name}: "
        f"{type(value).__name__} = {quote(value)}, or name a constant in capitals"
        for name, value in vars(cls).items()
        if type(value) in (bool, int, float, str, tuple)
        if name.islower() and name[0] != "_" and name not in (*kind.methods, *kind.flags, *inspect.get_annotations(cls))
    ]
    problems += [
        f"{cls.__name__}: {name} is {name_or_repr(value)}; expected True or False"
        for name in kind.flags
        if not isinstance(value := _flag_default(cls, options, name), bool | property)
    ]
    try:
        typing.get_type_hints(cls)
    except NameError as error:
        problems.append(f"{cls.__name__}: the type of an option cannot be found: {error}")
    return problems


def _misfit(kind: Kind, cls: type, name: str) -> list[str]:
    """What is wrong with a member that is there: a method that takes other arguments, or is none, or should be none."""
    static = _member(cls, name)
    function = static.__func__ if isinstance(static, staticmethod | classmethod) else static
    if not isinstance(function, FunctionType):
        wants_method = isinstance(_member(kind.protocol, name), FunctionType)
        if static is None or callable(static) or not wants_method:
            return []
        return [f"{cls.__name__}: {name} is {quote(static)}; expected {member_signature(kind.protocol, name)}"]
    code = inspect.unwrap(function).__code__
    at = f"{cls.__name__}: {{}} ({code.co_filename}, line {code.co_firstlineno}): expected"
    promised = _member(kind.protocol, name)
    if isinstance(promised, property):
        return [f"{at.format(name + ', a method')} an option or a property: {member_signature(kind.protocol, name)}"]
    given = list(inspect.signature(promised).parameters)[isinstance(static, staticmethod | classmethod) :]
    try:
        inspect.signature(getattr(cls, name)).bind(*given)
    except TypeError:
        return [f"{at.format(signature_text(function))} {member_signature(kind.protocol, name)}"]
    # Arguments are given by place: the protocol's names in another order would be each other's values.
    own = [parameter for parameter in inspect.signature(function).parameters if parameter in given]
    if set(own) == set(given) and own != list(given):
        return [f"{at.format(signature_text(function))} {member_signature(kind.protocol, name)}, in this order"]
    return []


def _flag_default(cls: type, options: Mapping[str, Any], name: str) -> Any:
    """The value of a component class's optional bool attribute; True where it is absent, or an option without one."""
    if name not in options:
        return True if (value := _member(cls, name)) is None else value
    default = options[name].default
    return default if isinstance(default, int | float | str | tuple) else True


def _member(cls: type, name: str) -> Any:
    """What a class has under a name, not called; not what its own class has: every class can be called, to make one."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def name_or_repr(value: Any) -> str:
    """A class or a function by its name, anything else as it is written."""
    return value.__name__ if isinstance(value, type | FunctionType) else quote(value)


def member_signature(protocol: type, name: str) -> str:
    """A member of a protocol as an author writes it: `generator(self, real, fake)`, `every: int`."""
    member = _member(protocol, name)
    if isinstance(member, property):
        return f"{name}: {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
    return signature_text(member)


def signature_text(function: Callable[..., Any]) -> str:
    """A function as an author writes it, without types: `tick_finished(run, record)`."""
    parameters = [str(p.replace(annotation=p.empty)) for p in inspect.signature(function).parameters.values()]
    return f"{function.__name__}({', '.join(parameters)})"
