"""Plugins under mypy --strict and pyright's strict mode, held against lines marked in files of a third party.

`typed/good.py` is also the contract of release 0.1: what it says must load, as it is, in every later release.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ganlab.cli.scaffold import write_plugin
from ganlab.plugin.hook_checks import hookspecs_by_name
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from support import REPOSITORY

pytestmark = pytest.mark.xdist_group("typing")

TYPED = REPOSITORY / "tests" / "typed"


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the good plugin, the bad one, the one of the docs, and what `ganlab new` writes for each kind."""
    folder = tmp_path_factory.mktemp("typed")
    for name in ("good.py", "bad.py"):
        shutil.copy(TYPED / name, folder)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "hooks.md").read_text(), re.DOTALL)
    (typed,) = (block for block in blocks if "Register[" in block)
    (folder / "documented.py").write_text(typed)
    for kind in KINDS:
        _, test = write_plugin(kind, f"my_{kind}", folder / f"my_{kind}.py")
        test.unlink()
    paths = [str(REPOSITORY), str(REPOSITORY / "plugins")]
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "extraPaths": paths}))
    return folder


def mypy(folder: Path) -> list[tuple[str, int]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "."]
    environment = os.environ | {"MYPYPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert "checked" in done.stdout, done.stdout + done.stderr
    return [(name, int(line)) for name, line in re.findall(r"^(.*?):(\d+): error", done.stdout, re.MULTILINE)]


def pyright(folder: Path) -> list[tuple[str, int]]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    # Without this it asks the network whether there is a newer one.
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] == 3 + len(KINDS)
    return [(Path(found["file"]).name, found["range"]["start"]["line"] + 1) for found in said["generalDiagnostics"]]


@pytest.mark.typing
@pytest.mark.parametrize("checker", [pytest.param(mypy, marks=pytest.mark.extended), pyright])
def test_what_is_incomplete_is_flagged_where_it_is_registered_and_nothing_else(checker: object, plugins: Path) -> None:
    assert callable(checker)
    lines = (TYPED / "bad.py").read_text().splitlines()
    wrong = {("bad.py", number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) > len(KINDS)
    assert set(checker(plugins)) == wrong


def test_what_was_written_for_release_0_1_is_taken_as_it_is() -> None:
    """Without a warning too; and it has every kind and every hook, so that none is forgotten."""
    loaded = load_plugins([TYPED / "good.py"])
    assert loaded.failures == []
    for kind in KINDS:
        assert "good" in {component.name for component in loaded.registry.of_kind(kind)}
    for hook in hookspecs_by_name():
        assert f"\ndef {hook}(" in (TYPED / "good.py").read_text()
