"""`ganlab check FILE`: runs the conformance suite on every component of a plugin file; prints text or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ganlab.config.overrides import apply_override, parse_override
from ganlab.testing.check_result import Check
from ganlab.testing.plugin_file import Subject, load_with_file, subjects_of
from ganlab.utils.errors import UserError

MARKS = {
    "passed": ("ok", "green"),
    "fault": ("FAULT", "bold red"),
    "refused": ("no", "yellow"),
    "skipped": ("-", "dim"),
}
"""How `ganlab check` marks each result, and in which style."""


def check_file(
    path: Path, settings: Sequence[str], as_json: bool, out: Console, errors: Console, device: str = "cpu"
) -> int:
    """Runs `ganlab check`: prints every check with its result; returns the exit code, 1 where there is a fault.

    `settings` are NAME.OPTION=VALUE, or KIND.NAME.OPTION=VALUE. Components are tried on the `device` too.
    """
    if not out.is_terminal:
        out.width = 10_000  # no line is wrapped, for grep
    plugins, failures = load_with_file(path)
    for failure in failures:
        errors.print(f"failed to load: {failure}", markup=False, highlight=False, soft_wrap=True)
    options: dict[str, Any] = {}
    for text in settings:
        parts, value = parse_override(text)
        if len(parts) < 2:
            raise UserError(f"--set {text}: expected NAME.OPTION=VALUE, such as wedge.margin=0.5")
        apply_override(options, parts, value)
    subjects = [] if failures else subjects_of(path, plugins, options)
    results: list[tuple[Subject, list[Check]]] = []
    for subject in subjects:
        results.append((subject, subject.check(device)))
        if not as_json:
            _print_checks(*results[-1], out)
    faults = sum(not found.passed for _, checks in results for found in checks)
    if as_json:
        content = {
            "components": [
                {"kind": s.kind, "name": s.name, "location": s.location, "checks": [attrs.asdict(c) for c in checks]}
                for s, checks in results
            ],
            "failures": [{**failure.origin.record(), "cause": failure.cause} for failure in failures],
        }
        print(json.dumps(content, indent=2))
    elif not failures:
        out.print(_summary(results, faults), highlight=False)
    return 1 if faults or failures else 0


def _print_checks(subject: Subject, checks: list[Check], out: Console) -> None:
    """Prints one component's checks for `ganlab check`, and of a fault the line."""
    out.print(Text.assemble((str(subject), "bold cyan"), "  ", (subject.location, "dim")), soft_wrap=True)
    for found in checks:
        mark, style = MARKS[found.result]
        row = Table.grid(padding=(0, 2))
        row.add_row(Text(f"  {mark:5}", style=style), found.what)
        if found.result != "skipped" and found.detail and not found.at:
            row.add_row("", Text(found.detail, style=style if found.result == "fault" else "dim"))
        out.print(row, highlight=False)
        if found.at:  # not wrapped, so that a terminal still finds the line
            out.print(Text(f"         {found.at}: {found.detail}", style=style), soft_wrap=True)
    out.print()


def _summary(results: list[tuple[Subject, list[Check]]], faults: int) -> str:
    """The last line of `ganlab check`: how many checks passed, were refused and were left out."""
    counts = dict.fromkeys(MARKS, 0)
    for _, checks in results:
        for found in checks:
            counts[found.result] += 1
    if not results:
        return "it registers no component: there is nothing to check"
    parts = [f"{faults} fault{'s' * (faults != 1)}", f"{counts['passed']} passed"]
    parts += [f"{counts['refused']} refused by the component"] * bool(counts["refused"])
    parts += [f"{counts['skipped']} left out"] * bool(counts["skipped"])
    return ", ".join(parts)
