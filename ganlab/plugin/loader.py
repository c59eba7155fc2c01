"""Finds plugins (bundled, entry points, `GANLAB_PLUGINS`, files), imports them and calls their `register_*` hooks.

Decisions:
- Every call creates a new pluggy plugin manager: no state outlives a command or a test.
- Bundled plugins are found by walking the package `ganlab_plugins` by name: the core imports none of them.
- An exception on import or in a hook is recorded as the plugin's failure and never stops other plugins. It matters only
  to an experiment that needs a component of that plugin.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pluggy
from attrs import define, field

from ganlab.plugin import hookspecs
from ganlab.plugin.component import Origin
from ganlab.plugin.component_checks import name_or_repr
from ganlab.plugin.failures import CatchPluginErrors, PluginFailure, describe_error, line_in_plugin
from ganlab.plugin.hook_checks import find_hooks
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.local_imports import SourceLoader, find_spec, forget_local_imports, watched_imports
from ganlab.plugin.registry import RegistrationError, Registry
from ganlab.utils.errors import did_you_mean, printable, quote
from ganlab.utils.paths import expand_home

BUNDLED = "ganlab_plugins"
ENTRY_POINT_GROUP = "ganlab"


@define
class Plugins:
    """The loaded plugins of one command: the pluggy manager, the registry of components, and plugins that failed.

    `problems` are mistakes in the command's options: a plugin file that does not exist, an unknown name to block.
    `originals` are plugin files that are gone, by the copy that was loaded in place of each.
    `observers` are those plugin files of the command and its experiment that implement a hook of a run.
    """

    registry: Registry = field(factory=Registry)
    failures: list[PluginFailure] = field(factory=list)
    problems: list[str] = field(factory=list)
    origins: dict[str, Origin] = field(factory=dict)
    originals: dict[Path, Path] = field(factory=dict)
    observers: list[Origin] = field(factory=list)
    manager: pluggy.PluginManager = field(factory=lambda: pluggy.PluginManager("ganlab"))

    def __deepcopy__(self, memo: object) -> Plugins:
        """Copies share the loaded plugins, which are modules."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("plugins cannot be pickled, since they hold modules; load them again with load_plugins")

    def call_hook(self, hook: str, **arguments: Any) -> list[PluginFailure]:
        """Calls a hook of all plugins that the loader has loaded; unregisters and returns the plugins that raised."""
        failed = []
        for implementation in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            plugin = implementation.plugin
            others = [other for other in self.manager.get_plugins() if other is not plugin]
            with CatchPluginErrors() as caught:
                self.manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)
            if caught.error is not None:
                origin = self.origins[implementation.plugin_name]
                failed.append(PluginFailure(origin, f"{hook}: {describe_error(caught.error, origin)}"))
                self.manager.unregister(plugin)
        return failed


def load_plugins(files: Iterable[Path] = (), blocked: Iterable[str] = ()) -> Plugins:
    """Loads all plugins: bundled, installed, in the folders of GANLAB_PLUGINS, and `files`.

    `blocked` are names of plugins (as `ganlab plugins` shows them) that are not imported.
    """
    plugins = Plugins()
    files = [expand_home(file).resolve() for file in files]
    plugins.problems += [
        f"plugin file '{printable(file)}': "
        + ("a folder; expected a Python file" if os.path.isdir(file) else "no such file")
        for file in files
        if not os.path.isfile(file)  # which is False, and raises nothing, for a name that is too long
    ]
    files = [file for file in files if os.path.isfile(file)]
    plugins.manager.add_hookspecs(hookspecs)
    blocked = set(blocked)
    forget_local_imports()
    seen: set[str] = set()
    for origin, load in plugin_sources(files):
        seen.add(origin.plugin)
        if origin.plugin in blocked:
            continue
        problems: list[str] = []
        with CatchPluginErrors() as caught:
            problems += _register_plugin(plugins, origin, load())
        if caught.error is not None:
            problems.append(describe_error(caught.error, origin))
        plugins.failures += [PluginFailure(origin, problem) for problem in problems]
    hint = "; `ganlab plugins` shows their names"
    plugins.problems += [
        f"--no-plugin {name}: no such plugin{did_you_mean(name, seen) or hint}" for name in sorted(blocked - seen)
    ]
    plugins.registry.freeze()
    for origin in plugins.origins.values():
        callers = plugins.manager.get_hookcallers(plugins.manager.get_plugin(origin.plugin)) or []
        if origin.file in files and not all(caller.name.startswith("register_") for caller in callers):
            plugins.observers.append(origin)
    return plugins


def plugin_sources(files: Iterable[Path]) -> Iterator[tuple[Origin, Callable[[], ModuleType]]]:
    """Yields the origin of every plugin in loading order, with a function that imports it."""
    package = importlib.util.find_spec(BUNDLED)
    if package is not None and package.submodule_search_locations:
        version = _version("ganlab")
        for module in sorted(_walk(package.submodule_search_locations, ""), key=lambda item: item[0]):
            name, file = module
            origin = Origin(name, "bundled", "ganlab", version, file)
            yield origin, lambda name=name: importlib.import_module(f"{BUNDLED}.{name}")  # type: ignore[misc]

    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for point in sorted(points, key=lambda point: (_distribution(point), point.name)):
        distribution = _distribution(point)
        spec = find_spec(named) if (named := _module_of(point)) else None
        code = Path(spec.origin) if spec is not None and spec.origin else None
        origin = Origin(f"{distribution}:{point.name}", "installed", distribution, _version(distribution), code)
        yield origin, lambda point=point: _load_entry_point(point)  # type: ignore[misc]

    folders = [expand_home(folder) for folder in os.environ.get("GANLAB_PLUGINS", "").split(os.pathsep) if folder]
    found = [file.resolve() for folder in folders for file in sorted(folder.glob("*.py")) if file.name[0] != "_"]
    for file in dict.fromkeys([*found, *files]):
        origin = Origin(file.stem, "file", "", "", file)
        yield origin, lambda file=file: _import_file(file)  # type: ignore[misc]


def _walk(locations: Iterable[str], prefix: str) -> Iterator[tuple[str, Path]]:
    """Yields the bundled plugin modules below a package without importing them; `_` marks a helper module."""
    for location in locations:
        for module in pkgutil.iter_modules([location]):
            if module.name.startswith("_"):
                continue
            if module.ispkg:
                yield from _walk([str(Path(location) / module.name)], f"{prefix}{module.name}.")
            else:
                yield f"{prefix}{module.name}", Path(location) / f"{module.name}.py"


def _module_of(point: importlib.metadata.EntryPoint) -> str:
    """The module that the entry point of an installed plugin names; empty where its text names none."""
    match = point.pattern.match(point.value)
    module: str = match["module"] if match else ""
    return module if all(part.isidentifier() for part in module.split(".")) else ""


def _load_entry_point(point: importlib.metadata.EntryPoint) -> Any:
    """Imports an installed plugin; ImportError where its entry point names no module."""
    if not _module_of(point):
        raise ImportError(f"its entry point is {quote(point.value)}; expected 'package.module'")
    return point.load()


def _import_file(file: Path) -> ModuleType:
    """Imports a plugin file under a unique module name, so that it shadows no other module."""
    name = f"ganlab_file_plugin_{file.stem}_{abs(hash(str(file))):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    if isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        spec.loader = SourceLoader(name, str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # decorators such as attrs.frozen look up the module of a class
    with watched_imports(file):
        spec.loader.exec_module(module)
    return module


def _register_plugin(plugins: Plugins, origin: Origin, module: ModuleType) -> list[str]:
    """Registers a plugin on loading, with pluggy, and calls its `register_*` hooks; returns all problems.

    A problem of a component excludes that component. A problem of a hook excludes the whole plugin, since an experiment
    must not run without a hook that it relies on.
    """
    if origin.plugin in plugins.origins:
        return [f"a plugin of that name is already loaded: {plugins.origins[origin.plugin]}"]
    if not isinstance(module, ModuleType):
        return [f"expected a module, got {quote(module)}: an entry point is name = 'package.module'"]
    hooks = find_hooks(module)
    for text in hooks.outdated:
        warnings.warn(str(PluginFailure(origin, text)), FutureWarning, stacklevel=3)
    problems = list(hooks.problems)
    registry = plugins.registry.copy() if problems else plugins.registry
    plugin = hooks.plugin(module.__name__)
    plugins.manager.register(plugin, origin.plugin)
    others = [other for other in plugins.manager.get_plugins() if other is not plugin]
    for kind in KINDS.values():
        if kind.hook not in hooks.implementations:
            continue
        # Called for one plugin at a time, so that the origin of every component is known.
        caller = plugins.manager.subset_hook_caller(kind.hook, remove_plugins=others)
        with CatchPluginErrors() as caught:
            caller(register=_register_function(registry, kind.table, origin, problems))
        if caught.error is not None:
            problems.append(describe_error(caught.error, origin))
    if hooks.problems:
        plugins.manager.unregister(plugin)
    else:
        plugins.origins[origin.plugin] = origin
    return problems


def _register_function(registry: Registry, kind: str, origin: Origin, problems: list[str]) -> Callable[..., None]:
    """On loading a plugin, makes the `register` argument of its hooks, which adds errors to `problems`."""

    def register(*arguments: Any, **named: Any) -> None:
        if len(arguments) != 2 or named:
            line = line_in_plugin(traceback.extract_stack(), origin)
            got = ", ".join([*map(name_or_repr, arguments), *(f"{key}=…" for key in named)])
            problems.append(f"{line}register({got}): expected register(name, class)")
            return
        try:
            registry.register(kind, *arguments, origin)
        except RegistrationError as error:
            line = line_in_plugin(traceback.extract_stack(), origin)
            problems.extend(f"{line}{problem}" for problem in error.problems)

    return register


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    """The name of an installed plugin's distribution; an installation that was cut short has none."""
    return (point.dist.name if point.dist is not None else None) or "unknown"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
