"""The registry of components by kind and name, with the plugin that each came from.

Decisions:
- A name registered twice is an error that names both plugins, so that the order of plugins never matters.
- A class is registered under one name only, so that an experiment can be written back to TOML.
- The registry is frozen before anything is built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from ganlab.plugin.component import Component, Origin
from ganlab.plugin.component_checks import component_class_problems, component_name_problems, name_or_repr
from ganlab.plugin.kinds import KINDS
from ganlab.utils.errors import GanlabError, UserError, did_you_mean, quote


class RegistrationError(GanlabError):
    """The registry's exception: a name or class cannot be registered. `problems` has a line for each reason."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@define
class Registry:
    """The registry of components by kind and name."""

    _components: dict[tuple[str, str], Component] = field(factory=dict)
    _contested: dict[tuple[str, str], list[Origin]] = field(factory=dict)
    _frozen: bool = False

    def register(self, kind: str, name: str, cls: type, origin: Origin) -> None:
        """Adds a component to the registry; raises RegistrationError with all problems of its name and its class."""
        if self._frozen:
            raise GanlabError(
                f"register({name!r}, …): the registry is frozen; register components in a register_* hook"
            )
        problems = [*component_name_problems(name), *component_class_problems(KINDS[kind], cls)]
        for other in self.of_kind(kind):
            if other.name == name:
                self._contested.setdefault((kind, name), [other.origin]).append(origin)
                problems.append(f"the {kind} {name!r} is already registered by {other.origin}")
            elif other.cls is cls:
                problems.append(
                    f"{cls.__name__} is already registered as {other.name!r}; register a subclass, decorated too"
                )
        if problems:
            at = f"register({name_or_repr(name)}, …)"
            raise RegistrationError(*(f"{at}: {problem}" for problem in problems))
        self._components[kind, name] = Component(kind, name, cls, origin)

    def copy(self) -> Registry:
        """Copies the registry, so that other components can be tried in the copy."""
        return Registry(dict(self._components), {taken: list(by) for taken, by in self._contested.items()})

    def freeze(self) -> None:
        self._frozen = True

    def of_kind(self, kind: str) -> list[Component]:
        """Returns all components of a kind in the registry, sorted by name."""
        return sorted((c for c in self._components.values() if c.kind == kind), key=lambda c: c.name)

    def find(self, kind: str, name: str) -> Component:
        """Looks a component up in the registry; raises UserError for none (with similar names) or more than one."""
        if origins := self._contested.get((kind, name)):
            raise UserError(
                f"the {kind} {quote(name)} is registered by more than one plugin: {', '.join(map(str, origins))}; "
                f"--no-plugin {origins[-1].plugin} excludes one"
            )
        if (kind, name) in self._components:
            return self._components[kind, name]
        names = [c.name for c in self.of_kind(kind)]
        hint = (
            did_you_mean(name, names) or f"; there {'is' if len(names) == 1 else 'are'}: {', '.join(names) or 'none'}"
        )
        raise UserError(f"unknown {kind} {quote(name)}{hint}")

    def also_by(self, kind: str, name: str) -> list[Origin]:
        """Returns the registry's later origins of a component name, which is then ambiguous."""
        return self._contested.get((kind, name), [])[1:]

    def component_of(self, kind: str, instance: Any) -> Component:
        """Returns the registry's component that an instance was made from."""
        return next(c for c in self.of_kind(kind) if c.cls is type(instance))

    def origin_of(self, file: str) -> Origin | None:
        """Returns the origin of the plugin whose file this is, if the registry has a component of it."""
        return next((c.origin for c in self._components.values() if str(c.origin.file) == file), None)

    def suffixes(self, kind: str, instances: Iterable[Any]) -> list[str]:
        """Tells components of one name in the registry apart in records: "" for the first, then "_2", "_3", …"""
        counts: Counter[str] = Counter()
        suffixes = []
        for instance in instances:
            name = self.component_of(kind, instance).name
            counts[name] += 1
            suffixes.append("" if counts[name] == 1 else f"_{counts[name]}")
        return suffixes
