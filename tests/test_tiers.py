"""The two tiers of tests: the default run leaves out what is marked `extended`, but keeps a case of every reason."""

from __future__ import annotations

import re

import pytest

from support import REPOSITORY


@pytest.fixture
def reasons(pytestconfig: pytest.Config) -> set[str]:
    """The marks of pyproject.toml that say why a test is slow."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    (marks,) = re.findall(r"^markers = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r'^    "(\w+): ', marks, re.MULTILINE)) - {"extended", "cuda"}


def marks(test: pytest.Item) -> set[str]:
    return {mark.name for mark in test.iter_markers()}


def test_every_extended_test_says_why_it_is_one(collected: list[pytest.Item], reasons: set[str]) -> None:
    assert len(reasons) > 5
    assert [test.nodeid for test in collected if "extended" in marks(test) and not marks(test) & reasons] == []


def test_the_default_run_has_a_case_of_every_reason(collected: list[pytest.Item], reasons: set[str]) -> None:
    files = {path for path in (REPOSITORY / "tests").rglob("test_*.py") if "benchmarks" not in path.parts}
    if files - {test.path for test in collected}:
        pytest.skip("only a part of the tests was collected")
    default, extended = set(), set()
    for test in collected:
        (extended if "extended" in marks(test) else default).update(marks(test))
    assert reasons - default == set(), "left out of the default run altogether"
    assert reasons - extended == set(), "marks that leave nothing out"
