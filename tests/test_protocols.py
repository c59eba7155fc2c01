"""The protocols: that the core's classes satisfy them, and that they import nothing above them."""

from __future__ import annotations

import re
from pathlib import Path

from ganlab import RunFolder
from ganlab.plugin import hookspecs
from ganlab.protocols import RunView, run_view


def test_a_run_folder_is_a_run_view(tmp_path: Path) -> None:
    view: RunView = RunFolder(tmp_path, {"resumed": [{"step": 3}]})  # mypy holds the types, isinstance the names
    assert isinstance(view, RunView)
    assert (view.path, view.resumed_from) == (tmp_path, 3)
    assert (view.ticks(), view.scores()) == ([], [])


def test_protocols_and_hooks_import_nothing_of_a_run() -> None:
    files = [*Path(run_view.__file__).parent.glob("*.py"), Path(hookspecs.__file__)]
    assert len(files) > 10
    for file in files:
        imported = set(re.findall(r"^\s*(?:from|import) ganlab\.(\w+)", file.read_text(), re.MULTILINE))
        assert imported <= {"utils", "protocols"}, file
