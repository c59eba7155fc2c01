"""The conformance checks of every kind: the class, its documented options, its defaults, and the experiment file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs
import tomli_w
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.describe import option_docs
from ganlab.plugin.component import Origin
from ganlab.plugin.registry import RegistrationError, Registry
from ganlab.testing.check_result import Check, Fault
from ganlab.testing.inspection import Inspection
from ganlab.testing.tiny_components import tiny_options
from ganlab.utils.errors import ComponentError, one_line


def check_declaration(inspection: Inspection, registry: Registry) -> list[Check]:
    """Runs the conformance checks of what a component's class declares; sets `inspection.instance`.

    Returns the checks without which no other can be made.
    """
    run_check = inspection.run_check
    registers = run_check(
        f"class: made by attrs, with all that the kind {inspection.kind!r} needs, and types for its options",
        lambda: _check_class(inspection, registry),
    )
    run_check("options: each is explained in the class's docstring", lambda: _check_documented(inspection), registers)
    creates = run_check("defaults: it is created without options", lambda: _check_defaults(inspection), registers)
    written = run_check(
        "experiment file: written and read again, its options are the same",
        lambda: _check_experiment_file(inspection, registry),
        creates,
    )
    return [creates, written]


def _check_class(inspection: Inspection, registry: Registry) -> None:
    """Checks the declaration of a component: its class can be registered as its kind."""
    try:
        registry.register(
            inspection.kind, "checked", inspection.cls, Origin("checked", "file", "", "", Path(inspection.file))
        )
    except RegistrationError as error:
        problems = "; ".join(problem.partition(": ")[2] for problem in error.problems)
        raise Fault(problems, inspection.line_of_class()) from None


def _check_documented(inspection: Inspection) -> str:
    """Checks that the options that a component declares are documented: the class's docstring has a line for each."""
    names = [f.alias for f in attrs.fields(inspection.cls) if f.init]
    lacking = [name for name in names if name not in option_docs(inspection.cls)]
    if lacking:
        raise Fault(
            f"the docstring says nothing of {', '.join(map(repr, lacking))}: expected a line '{lacking[0]}: …'",
            inspection.line_of_class(),
        )
    return ", ".join(names) or "it has none"


def _check_defaults(inspection: Inspection) -> str:
    """Checks a component's declared defaults, and that no two instances share a tensor, which would be one state."""
    if inspection.instance is not None:
        _check_shares_nothing(inspection)
        return "given with options"
    chosen = tiny_options(inspection.cls)
    fields = [f for f in attrs.fields(inspection.cls) if f.init and f.alias not in chosen]
    if needed := [f.alias for f in fields if f.default is attrs.NOTHING]:
        raise ComponentError(
            f"{', '.join(needed)} must be given, by --set NAME.{needed[0]}=VALUE; nothing else is checked without"
        )
    inspection.instance = inspection.cls(**chosen)
    _check_shares_nothing(inspection)
    return ", ".join(f"{name}: the suite's own" for name in chosen)


def _check_shares_nothing(inspection: Inspection) -> None:
    """Checks that two instances of a declared class, made with the same options, share no tensor that is no option."""
    one, other = (attrs.evolve(inspection.instance) for _ in range(2))
    for f in attrs.fields(inspection.cls):
        leaves = [tree_leaves(getattr(made, f.name)) for made in (one, other)]
        shared = any(isinstance(leaf, Tensor) and any(leaf is its for its in leaves[1]) for leaf in leaves[0])
        if shared and not f.init:
            raise Fault(
                f"all instances share one tensor, {f.name!r}, as their state: field(factory=...) makes one for each",
                inspection.line_of_class(),
            )


def _check_experiment_file(inspection: Inspection, registry: Registry) -> None:
    """Checks that declared options are the same after they were written to an experiment file and read again."""
    structurer = TableConverter(registry)
    at = inspection.line_of_class()
    try:
        text = tomli_w.dumps(structurer.write(inspection.instance))
    except (TypeError, ValueError, StopIteration) as error:
        raise Fault(f"an option's value cannot be written as TOML: {one_line(error)}", at) from None
    try:
        read = structurer.read(tomllib.loads(text), inspection.cls)
    except InvalidTable as error:
        raise Fault(f"its own options are refused when read again: {one_line(error)}", at) from None
    if structurer.write(read) != structurer.write(inspection.instance):
        raise Fault(f"read again its options are {read}", at)
