"""The conformance suite: what every component of a kind is held to, for `ganlab check` and for plugins' own tests.

    from pathlib import Path
    import pytest
    from ganlab.testing import conformance

    @pytest.mark.parametrize("component", conformance(Path(__file__).with_name("wedge.py")), ids=str)
    def test_conforms(component):
        component.hold()

`check(component, kind)` gives what was checked, one `Check` each, of a class or of an instance with options of its own.
pytest is not imported here, and any other runner will do.
"""

from __future__ import annotations

from ganlab.testing.inspection import Check as Check
from ganlab.testing.suite import Subject as Subject
from ganlab.testing.suite import check as check
from ganlab.testing.suite import conformance as conformance

__all__ = ["Check", "Subject", "check", "conformance"]
