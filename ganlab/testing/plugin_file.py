"""The components that a plugin file registers, as subjects of the conformance suite: `conformance` and `Subject`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from attrs import field, frozen

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.plugin.component import Component
from ganlab.plugin.failures import PluginFailure
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.plugin.registry import Registry
from ganlab.testing.check_result import Check
from ganlab.testing.suite import check
from ganlab.testing.tiny_components import tiny_options
from ganlab.utils.errors import UserError, did_you_mean


@frozen
class Subject:
    """A component of a plugin file, to be checked for conformance: its kind, name, class, and an instance with options.

    `instance` is None where the component has its defaults.
    """

    kind: str
    name: str
    cls: type
    location: str = field(repr=False)
    instance: Any = field(default=None, repr=False)

    def check(self) -> list[Check]:
        """Runs all checks; returns the results."""
        return check(self.cls if self.instance is None else self.instance, self.kind)

    def hold(self) -> None:
        """In a plugin file's own tests: checks this component; raises AssertionError with a line for every fault."""
        if faults := [str(found) for found in self.check() if not found.passed]:
            raise AssertionError("\n".join([f"{self}:", *faults]))

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def conformance(
    plugin: Path | str | ModuleType, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Subject]:
    """Returns the components that a plugin file registers, as parameters of a conformance test; a module is one too.

    `options` are those of components by name, as in the experiment file: `{"wedge": {"margin": 0.5}}`. Raises UserError
    with the cause where the file cannot be loaded.
    """
    path = Path(plugin.__file__ or "") if isinstance(plugin, ModuleType) else Path(plugin)
    plugins, failures = load_with_file(path)
    if failures:
        raise UserError(*map(str, failures))
    return subjects_of(path, plugins, options or {})


def load_with_file(path: Path) -> tuple[Plugins, list[PluginFailure]]:
    """Loads all plugins and the plugin file to be checked; returns them and the failures to load that file.

    A file that is loaded anyway, bundled or from a folder in GANLAB_PLUGINS, is not loaded twice.
    """
    path = path.expanduser().resolve()
    plugins = load_plugins()
    if all(origin.file != path for origin in plugins.origins.values()):
        plugins = load_plugins([path])
    if plugins.problems:
        raise UserError(*plugins.problems)
    return plugins, [failure for failure in plugins.failures if failure.origin.file == path]


def subjects_of(path: Path, plugins: Plugins, options: Mapping[str, Mapping[str, Any]]) -> list[Subject]:
    """Returns the components to check that a plugin file registered.

    Raises UserError for options of a component that it did not register, and for options that do not fit.
    """
    path = path.expanduser().resolve()
    mine = [part for kind in KINDS for part in plugins.registry.of_kind(kind) if part.origin.file == path]
    names = [part.name for part in mine]
    problems = [
        f"{name}: the file registers no such component{_near(name, names)}" for name in options if name not in names
    ]
    subjects = []
    for part in mine:
        instance = None
        if part.name in options:
            try:
                instance = _with_options(part, plugins.registry, options[part.name])
            except InvalidTable as error:
                problems += [f"{part.name}.{problem}" for problem in error.problems]
        subjects.append(Subject(part.kind, part.name, part.cls, part.location, instance))
    if problems:
        raise UserError(*problems)
    return subjects


def _with_options(part: Component, registry: Registry, options: Mapping[str, Any]) -> Any:
    """Creates a plugin file's component from the options of `--set`, with the suite's own for those that take one."""
    instance = TableConverter(registry).component(part.kind, {**options, "name": part.name})
    return attrs.evolve(instance, **tiny_options(part.cls, options))


def _near(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, names) or f"; it registers: {', '.join(names) or 'none'}"
