"""The components that a plugin file registers, as subjects of the conformance suite: `conformance` and `Subject`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from attrs import field, frozen

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.plugin.component import Component
from ganlab.plugin.failures import CatchPluginErrors, PluginFailure
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.kinds import KINDS, NETWORK_KINDS
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.plugin.registry import Registry
from ganlab.testing.check_result import Check
from ganlab.testing.suite import check
from ganlab.testing.tiny_components import tiny_options, tiny_registry
from ganlab.utils.errors import UserError, did_you_mean, quote
from ganlab.utils.paths import expand_home


@frozen
class Subject:
    """A component of a plugin file, to be checked for conformance: its kind, name, class, and an instance with options.

    `instance` is None where the component has its defaults. `networks` are the configurations of the file's own
    networks, by kind, for a penalty that needs them.
    """

    kind: str
    name: str
    cls: type
    location: str = field(repr=False)
    instance: Any = field(default=None, repr=False)
    networks: Mapping[str, Sequence[Any]] = field(factory=dict, repr=False)

    def check(self, device: str = "cpu") -> list[Check]:
        """Runs all checks; returns the results. On a `device` other than the CPU the component is tried too."""
        return check(self.cls if self.instance is None else self.instance, self.kind, self.networks, device)

    def hold(self, device: str = "cpu") -> None:
        """In a plugin file's own tests: checks this component; raises AssertionError with a line for every fault."""
        if faults := [str(found) for found in self.check(device) if not found.passed]:
            raise AssertionError("\n".join([f"{self}:", *faults]))

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def conformance(
    plugin: Path | str | ModuleType, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Subject]:
    """Returns the components that a plugin file registers, as parameters of a conformance test; a module is one too.

    `options` are those of components by name, as in the experiment file: `{"wedge": {"margin": 0.5}}`, or by kind and
    name where two kinds have one name: `{"generator": {"mlp": {"slope": 0.1}}}`. Raises UserError with the cause where
    the file cannot be loaded.
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
    path = expand_home(path).resolve()
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
    path = expand_home(path).resolve()
    mine = [part for kind in KINDS for part in plugins.registry.of_kind(kind) if part.origin.file == path]
    chosen, problems = _options_by_component(mine, options)
    instances: dict[Component, Any] = {}
    for part, given in chosen.items():
        try:
            instances[part] = _with_options(part, plugins.registry, given)
        except InvalidTable as error:
            shared = sum(other.name == part.name for other in mine) > 1
            key = f"{part.kind}.{part.name}" if shared else part.name
            problems += [f"{key}.{problem}" for problem in error.problems]
    if problems:
        raise UserError(*problems)
    networks = {kind: _networks(mine, kind, instances) for kind in NETWORK_KINDS}
    return [Subject(part.kind, part.name, part.cls, part.location, instances.get(part), networks) for part in mine]


def _options_by_component(
    mine: Sequence[Component], options: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[Component, dict[str, Any]], list[str]]:
    """Finds the component of a plugin file for the options under each NAME or KIND.NAME; returns problems too."""
    chosen: dict[Component, dict[str, Any]] = {}
    problems = []
    for name, given in options.items():
        of_kind = [part for part in mine if part.kind == name]
        named = [part for part in mine if part.name == name]
        if of_kind and not (named and not any(part.name in given for part in of_kind)):
            by_name = {part.name: part for part in of_kind}
            for inner, values in given.items():
                if inner in by_name and isinstance(values, Mapping):
                    chosen.setdefault(by_name[inner], {}).update(values)
                elif inner in by_name:
                    problems.append(f"{name}.{inner}: expected options of the {name}, got {quote(values)}")
                else:
                    problems.append(f"{name}.{inner}: the file registers no such {name}{_near(inner, by_name)}")
        elif len(named) > 1:
            kinds = [part.kind for part in named]
            ways = " or ".join(f"{kind}.{name}" for kind in kinds)
            problems.append(f"{name}: the file registers a {' and a '.join(kinds)} of that name; write {ways}")
        elif named:
            chosen.setdefault(named[0], {}).update(given)
        else:
            names = list(dict.fromkeys(part.name for part in mine))
            problems.append(f"{name}: the file registers no such component{_near(name, names)}")
    return chosen, problems


def _networks(mine: Sequence[Component], kind: str, instances: Mapping[Component, Any]) -> list[Any]:
    """A plugin file's own networks of a kind, those left out that need an option that is not given."""
    found = []
    for part in (part for part in mine if part.kind == kind):
        with CatchPluginErrors():  # it has a check of its own that reports it
            found.append(instances[part] if part in instances else part.cls(**tiny_options(part.cls)))
    return found


def _with_options(part: Component, registry: Registry, options: Mapping[str, Any]) -> Any:
    """Creates a plugin file's component from the options of `--set`, with the suite's own for those that take one."""
    tiny = tiny_options(part.cls, options)
    names = {f.alias: f"tiny_{f.metadata[COMPONENT]}" for f in attrs.fields(part.cls) if f.alias in tiny}
    instance = TableConverter(tiny_registry(registry)).component(part.kind, {**names, **options, "name": part.name})
    return attrs.evolve(instance, **tiny)


def _near(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, names) or f"; it registers: {', '.join(names) or 'none'}"
