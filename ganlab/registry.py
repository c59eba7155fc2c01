"""Every component by kind and name, and where it came from.

Decisions: a name taken twice is an error that names both plugins, so the order of plugins never decides; a class is
registered under one name, so that an experiment can be written back; the registry freezes before anything is built.
All that is wrong with a class is said at once, with the lines of the protocol that it does not keep.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any

import attrs
from attrs import define, field, frozen

from ganlab import protocols
from ganlab.errors import GanlabError, UserError, did_you_mean, shown
from ganlab.files import file_sha256


@frozen
class Kind:
    """A kind of component: its table in the experiment file, its hook, and what a component of it must be."""

    table: str
    hook: str
    protocol: type
    methods: tuple[str, ...]


KINDS = {
    kind.table: kind
    for kind in (
        Kind("generator", "register_generators", protocols.NetworkConfig, ("build",)),
        Kind("discriminator", "register_discriminators", protocols.NetworkConfig, ("build",)),
        Kind("loss", "register_losses", protocols.Loss, ("discriminator", "generator")),
        Kind("loss_wrapper", "register_loss_wrappers", protocols.LossWrapper, ("__call__",)),
        Kind("penalty", "register_penalties", protocols.Penalty, ("player", "every", "penalty")),
        Kind("augmentation", "register_augmentations", protocols.Augmentation, ("augment",)),
        Kind("optimizer", "register_optimizers", protocols.OptimizerConfig, ("build",)),
        Kind("schedule", "register_schedules", protocols.Schedule, ("key", "value")),
        Kind("dataset", "register_datasets", protocols.DatasetConfig, ("build",)),
        Kind("features", "register_features", protocols.FeaturesConfig, ("build",)),
        Kind("metric", "register_metrics", protocols.Metric, ("every", "evaluate")),
        Kind("tracker", "register_trackers", protocols.TrackerConfig, ("build",)),
        Kind("launcher", "register_launchers", protocols.Launcher, ("launch",)),
    )
}


class RegistrationError(GanlabError):
    """A plugin registers something that cannot be a component. `problems` holds one line for each thing to mend."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@frozen
class Origin:
    """Where a plugin came from. `source` is "bundled", "installed" or "file"."""

    plugin: str
    source: str
    distribution: str
    version: str
    file: Path | None

    def record(self) -> dict[str, str]:
        """What run.json keeps of it."""
        note = {"plugin": self.plugin, "source": self.source}
        if self.distribution:
            note |= {"distribution": self.distribution, "version": self.version}
        if self.file is not None:
            note |= {"file": str(self.file), "sha256": file_sha256(self.file)}
        return note

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.plugin} ({package or self.file})"

    @property
    def located(self) -> str:
        """The same with the file, for what an author has to mend there."""
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.plugin} ({', '.join(str(part) for part in (package, self.file) if part)})"


@frozen
class Component:
    """A registered class."""

    kind: str
    name: str
    cls: type
    origin: Origin

    @property
    def location(self) -> str:
        """The file and line of the class."""
        try:
            return f"{inspect.getsourcefile(self.cls)}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):  # a class made at run time has no source
            return str(self.origin.file)


@define
class Registry:
    """Names to components, kind by kind."""

    _components: dict[tuple[str, str], Component] = field(factory=dict)
    _contested: dict[tuple[str, str], list[Origin]] = field(factory=dict)
    _frozen: bool = False

    def register(self, kind: str, name: str, cls: type, origin: Origin) -> None:
        """Adds a component; raises RegistrationError with all that is wrong with its name and its class."""
        if self._frozen:
            raise GanlabError(
                f"register({name!r}, …): the registry is frozen; components are registered in a register_* hook"
            )
        problems = [*_name_problems(name), *_class_problems(KINDS[kind], cls)]
        for other in self.of_kind(kind):
            if other.name == name:
                self._contested.setdefault((kind, name), [other.origin]).append(origin)
                problems.append(f"the {kind} {name!r} is already registered by {other.origin}")
            elif other.cls is cls:
                problems.append(
                    f"{cls.__name__} is already registered as {other.name!r}; register a subclass, decorated too"
                )
        if problems:
            at = f"register({called(name)}, …)"
            raise RegistrationError(*(f"{at}: {problem}" for problem in problems))
        self._components[kind, name] = Component(kind, name, cls, origin)

    def copy(self) -> Registry:
        """A registry with the same components, to try others on."""
        return Registry(dict(self._components), {taken: list(by) for taken, by in self._contested.items()})

    def freeze(self) -> None:
        self._frozen = True

    def of_kind(self, kind: str) -> list[Component]:
        """All components of a kind, by name."""
        return sorted((c for c in self._components.values() if c.kind == kind), key=lambda c: c.name)

    def find(self, kind: str, name: str) -> Component:
        """The component of that name; raises UserError where there is none, with the nearest name, or more than one."""
        if origins := self._contested.get((kind, name)):
            raise UserError(
                f"the {kind} {shown(name)} is registered by more than one plugin: {', '.join(map(str, origins))}; "
                f"--no-plugin {origins[-1].plugin} leaves one out"
            )
        if (kind, name) in self._components:
            return self._components[kind, name]
        names = [c.name for c in self.of_kind(kind)]
        near = (
            did_you_mean(name, names) or f"; there {'is' if len(names) == 1 else 'are'}: {', '.join(names) or 'none'}"
        )
        raise UserError(f"unknown {kind} {shown(name)}{near}")

    def also_by(self, kind: str, name: str) -> list[Origin]:
        """The plugins besides the first that register a component of that name, which no experiment may then name."""
        return self._contested.get((kind, name), [])[1:]

    def component_of(self, kind: str, instance: Any) -> Component:
        """The component that an instance was made from."""
        return next(c for c in self.of_kind(kind) if c.cls is type(instance))

    def origin_of(self, file: str) -> Origin | None:
        """The plugin whose own file it is, of those that registered a component."""
        return next((c.origin for c in self._components.values() if str(c.origin.file) == file), None)

    def suffixes(self, kind: str, instances: Iterable[Any]) -> list[str]:
        """What tells components of one name apart in records: nothing for the first, "_2" for the second, and so on."""
        counts: Counter[str] = Counter()
        suffixes = []
        for instance in instances:
            name = self.component_of(kind, instance).name
            counts[name] += 1
            suffixes.append("" if counts[name] == 1 else f"_{counts[name]}")
        return suffixes


def _name_problems(name: Any) -> list[str]:
    if isinstance(name, str) and name.isidentifier():
        return []
    return [f"a component's name is letters, digits and '_', a letter first, got {called(name)}: register(name, class)"]


def _class_problems(kind: Kind, cls: Any) -> list[str]:
    """Why a class is no component of a kind: every reason, each with what was wanted."""
    wanted = "expected a class decorated with @attrs.frozen"
    if not isinstance(cls, type):
        return [f"{wanted}, got {called(cls)}" + (": an instance; give its class" if attrs.has(type(cls)) else "")]
    problems = []
    options = {f.name: f for f in attrs.fields(cls)} if attrs.has(cls) else {}
    if "__attrs_attrs__" not in vars(cls):
        what = "dataclass" if dataclasses.is_dataclass(cls) else "class"
        problems.append(f"{wanted}, got the {what} {cls.__name__} without that")
    elif not attrs.inspect(cls).is_frozen:
        problems.append(f"{wanted}, got {cls.__name__}, which is not frozen: a component's options do not change")
    lacking = [name for name in kind.methods if name not in options and _member(cls, name) is None]
    if lacking:
        right = ", ".join(_as_written(kind.protocol, name) for name in lacking)
        problems.append(f"{cls.__name__} is no {kind.table}: it lacks {right}")
    problems += [found for name in kind.methods if name not in options for found in _misfit(kind, cls, name)]
    untyped = [f.name for f in options.values() if f.init and f.type is None]
    if untyped:
        typed = ", ".join(f"{name}: TYPE = …" for name in untyped)
        problems.append(f"{cls.__name__}: options without a type: {', '.join(untyped)}; write {typed}")
    problems += [
        f"{cls.__name__}: {name} = {shown(value)} has no type, so that it is no option; write {name}: "
        f"{type(value).__name__} = {shown(value)}, or name a constant in capitals"
        for name, value in vars(cls).items()
        if type(value) in (bool, int, float, str, tuple)
        if name.islower() and name[0] != "_" and name not in (*kind.methods, *inspect.get_annotations(cls))
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
        return [f"{cls.__name__}: {name} is {shown(static)}; expected {_as_written(kind.protocol, name)}"]
    code = inspect.unwrap(function).__code__
    at = f"{cls.__name__}: {{}} ({code.co_filename}, line {code.co_firstlineno}): expected"
    promised = _member(kind.protocol, name)
    if isinstance(promised, property):
        return [f"{at.format(name + ', a method')} an option or a property: {_as_written(kind.protocol, name)}"]
    given = list(inspect.signature(promised).parameters)[isinstance(static, staticmethod | classmethod) :]
    try:
        inspect.signature(getattr(cls, name)).bind(*given)
    except TypeError:
        return [f"{at.format(signature_text(function))} {_as_written(kind.protocol, name)}"]
    # Arguments are given by place: the protocol's names in another order would be each other's values.
    own = [parameter for parameter in inspect.signature(function).parameters if parameter in given]
    if set(own) == set(given) and own != list(given):
        return [f"{at.format(signature_text(function))} {_as_written(kind.protocol, name)}, in this order"]
    return []


def _member(cls: type, name: str) -> Any:
    """What a class has under a name, not called; not what its own class has: every class can be called, to make one."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def called(value: Any) -> str:
    """A class or a function by its name, anything else as it is written."""
    return value.__name__ if isinstance(value, type | FunctionType) else shown(value)


def _as_written(protocol: type, name: str) -> str:
    """A member of a protocol as an author writes it: `generator(self, real, fake)`, `every: int`."""
    member = _member(protocol, name)
    if isinstance(member, property):
        return f"{name}: {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
    return signature_text(member)


def signature_text(function: Callable[..., Any]) -> str:
    """A function as an author writes it, without types: `tick_finished(run, record)`."""
    parameters = [str(p.replace(annotation=p.empty)) for p in inspect.signature(function).parameters.values()]
    return f"{function.__name__}({', '.join(parameters)})"
