"""The conformance suite: the checks that each component must pass, for `ganlab check` and plugins' own tests.

    from pathlib import Path
    import pytest
    from ganlab.testing import conformance

    @pytest.mark.parametrize("component", conformance(Path(__file__).with_name("wedge.py")), ids=str)
    def test_conforms(component):
        component.hold()

`check(component, kind)` returns every check, as a `Check`, of a class or of an instance with its own options.
pytest is not imported here; any test runner will do.

A file per kind: `loss.py` holds the checks of a loss.

May import: every package but `ganlab.cli`.
"""

from __future__ import annotations

from ganlab.testing.check_result import Check as Check
from ganlab.testing.plugin_file import Subject as Subject
from ganlab.testing.plugin_file import conformance as conformance
from ganlab.testing.suite import check as check

__all__ = ["Check", "Subject", "check", "conformance"]
