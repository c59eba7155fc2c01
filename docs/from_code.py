"""What the site says of code, made from the code when the site is built: keys, components, public names.

Three directives, for pages that are read on GitHub too, where they are shown as they are written:

- `keys`: those of a class, `ganlab.config.schema.Train`, one by one, with type, bounds and default;
- `components`: the bundled ones of a kind with their options;
- `names`: the public names that live in one module of ganlab, by autodoc, and the classes of it that these give.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any, Literal, get_origin

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import ganlab
from ganlab.plugin.fields import DEFAULT
from ganlab.plugin.loader import load_plugins
from ganlab.config.schema import NESTED
from ganlab.config.describe import Option, option_docs, options_of, class_description

BOUND = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


def bounds(f: attrs.Attribute[Any]) -> list[str]:
    """The bounds of a field's numbers, as attrs writes its validators."""
    found = re.findall(r"<Validator for x ([<>]=?) ([^>]+)>", repr(f.validator))
    return [f"{BOUND[sign]} {number(bound)}" for sign, bound in found]


def number(text: str) -> str:
    """A bound as a person writes it: 1,000, 2^63, 10^12."""
    value = float(text)
    if value < 10**5 or not value.is_integer():
        return f"{value:,.15g}"
    for base in (10, 2):
        power = 0
        while base**power < int(value):
            power += 1
        if base**power == int(value):
            return f"{base}^{power}"
    return f"{value:,.15g}"


def markdown(cls: type, at: str = "", nested: bool = False) -> str:
    """The options of a class as a definition list; `at` is what the target of each begins with."""
    fields = {f.alias: f for f in attrs.fields(cls) if f.init}
    lines = []
    for option in options_of(cls):
        f = fields[option.name]
        name = ".".join(NESTED.get(option.name, (option.name,))) if nested else option.name
        said = ", ".join([option.type, *bounds(f)])
        doc = option.doc[:1].upper() + option.doc[1:]
        lines += [f"[`{name}`]{{#{at}{name.replace('.', '-')}}}: {said}; {default(option, f)}", f": {doc}", ""]
    return "\n".join(lines)


def default(option: Option, f: attrs.Attribute[Any]) -> str:
    if DEFAULT in f.metadata:
        return f"by default {f.metadata[DEFAULT]}"
    if option.default is None:
        return "required"
    return "optional" if option.default == "none" else f"default `{option.default}`"


def is_protocol(thing: object) -> bool:
    return getattr(thing, "_is_protocol", False)  # typing.is_protocol is of Python 3.13


class Made(SphinxDirective):
    """A directive whose content is made, as Markdown, from its one argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.made(self.arguments[0]), allow_section_headings=True)

    def made(self, argument: str) -> str:
        raise NotImplementedError


class Keys(Made):
    option_spec = {"at": str}  # noqa: RUF012

    def made(self, argument: str) -> str:
        module, _, name = argument.rpartition(".")
        cls = getattr(import_module(module), name)
        return markdown(cls, self.options.get("at", ""), nested=True)


class Components(Made):
    def made(self, argument: str) -> str:
        lines = []
        for component in load_plugins().registry.of_kind(argument):
            if component.origin.source != "bundled":
                continue
            file = str(component.origin.file).partition("/plugins/ganlab_plugins/")[2]
            at = f"{argument}-{component.name}"
            lines += [
                f"({at})=",
                f"### `{component.name}`",
                "",
                class_description(component.cls),
                "",
                markdown(component.cls, f"{at}-"),
                f"Plugin `{component.origin.plugin}`, {component.origin.distribution} {component.origin.version}: "
                f"[{file}](../plugins/ganlab_plugins/{file})",
                "",
            ]
        return "\n".join(lines) or f"None is bundled; `ganlab new {argument} NAME` writes one."


class Names(SphinxDirective):
    """The public names of a module; further arguments are classes of it that public names give."""

    required_arguments = 1
    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        home, *given = self.arguments
        module = import_module(f"ganlab.{home}")
        lines = ["```{eval-rst}"]
        for name in [f"ganlab.{public}" for public in ganlab._HOMES[home]] + [f"ganlab.{home}.{cls}" for cls in given]:
            thing = getattr(module, name.rpartition(".")[2])
            if isinstance(thing, type):
                lines += [f".. autoclass:: {name}", "   :members:", "   :special-members: __call__"]
                # The fields of other classes are in their signature.
                lines += ["   :undoc-members:" if is_protocol(thing) else "", ""]
            elif inspect.isfunction(thing):
                lines += [f".. autofunction:: {name}", ""]
            elif isinstance(thing, int) or get_origin(thing) is Literal:
                lines += [f".. autodata:: {name}", ""]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def explained(_: Sphinx, __: str, ___: str, thing: object, ____: object, lines: list[str]) -> None:
    """Docstrings explain options by lines "name: text", which become a list of definitions."""
    if isinstance(thing, type) and attrs.has(thing) and (said := option_docs(thing)):
        rest = class_description(thing).split("\n")
        lines[:] = [*rest, "", *(line for name, text in said.items() for line in (f"`{name}`", f"    {text}", ""))]


def without_arguments(
    _: Sphinx, __: str, ___: str, thing: object, ____: object, signature: str, returned: str
) -> tuple[str, str]:
    """A protocol is not called to make one."""
    return ("", "") if is_protocol(thing) else (signature, returned)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("keys", Keys)
    app.add_directive("components", Components)
    app.add_directive("names", Names)
    app.connect("autodoc-process-docstring", explained)
    app.connect("autodoc-process-signature", without_arguments)
    return {"parallel_read_safe": True}
