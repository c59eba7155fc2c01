"""The listing of `ganlab plugins`: components by kind with their options and origin, as text or JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ganlab.config.plugin_list import component_record, listed
from ganlab.plugin.component import Component
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import Plugins


def list_plugins(plugins: Plugins, wanted: str | None, as_json: bool, out: Console, errors: Console) -> None:
    """Prints the list of components, or those of the name or kind `wanted`, then the plugins that failed to load."""
    chosen = listed(plugins, wanted)
    found, failures = chosen.components, chosen.failures
    if as_json:
        content = {
            "components": list(chosen),
            "failures": [{**failure.origin.record(), "cause": failure.cause} for failure in failures],
        }
        out.print_json(json.dumps(content)) if out.is_terminal else print(json.dumps(content, indent=2))
        return
    for kind in KINDS:
        mine = [component for component in found if component.kind == kind]
        if mine:
            out.print(Text(f"\n{kind}", style="bold"))
        for component in mine:
            _print_component(component, out, whole=wanted == component.name)
            for origin in plugins.registry.also_by(component.kind, component.name):
                told = f"also registered by {origin}: an experiment that names it is refused; leave one out"
                out.print(f"    {told} by --no-plugin", markup=False, highlight=False, soft_wrap=True)
    for failure in failures:
        errors.print(f"failed to load: {failure}", markup=False, highlight=False, soft_wrap=True)


def _print_component(component: Component, out: Console, whole: bool) -> None:
    note = component_record(component)
    head = Text.assemble("  ", (component.name, "bold cyan"), "  ", (f"plugin {component.origin}", "dim"))
    out.print(head, soft_wrap=True)
    _print_indented(note["doc"] if whole else " ".join(note["doc"].split("\n\n")[0].split()), 4, out)
    names, types = ([option[key] for option in note["options"]] for key in ("name", "type"))
    for option in note["options"]:
        default = "required" if option["default"] is None else f"= {option['default']}"
        name, kind = option["name"].ljust(max(map(len, names))), option["type"].ljust(max(map(len, types)))
        # A terminal that is too narrow folds the line itself, where a table would leave out letters.
        out.print(Text.assemble("       ", name, "  ", (kind, "dim"), "  ", default), soft_wrap=True)
        if whole:
            _print_indented(option["doc"], 11, out)
    if whole:
        out.print(f"    {component.location}", markup=False, highlight=False, soft_wrap=True)


def _print_indented(text: str, indent: int, out: Console) -> None:
    if not text:
        return
    if out.is_terminal:
        out.print(Padding(Text(text), (0, 0, 0, indent), expand=False))
    else:  # each line whole, for grep
        lines = [f"{' ' * indent}{line}".rstrip() for line in text.splitlines()]
        out.print(Text("\n".join(lines)), soft_wrap=True)
