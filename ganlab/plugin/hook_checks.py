"""Checks of a plugin's hook implementations: names, arguments, and hooks or arguments under a former name.

Decisions:
- All mistakes of a module are reported at once, each with its line and the right signature.
- A renamed hook or argument works under its former name until the release in `hookspecs.RENAMED`. If a module
  implements a hook under both names, the former is for older releases of ganlab, and only the present one is called.
  (pluggy's `warn_on_impl` only warns: it would call both, and cannot rename an argument.)
- A function that looks like a hook but is not (no `@hookimpl`, or in a class) is an error: it would never be called.
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
"""The attribute that `@hookimpl` sets on a function."""


@define
class Hooks:
    """The hook implementations of a plugin's module, as checked, with their problems and deprecation warnings."""

    implementations: dict[str, Callable[..., Any]] = field(factory=dict)
    problems: list[str] = field(factory=list)
    outdated: list[str] = field(factory=list)

    def plugin(self, name: str) -> ModuleType:
        """Returns a module with only these checked hook implementations, to be registered with pluggy."""
        module = ModuleType(name)
        vars(module).update(self.implementations)
        return module


def find_hooks(module: ModuleType) -> Hooks:
    """Finds and checks the hooks that a plugin's module implements; returns them with everything wrong with them."""
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
                hooks.problems.append(f"{at}: no such hook: renamed in {former.ends}; the hook is {now}")
                continue
            hooks.outdated.append(f"{at} is now {now}; the former name works until {former.ends}")
            name = former.new
        if name not in known:
            hooks.problems.append(f"{at}: no such hook{did_you_mean(name, known)}")
            continue
        problems, renamed = _arguments(name, function, known[name])
        hooks.problems += [f"{at}: {problem}" for problem in problems]
        for old, (new, ends) in renamed.items():
            now = f"argument {old!r} is now {new!r}, as in {signature_text(known[name])}"
            hooks.outdated.append(f"{at}: {now}; the former name works until {ends}")
        if not problems:
            names = {old: new for old, (new, _) in renamed.items()}
            hooks.implementations[name] = _with_arguments(function, names) if names else function
    hooks.problems += _overlooked(module, known)
    if not marked and not hooks.problems:
        hooks.problems.append("implements no hook; decorate a function such as register_losses with @ganlab.hookimpl")
    return hooks


def hookspecs_by_name() -> dict[str, Callable[..., Any]]:
    """Returns all hook specifications by name."""
    return {name: value for name, value in vars(hookspecs).items() if hasattr(value, "ganlab_spec")}


def line_of_function(function: Callable[..., Any], module: ModuleType) -> str:
    """Formats the line number of a hook implementation, with its file if that is not the plugin's module."""
    code = inspect.unwrap(function).__code__
    file = "" if code.co_filename == getattr(module, "__file__", None) else f"{code.co_filename}, "
    return f"{file}line {code.co_firstlineno}"


def release_reached(release: str) -> bool:
    """Whether a former hook name has ended: ganlab is at that release ("0.3") or later, or at its candidate."""
    now, then = ([int(part) for part in re.findall(r"\d+", text)[:2]] for text in (ganlab.__version__, release))
    return now >= then


def _marked(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yields the hook implementations to check, marked by `@hookimpl`, each with the name of its hook."""
    for name, function in vars(module).items():
        if isinstance(function, FunctionType) and hasattr(function, MARK):
            yield getattr(function, MARK).get("specname") or name, function


def _arguments(
    name: str, function: Callable[..., Any], spec: Callable[..., Any]
) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Checks the arguments of a hook implementation; also returns those under a former name, with their `Renamed`."""
    wanted = inspect.signature(spec).parameters
    got = inspect.signature(function).parameters
    right = f"the hook is {signature_text(spec)}"
    problems, renamed = [], {}
    for argument, parameter in got.items():
        former = hookspecs.RENAMED.get(f"{name}.{argument}")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            problems.append(f"argument {argument!r} is not positional; {right}")
        elif argument not in wanted and former is not None and former.new not in got:
            if release_reached(former.ends):
                problems.append(f"unknown argument {argument!r}: renamed to {former.new!r} in {former.ends}; {right}")
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
    """Wraps a hook implementation so that its arguments have the given new names."""
    arguments = ", ".join(names.get(argument, argument) for argument in inspect.signature(function).parameters)
    # pluggy reads the names of the arguments from the function's code object, so a new one is needed.
    renamed: Callable[..., Any] = eval(f"lambda {arguments}: function({arguments})", {"function": function})
    vars(renamed)[MARK] = getattr(function, MARK)
    return renamed


def _overlooked(module: ModuleType, known: dict[str, Callable[..., Any]]) -> Iterator[str]:
    """Checks for functions that are meant as hooks but would not be called: without `@hookimpl`, or in a class."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType) and not hasattr(value, MARK) and name in known:
            arguments = set(inspect.signature(value).parameters)
            # A helper function that happens to have a hook's name takes other arguments.
            if arguments and arguments <= set(inspect.signature(known[name]).parameters):
                problem = f"{name!r} is the name of a hook, but the function is not marked as one"
                right = f"@ganlab.hookimpl above def {signature_text(known[name])}"
                yield f"{line_of_function(value, module)}: {problem}: write {right}"
        elif isinstance(value, type):
            for inner, function in vars(value).items():
                if isinstance(function, FunctionType) and hasattr(function, MARK):
                    right = f": def {signature_text(known[inner])}" if inner in known else ""
                    where = f"{line_of_function(function, module)}: hook {inner!r} in the class {name!r}"
                    yield f"{where}: hooks must be functions of the module, not of a class{right}"
