"""The pretend device against the CPU: equal values, and an error or an event at the line for what crosses devices."""

from __future__ import annotations

from pathlib import Path

from children import Child
from pretend_operations import (
    HERE,
    MIXED,
    QUIET,
    READING,
    Crossing,
    compare_operations,
    find_events,
    find_mixed,
    install_late,
    line_of,
    look_at_memory,
)
from pretend_work import needs_pretend, on_pretend

pytestmark = needs_pretend


def test_what_mixes_devices_is_an_error_at_its_line(tmp_path: Path) -> None:
    found = on_pretend(find_mixed, tmp_path)
    lines = {name: line_of(work) for name, work in MIXED.items()}
    lines["in a backward pass"] = f"{HERE}:{Crossing.backward.__code__.co_firstlineno + 2}"
    assert {name: text.partition(": ")[0] for name, text in found.items()} == lines
    assert all("pretend:0" in text for text in found.values())


def test_what_crosses_devices_is_recorded_with_its_line_and_nothing_else_is(tmp_path: Path) -> None:
    found = on_pretend(find_events, tmp_path)
    assert {name: found[name] for name in QUIET} == {name: [] for name in QUIET}
    for name, (what, work) in READING.items():
        assert found[name], name
        assert found[name][0].startswith(f"{line_of(work)}: {what} ("), name


def test_a_backward_pass_before_the_device_is_there_is_named(tmp_path: Path) -> None:
    child = Child(install_late, tmp_path / "child.log")
    assert child.ended(60) == 0, child.said


def test_operations_have_the_values_of_the_cpu(tmp_path: Path) -> None:
    assert on_pretend(compare_operations, tmp_path) == []


def test_memory_pickles_and_random_states(tmp_path: Path) -> None:
    assert on_pretend(look_at_memory, tmp_path) == [True] * 6
