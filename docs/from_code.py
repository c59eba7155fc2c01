"""Sphinx directives that generate documentation from the code when the site is built: keys, components, public names.

Four directives, for pages that are also read on GitHub, where the directive is shown as it is written:

- `keys`: the keys of a class such as `ganlab.config.schema.Train`, each with its type, bounds and default;
- `components`: the bundled components of a kind with their options;
- `notebook`: the cells of a notebook, whose outputs are left out;
- `names`: the public names of one package of ganlab, by autodoc, and classes that they return.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_origin

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import ganlab
from ganlab.config.describe import Option, class_description, option_docs, options_of
from ganlab.plugin.fields import DEFAULT, NESTED
from ganlab.plugin.loader import load_plugins

BOUND = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


def bounds(f: attrs.Attribute[Any]) -> list[str]:
    """The bounds of a field's numbers in words, read from the repr of its attrs validators."""
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


def options_as_markdown(cls: type, anchor: str = "") -> str:
    """The options of a class as a Markdown definition list; `anchor` is the prefix of each option's anchor.

    An option that the file has inside other tables is written as `TABLE.optimizer`.
    """
    fields = {f.alias: f for f in attrs.fields(cls) if f.init}
    lines = []
    for option in options_of(cls):
        f = fields[option.name]
        name = f"TABLE.{f.metadata[NESTED]}" if NESTED in f.metadata else option.name
        type_text = ", ".join([option.type, *bounds(f)])
        doc = option.doc[:1].upper() + option.doc[1:]
        lines += [
            f"[`{name}`]{{#{anchor}{name.replace('.', '-').lower()}}}: {type_text}; {default(option, f)}",
            f": {doc}",
            "",
        ]
    return "\n".join(lines)


def default(option: Option, f: attrs.Attribute[Any]) -> str:
    """The default of an option in words, or that it is required."""
    if DEFAULT in f.metadata:
        return f"by default {f.metadata[DEFAULT]}"
    if option.default is None:
        return "required"
    return "optional" if option.default == "none" else f"default `{option.default}`"


def is_protocol(thing: object) -> bool:
    """Whether a class is a typing.Protocol; `typing.is_protocol` needs Python 3.13."""
    return getattr(thing, "_is_protocol", False)


class MarkdownDirective(SphinxDirective):
    """A directive whose content is generated, as Markdown, from its one argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.markdown(self.arguments[0]), allow_section_headings=True)

    def markdown(self, argument: str) -> str:
        raise NotImplementedError


class Keys(MarkdownDirective):
    """The `keys` directive: the keys of a class of the experiment file."""

    option_spec = {"at": str}  # noqa: RUF012

    def markdown(self, argument: str) -> str:
        module, _, name = argument.rpartition(".")
        cls = getattr(import_module(module), name)
        return options_as_markdown(cls, self.options.get("at", ""))


class Components(MarkdownDirective):
    """The `components` directive: the bundled components of a kind."""

    def markdown(self, argument: str) -> str:
        lines = []
        for component in load_plugins().registry.of_kind(argument):
            if component.origin.source != "bundled":
                continue
            file = str(component.origin.file).partition("/plugins/ganlab_plugins/")[2]
            anchor = f"{argument}-{component.name}"
            lines += [
                f"({anchor})=",
                f"### `{component.name}`",
                "",
                class_description(component.cls),
                "",
                options_as_markdown(component.cls, f"{anchor}-"),
                f"Plugin `{component.origin.plugin}`, {component.origin.distribution} {component.origin.version}: "
                f"[{file}](../plugins/ganlab_plugins/{file})",
                "",
            ]
        return "\n".join(lines) or f"None is bundled; `ganlab new {argument} NAME` writes one."


class Notebook(MarkdownDirective):
    """The `notebook` directive: the cells of a notebook in the folder of the docs, without outputs."""

    def markdown(self, argument: str) -> str:
        file = Path(__file__).parent / argument
        self.env.note_dependency(str(file))
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        return "\n\n".join(
            text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
            for cell, text in zip(cells, texts, strict=True)
        )


def public_names(package: str) -> list[str]:
    """The public names that `ganlab/__init__.pyi` imports from a package of ganlab, in the stub's order."""
    stub = ast.parse(Path(ganlab.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return [
        alias.asname or alias.name
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}.")
        for alias in node.names
    ]


class Names(SphinxDirective):
    """The `names` directive: the public names of a package; further arguments are classes in it that they return."""

    required_arguments = 1
    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        package, *returned = self.arguments
        lines = ["```{eval-rst}"]
        public = {f"ganlab.{name}": getattr(ganlab, name) for name in public_names(package)}
        for qualified in returned:
            module, _, name = f"ganlab.{package}.{qualified}".rpartition(".")
            public[f"{module}.{name}"] = getattr(import_module(module), name)
        for name, thing in public.items():
            if isinstance(thing, type):
                lines += [f".. autoclass:: {name}", "   :members:", "   :special-members: __call__"]
                # Only for protocols: the fields of other classes are in their signature.
                lines += ["   :undoc-members:" if is_protocol(thing) else "", ""]
            elif inspect.isfunction(thing) or hasattr(thing, "cache_info"):
                lines += [f".. autofunction:: {name}", ""]
            elif isinstance(thing, int | UnionType) or get_origin(thing) is Literal:
                lines += [f".. autodata:: {name}", ""]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def list_options(_: Sphinx, __: str, ___: str, thing: object, ____: object, lines: list[str]) -> None:
    """For autodoc: lines "name: text" of a docstring, which explain options, become a definition list."""
    if isinstance(thing, type) and attrs.has(thing) and (docs := option_docs(thing)):
        rest = class_description(thing).split("\n")
        lines[:] = [*rest, "", *(line for name, text in docs.items() for line in (f"`{name}`", f"    {text}", ""))]


def drop_protocol_arguments(
    _: Sphinx, __: str, ___: str, thing: object, ____: object, signature: str, returned: str
) -> tuple[str, str]:
    """For autodoc: a protocol is shown without constructor arguments, since nobody calls it."""
    return ("", "") if is_protocol(thing) else (signature, returned)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("keys", Keys)
    app.add_directive("components", Components)
    app.add_directive("names", Names)
    app.add_directive("notebook", Notebook)
    app.connect("autodoc-process-docstring", list_options)
    app.connect("autodoc-process-signature", drop_protocol_arguments)
    return {"parallel_read_safe": True}
