"""Every component by kind and name, and where it came from.

Decisions: a name taken twice is an error that names both plugins, so the order of plugins never decides; a class is
registered under one name, so that an experiment can be written back; the registry freezes before anything is built.
"""

from __future__ import annotations

import inspect
import typing
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
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
        Kind("dataset", "register_datasets", protocols.DatasetConfig, ("build",)),
        Kind("features", "register_features", protocols.FeaturesConfig, ("build",)),
        Kind("metric", "register_metrics", protocols.Metric, ("every", "evaluate")),
        Kind("tracker", "register_trackers", protocols.TrackerConfig, ("build",)),
        Kind("launcher", "register_launchers", protocols.Launcher, ("launch",)),
    )
}


class RegistrationError(GanlabError):
    """A plugin registers something that cannot be a component."""


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
        """Adds a component; raises RegistrationError where it is none, or where the name or class is taken."""
        at = f"register({name!r}, …)"
        if self._frozen:
            raise RegistrationError(f"{at}: the registry is frozen; components are registered in a register_* hook")
        if not isinstance(name, str) or not name.isidentifier():
            raise RegistrationError(f"{at}: a component's name is letters, digits and '_'")
        if not isinstance(cls, type) or not attrs.has(cls):
            raise RegistrationError(f"{at}: expected a class decorated with @attrs.frozen, got {cls!r}")
        missing = [method for method in KINDS[kind].methods if not _offers(cls, method)]
        if missing:
            raise RegistrationError(f"{at}: {cls.__name__} is no {kind}: it lacks {', '.join(missing)}")
        try:
            typing.get_type_hints(cls)
        except NameError as error:
            raise RegistrationError(f"{at}: {cls.__name__}: the type of an option cannot be found: {error}") from None
        untyped = [f.name for f in attrs.fields(cls) if f.init and f.type is None]
        if untyped:
            raise RegistrationError(f"{at}: {cls.__name__}: options without a type: {', '.join(untyped)}")
        for other in self.of_kind(kind):
            if other.name == name:
                self._contested.setdefault((kind, name), [other.origin]).append(origin)
                raise RegistrationError(f"{at}: the {kind} {name!r} is already registered by {other.origin}")
            if other.cls is cls:
                raise RegistrationError(f"{at}: {cls.__name__} is already registered as {other.name!r}; subclass it")
        self._components[kind, name] = Component(kind, name, cls, origin)

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


def _offers(cls: type, member: str) -> bool:
    # An option without a default is a field, yet no attribute of the class.
    return hasattr(cls, member) or any(f.name == member for f in attrs.fields(cls))
