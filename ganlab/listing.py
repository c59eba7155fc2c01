"""`ganlab plugins`: every component by kind, with its options and where it came from."""

from __future__ import annotations

import inspect
import json
import typing
from typing import Any

import attrs
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ganlab.errors import UserError, did_you_mean, shown
from ganlab.options import COMPONENT, Interval
from ganlab.plugins import Plugins
from ganlab.registry import KINDS, Component


def described(component: Component) -> dict[str, Any]:
    """A component as JSON: kind, name, what it says of itself, options, origin."""
    types = typing.get_type_hints(component.cls)
    return {
        "kind": component.kind,
        "name": component.name,
        "doc": inspect.getdoc(component.cls) or "",
        "options": [
            {"name": f.alias, "type": _type_name(f, types[f.name]), "default": _default(f)}
            for f in attrs.fields(component.cls)
            if f.init
        ],
        "origin": component.origin.record() | {"location": component.location},
    }


def list_plugins(plugins: Plugins, wanted: str | None, as_json: bool, out: Console, errors: Console) -> None:
    """Prints the components (those of one name or kind where `wanted` says so), then what failed to load."""
    found = [
        component
        for kind in KINDS
        for component in plugins.registry.of_kind(kind)
        if wanted in (None, component.name, kind)
    ]
    failures = [failure for failure in plugins.failures if wanted in (None, failure.origin.plugin)]
    if wanted and not found and not failures:
        names = {component.name for kind in KINDS for component in plugins.registry.of_kind(kind)} | set(KINDS)
        raise UserError(f"{wanted!r}: no component, kind or failed plugin of that name{did_you_mean(wanted, names)}")
    if as_json:
        content = {
            "components": [described(component) for component in found],
            "failures": [{**failure.origin.record(), "cause": failure.cause} for failure in failures],
        }
        out.print_json(json.dumps(content)) if out.is_terminal else print(json.dumps(content, indent=2))
        return
    for kind in KINDS:
        mine = [component for component in found if component.kind == kind]
        if mine:
            out.print(Text(f"\n{kind}", style="bold"))
        for component in mine:
            _print(component, out, whole=wanted == component.name)
    for failure in failures:
        errors.print(f"failed to load: {failure}", markup=False, highlight=False, soft_wrap=True)


def _print(component: Component, out: Console, whole: bool) -> None:
    note = described(component)
    head = Text.assemble("  ", (component.name, "bold cyan"), "  ", (f"plugin {component.origin}", "dim"))
    out.print(head, soft_wrap=True)
    doc = note["doc"] if whole else " ".join(note["doc"].split("\n\n")[0].split())
    if out.is_terminal:
        out.print(Padding(Text(doc), (0, 0, 0, 4), expand=False))
    else:  # each line whole, for grep
        out.print(Text("\n".join(f"    {line}".rstrip() for line in doc.splitlines())), soft_wrap=True)
    names, types = ([option[key] for option in note["options"]] for key in ("name", "type"))
    for option in note["options"]:
        default = "required" if option["default"] is None else f"= {option['default']}"
        name, kind = option["name"].ljust(max(map(len, names))), option["type"].ljust(max(map(len, types)))
        # A terminal that is too narrow folds the line itself, where a table would leave out letters.
        out.print(Text.assemble("       ", name, "  ", (kind, "dim"), "  ", default), soft_wrap=True)
    if whole:
        out.print(f"    {component.location}", markup=False, highlight=False, soft_wrap=True)


def _type_name(f: attrs.Attribute[Any], kind: Any) -> str:
    if COMPONENT in f.metadata:
        return f"{f.metadata[COMPONENT]} component"
    if kind is Interval:
        return 'steps or "N epochs"'
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(map(repr, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")


def _default(f: attrs.Attribute[Any]) -> str | None:
    """The default as the experiment file would write it; None for an option that has to be given."""
    if f.default is attrs.NOTHING:
        return None
    value: Any = f.default
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory()
    if value is None:
        return "none"
    if isinstance(value, Interval):
        value = value.to_toml()
    return shown(list(value) if isinstance(value, tuple) else value)
