"""`ganlab.list_plugins`: the components of the loaded plugins by kind, with their options, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from ganlab.config.describe import class_description, options_of
from ganlab.plugin.component import Component, Origin
from ganlab.plugin.failures import PluginFailure
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.utils.errors import UserError, did_you_mean, printable, quote
from ganlab.utils.from_python import from_python


@frozen(eq=False)
class PluginList:
    """A list of plugins' components in the order of their kinds, and of the plugins that failed to load.

    Iterating gives a table of each component, as `ganlab plugins --json` prints it: `kind`, `name`, `doc`, `options`,
    `origin`, `also_by`. A notebook shows the list as a table.
    """

    plugins: Plugins = field(repr=False)
    components: tuple[Component, ...]
    failures: tuple[PluginFailure, ...] = ()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        registry = self.plugins.registry
        return (component_record(part, registry.also_by(part.kind, part.name)) for part in self.components)

    def __len__(self) -> int:
        return len(self.components)

    def _repr_html_(self) -> str:
        body, kind = "", None
        for record in self:
            if record["kind"] != kind:
                kind = record["kind"]
                body += f'<tr><th colspan="4" style="text-align:left">{_text(kind)}</th></tr>'
            options = "<br>".join(_text(_option(option)) for option in record["options"])
            doc = " ".join(record["doc"].split("\n\n")[0].split())
            origin = record["origin"]
            cells = (_text(record["name"]), _text(doc), options, _text(f"{origin['plugin']} ({origin['source']})"))
            body += "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"
        failed = "".join(f"<div><b>failed to load: {_text(failure)}</b></div>" for failure in self.failures)
        headings = ("name", "what it is", "options", "plugin")
        head = "".join(f'<th style="text-align:left">{heading}</th>' for heading in headings)
        return f"<div><table><tr>{head}</tr>{body}</table>{failed}</div>"


@from_python
def list_plugins(wanted: str | None = None, plugins: Iterable[str | Path] = ()) -> PluginList:
    """Lists the components of all plugins that there are, as `ganlab plugins` does.

    wanted: only components of this name, or of this kind. plugins: plugin files to load too. Raises UserError where
    there are none, or where a plugin file is not there.
    """
    loaded = load_plugins(map(Path, plugins))
    if loaded.problems:
        raise UserError(*loaded.problems)
    return listed(loaded, wanted)


def listed(plugins: Plugins, wanted: str | None = None) -> PluginList:
    """The list of loaded plugins, or of the name or kind `wanted`; UserError where there is no such."""
    registry = plugins.registry
    every = [component for kind in KINDS for component in registry.of_kind(kind)]
    found = [component for component in every if wanted in (None, component.name, component.kind)]
    failures = [failure for failure in plugins.failures if wanted in (None, failure.origin.plugin) or found]
    if wanted and not found and not failures:
        names = {component.name for component in every} | set(KINDS)
        raise UserError(
            f"{quote(wanted)}: no component, kind or failed plugin of that name{did_you_mean(wanted, names)}",
            *(f"{failure} (so what it registers is unknown)" for failure in plugins.failures),
        )
    return PluginList(plugins, tuple(found), tuple(failures))


def component_record(component: Component, also_by: Sequence[Origin] = ()) -> dict[str, Any]:
    """A component as listed by `ganlab plugins --json`: kind, name, docstring, options, origin, others of that name."""
    return {
        "kind": component.kind,
        "name": component.name,
        "doc": class_description(component.cls),
        "options": [attrs.asdict(option) for option in options_of(component.cls)],
        "origin": component.origin.record() | {"location": component.location},
        "also_by": [origin.record() for origin in also_by],
    }


def _option(option: dict[str, Any]) -> str:
    """An option of a plugin's component in words, as in "lr: a number = 0.001"."""
    return f"{option['name']}: {option['type']}" + (
        ", required" if option["default"] is None else f" = {option['default']}"
    )


def _text(value: object) -> str:
    return escape(printable(value))
