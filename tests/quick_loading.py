"""Loading plugins in a quarter of the time, for the tests' own processes and those that are forked from them.

What is installed does not change while the tests run, nor do the bundled components. A plugin's file is checked
whenever it is loaded.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ganlab.plugin import component_checks, hook_checks, loader, registry
from ganlab.plugin.hook_checks import Hooks
from ganlab.plugin.kinds import Kind

_find_entry_points = importlib.metadata.entry_points
_check_class = component_checks.component_class_problems
_find_hooks = hook_checks.find_hooks
_walk = loader._walk


@functools.cache
def _entry_points(path: tuple[str, ...], **parameters: str) -> Any:
    return _find_entry_points(**parameters)


@functools.cache
def _check_bundled_class(kind: Kind, cls: type) -> list[str]:
    return _check_class(kind, cls)


def _check_any_class(kind: Kind, cls: Any) -> list[str]:
    bundled = isinstance(cls, type) and cls.__module__.startswith("ganlab_plugins.")
    return (_check_bundled_class if bundled else _check_class)(kind, cls)


@functools.cache
def _find_bundled_hooks(module: ModuleType) -> Hooks:
    return _find_hooks(module)


def _find_any_hooks(module: ModuleType) -> Hooks:
    return (_find_bundled_hooks if module.__name__.startswith("ganlab_plugins.") else _find_hooks)(module)


@functools.cache
def _walk_once(locations: tuple[str, ...], prefix: str) -> list[tuple[str, Path]]:
    return list(_walk(locations, prefix))


# Looking for entry points and checking classes take most of the time of loading plugins, which every command does.
importlib.metadata.entry_points = lambda **parameters: _entry_points(tuple(sys.path), **parameters)
registry.component_class_problems = _check_any_class
loader.find_hooks = _find_any_hooks
loader._walk = lambda locations, prefix: _walk_once(tuple(locations), prefix)


def keep_what_is_imported() -> None:
    """What was imported until now is never garbage.

    Without this each full collection looks through a million objects, which takes longer than what many tests test.
    """
    gc.collect()
    gc.freeze()
