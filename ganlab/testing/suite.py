"""From a class, an instance or a plugin file to what was checked of it.

Decisions:
- A class is checked with its defaults; an option without one has to be given, and until then only what the class
  declares is checked, which is said.
- An option that takes another component, such as a metric's features, gets the suite's own, unless it is given.
- Whatever the suite draws and sets is put back: a test that uses it changes no other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import tomli_w
from attrs import field, frozen

from ganlab.config.converter import Problems, Structurer
from ganlab.config.describe import option_docs
from ganlab.plugin.component import Component, Origin
from ganlab.plugin.failures import Failure
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.plugin.registry import RegistrationError, Registry
from ganlab.testing.augmentation import check_augmentation
from ganlab.testing.dataset import check_dataset
from ganlab.testing.features import check_features
from ganlab.testing.inspection import Check, Fault, Inspection
from ganlab.testing.launcher import check_launcher
from ganlab.testing.loss import check_loss
from ganlab.testing.loss_wrapper import check_loss_wrapper
from ganlab.testing.metric import check_metric
from ganlab.testing.network import check_network
from ganlab.testing.optimizer import check_optimizer
from ganlab.testing.penalty import check_penalty
from ganlab.testing.schedule import check_schedule
from ganlab.testing.tiny_components import tiny_options, tiny_registry
from ganlab.testing.tiny_training import TinyGame
from ganlab.testing.tracker import check_tracker
from ganlab.utils.errors import ComponentError, UserError, did_you_mean, one_line
from ganlab.utils.rng import preserve_random_state

CHECKS: dict[str, Callable[[Inspection, TinyGame], None]] = {
    "generator": check_network,
    "discriminator": check_network,
    "loss": check_loss,
    "loss_wrapper": check_loss_wrapper,
    "penalty": check_penalty,
    "augmentation": check_augmentation,
    "optimizer": check_optimizer,
    "schedule": check_schedule,
    "dataset": check_dataset,
    "features": check_features,
    "metric": check_metric,
    "tracker": check_tracker,
    "launcher": check_launcher,
}


def check(component: Any, kind: str) -> list[Check]:
    """What was checked of a component: a class, with its defaults, or an instance, with the options that it has.

    Raises UserError for a kind that there is none of.
    """
    if kind not in KINDS:
        raise UserError(unknown_kind(kind))
    cls = component if isinstance(component, type) else type(component)
    inspection = Inspection(kind, cls, None if component is cls else component)
    with preserve_random_state():
        registry = tiny_registry()
        is_one = inspection.look(
            f"class: made by attrs, with all that the kind {kind!r} needs, its options with types",
            lambda: _is_one(inspection, registry),
        )
        inspection.look("options: each is explained in the class's docstring", lambda: _documented(inspection), is_one)
        builds = inspection.look("defaults: it is made without options", lambda: _builds(inspection), is_one)
        held = inspection.look(
            "experiment file: written and read again, its options are the same",
            lambda: _written(inspection, registry),
            builds,
        )
        if builds.result == held.result == "passed":
            CHECKS[kind](inspection, TinyGame(inspection, registry))
    return inspection.checks


def unknown_kind(kind: str) -> str:
    return f"unknown kind {kind!r}{did_you_mean(kind, KINDS) or '; there are: ' + ', '.join(KINDS)}"


def _is_one(inspection: Inspection, registry: Registry) -> None:
    try:
        registry.register(
            inspection.kind, "checked", inspection.cls, Origin("checked", "file", "", "", Path(inspection.file))
        )
    except RegistrationError as error:
        said = "; ".join(problem.partition(": ")[2] for problem in error.problems)
        raise Fault(said, inspection.line_of_class()) from None


def _documented(inspection: Inspection) -> str:
    names = [f.alias for f in attrs.fields(inspection.cls) if f.init]
    lacking = [name for name in names if name not in option_docs(inspection.cls)]
    if lacking:
        said = ", ".join(map(repr, lacking))
        raise Fault(
            f"the docstring says nothing of {said}: wanted a line '{lacking[0]}: …'", inspection.line_of_class()
        )
    return ", ".join(names) or "it has none"


def _builds(inspection: Inspection) -> str:
    if inspection.instance is not None:
        return "given with options"
    chosen = tiny_options(inspection.cls)
    fields = [f for f in attrs.fields(inspection.cls) if f.init and f.alias not in chosen]
    if needed := [f.alias for f in fields if f.default is attrs.NOTHING]:
        raise ComponentError(
            f"{', '.join(needed)} must be given, by --set NAME.{needed[0]}=VALUE; nothing else is checked without"
        )
    inspection.instance = inspection.cls(**chosen)
    return ", ".join(f"{name}: the suite's own" for name in chosen)


def _written(inspection: Inspection, registry: Registry) -> None:
    structurer = Structurer(registry)
    at = inspection.line_of_class()
    try:
        text = tomli_w.dumps(structurer.write(inspection.instance))
    except (TypeError, ValueError, StopIteration) as error:
        raise Fault(f"an option's value cannot be written as TOML: {one_line(error)}", at) from None
    try:
        read = structurer.read(tomllib.loads(text), inspection.cls)
    except Problems as error:
        raise Fault(f"its own options are refused when read again: {one_line(error)}", at) from None
    if structurer.write(read) != structurer.write(inspection.instance):
        raise Fault(f"read again its options are {read}", at)


# ---------------------------------------------------------------------------------------------------------------------
# Plugin files
# ---------------------------------------------------------------------------------------------------------------------


@frozen
class Subject:
    """A component of a plugin file: its kind, its name, its class, and options that differ from the defaults."""

    kind: str
    name: str
    cls: type
    location: str = field(repr=False)
    instance: Any = field(default=None, repr=False)

    def check(self) -> list[Check]:
        """What was checked of it."""
        return check(self.cls if self.instance is None else self.instance, self.kind)

    def hold(self) -> None:
        """Raises AssertionError with all the faults that the suite finds, a line each."""
        if faults := [str(found) for found in self.check() if not found.passed]:
            raise AssertionError("\n".join([f"{self}:", *faults]))

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def conformance(
    plugin: Path | str | ModuleType, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Subject]:
    """The components that a plugin file, or a module that is one, registers: parameters for a test.

    `options` are those of components by name, as the experiment file would have them: `{"wedge": {"margin": 0.5}}`.
    Raises UserError where the file does not load, with the cause.
    """
    path = Path(plugin.__file__ or "") if isinstance(plugin, ModuleType) else Path(plugin)
    plugins, failures = loaded_from(path)
    if failures:
        raise UserError(*map(str, failures))
    return subjects_of(path, plugins, options or {})


def loaded_from(path: Path) -> tuple[Plugins, list[Failure]]:
    """All plugins, with the one in the file; and why that one could not be loaded, where it could not.

    A file that is loaded as it is, bundled or in a folder named by GANLAB_PLUGINS, is not loaded twice.
    """
    path = path.expanduser().resolve()
    plugins = load_plugins()
    if all(origin.file != path for origin in plugins.origins.values()):
        plugins = load_plugins([path])
    if plugins.problems:
        raise UserError(*plugins.problems)
    return plugins, [failure for failure in plugins.failures if failure.origin.file == path]


def subjects_of(path: Path, plugins: Plugins, options: Mapping[str, Mapping[str, Any]]) -> list[Subject]:
    """What the plugin in a file registered. Raises UserError for options of what it did not, or that do not fit."""
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
            except Problems as error:
                problems += [f"{part.name}.{problem}" for problem in error.problems]
        subjects.append(Subject(part.kind, part.name, part.cls, part.location, instance))
    if problems:
        raise UserError(*problems)
    return subjects


def _with_options(part: Component, registry: Registry, options: Mapping[str, Any]) -> Any:
    instance = Structurer(registry).component(part.kind, {**options, "name": part.name})
    return attrs.evolve(instance, **tiny_options(part.cls, options))


def _near(name: str, names: Iterable[str]) -> str:
    return did_you_mean(name, names) or f"; it registers: {', '.join(names) or 'none'}"
