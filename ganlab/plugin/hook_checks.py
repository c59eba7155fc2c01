"""From a plugin's module to its hook implementations, under their present names; and what is wrong with them.

Decisions:
- Every mistake of a module is found, each with its line and the right signature, not the first one only.
- A hook, or an argument, that was renamed is still taken by its former name until the release that `hookspecs.RENAMED`
  says. A module that has both names has the former for older releases of ganlab, and only the present one is called.
- A function that looks like a hook and is none (no `@hookimpl`, or in a class) is a mistake: it would never be called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from attrs import define, field

import ganlab
from ganlab.plugin import hookspecs
from ganlab.plugin.component_checks import signature_text
from ganlab.utils.errors import did_you_mean

MARK = "ganlab_impl"
"""The attribute by which `@hookimpl` marks a function."""


@define
class Hooks:
    """A module's implementations, what is wrong with them, and what a coming release will no longer take."""

    implementations: dict[str, Callable[..., Any]] = field(factory=dict)
    problems: list[str] = field(factory=list)
    outdated: list[str] = field(factory=list)

    def plugin(self, name: str) -> ModuleType:
        """What pluggy is given: a module with these implementations and nothing else."""
        module = ModuleType(name)
        vars(module).update(self.implementations)
        return module


def find_hooks(module: ModuleType) -> Hooks:
    """The hooks that a module implements, and everything that is wrong with them."""
    hooks = Hooks()
    known = hookspecs_by_name()
    marked = dict(_marked(module))
    for written, function in marked.items():
        at = f"{line_of_function(function, module)}: hook {written!r}"
        name = written
        former = hookspecs.RENAMED.get(written)
        if written not in known and former is not None:
            now = signature_text(known[former.new])
            if former.new in marked:
                continue
            if release_reached(former.ends):
                hooks.problems.append(f"{at}: no such hook: since {former.ends} it is only {now}")
                continue
            hooks.outdated.append(f"{at} is now {now}; the former name is taken until {former.ends}")
            name = former.new
        if name not in known:
            hooks.problems.append(f"{at}: no such hook{did_you_mean(name, known)}")
            continue
        problems, renamed = _arguments(name, function, known[name])
        hooks.problems += [f"{at}: {problem}" for problem in problems]
        for old, (new, ends) in renamed.items():
            now = f"argument {old!r} is now {new!r}, as in {signature_text(known[name])}"
            hooks.outdated.append(f"{at}: {now}; the former name is taken until {ends}")
        if not problems:
            names = {old: new for old, (new, _) in renamed.items()}
            hooks.implementations[name] = _with_arguments(function, names) if names else function
    hooks.problems += _overlooked(module, known)
    if not marked and not hooks.problems:
        hooks.problems.append(
            "it implements no hook; decorate a function such as register_losses with @ganlab.hookimpl"
        )
    return hooks


def hookspecs_by_name() -> dict[str, Callable[..., Any]]:
    """Every hook there is, by name."""
    return {name: value for name, value in vars(hookspecs).items() if hasattr(value, "ganlab_spec")}


def line_of_function(function: Callable[..., Any], module: ModuleType) -> str:
    """The line of a function, with its file where that is not the module's."""
    code = inspect.unwrap(function).__code__
    file = "" if code.co_filename == getattr(module, "__file__", None) else f"{code.co_filename}, "
    return f"{file}line {code.co_firstlineno}"


def release_reached(release: str) -> bool:
    """Whether this is that release ("0.3") or a later one; a release candidate counts as the release."""
    now, then = ([int(part) for part in re.findall(r"\d+", text)[:2]] for text in (ganlab.__version__, release))
    return now >= then


def _marked(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The functions that `@hookimpl` marks, by the name of the hook that each is written for."""
    for name, function in vars(module).items():
        if isinstance(function, FunctionType) and hasattr(function, MARK):
            yield getattr(function, MARK).get("specname") or name, function


def _arguments(
    name: str, function: Callable[..., Any], spec: Callable[..., Any]
) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """What is wrong with the arguments of an implementation; and those by a former name: the new one, until when."""
    wanted = inspect.signature(spec).parameters
    got = inspect.signature(function).parameters
    right = f"the hook is {signature_text(spec)}"
    problems, renamed = [], {}
    for argument, parameter in got.items():
        former = hookspecs.RENAMED.get(f"{name}.{argument}")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            problems.append(f"argument {argument!r} has no place of its own; {right}")
        elif argument not in wanted and former is not None and former.new not in got:
            if release_reached(former.ends):
                problems.append(f"unknown argument {argument!r}: since {former.ends} it is {former.new!r}; {right}")
            else:
                renamed[argument] = (former.new, former.ends)
        elif argument not in wanted:
            problems.append(f"unknown argument {argument!r}; {right}")
        elif parameter.default is not parameter.empty:
            problems.append(f"argument {argument!r} has a default value; {right}")
    if name.startswith("register_") and not got:
        problems.append(f"without 'register' it cannot register anything; {right}")
    return problems, renamed


def _with_arguments(function: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
    """The same implementation with arguments renamed."""
    arguments = ", ".join(names.get(argument, argument) for argument in inspect.signature(function).parameters)
    # pluggy reads the names of arguments from a function's code: there has to be code that has them.
    renamed: Callable[..., Any] = eval(f"lambda {arguments}: function({arguments})", {"function": function})
    vars(renamed)[MARK] = getattr(function, MARK)
    return renamed


def _overlooked(module: ModuleType, known: dict[str, Callable[..., Any]]) -> Iterator[str]:
    """Functions of the module that are meant as hooks, and would not be called."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType) and not hasattr(value, MARK) and name in known:
            arguments = set(inspect.signature(value).parameters)
            # A helper that happens to have a hook's name takes something else.
            if arguments and arguments <= set(inspect.signature(known[name]).parameters):
                right = f"@ganlab.hookimpl above def {signature_text(known[name])}"
                yield f"{line_of_function(value, module)}: {name!r} is a hook's name, and it is not marked as one: write {right}"
        elif isinstance(value, type):
            for inner, function in vars(value).items():
                if isinstance(function, FunctionType) and hasattr(function, MARK):
                    right = f": def {signature_text(known[inner])}" if inner in known else ""
                    where = f"{line_of_function(function, module)}: hook {inner!r} in the class {name!r}"
                    yield f"{where}: hooks are functions of the module, outside any class{right}"
