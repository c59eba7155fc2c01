"""The import paths from before the modules lay in packages: each public name is found, or an error says what to do.

`old_names.py` holds the names as they were then. A name that is missing here needs a line in `RENAMED` or `GONE` of
`ganlab/_moved_names.py`, or its new module in `MODULES`.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from typing import Any

import pytest

import ganlab
from ganlab import _moved
from ganlab._moved_names import MODULES
from old_names import OLD_NAMES

SUBMODULES = {"cli.main"}
"""Old names that are modules now."""


def found(module: str, name: str) -> tuple[Any, list[warnings.WarningMessage]]:
    """What an old name gives on its first use, and the warnings that come with it."""
    importlib.import_module(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return _moved.old_names(module)(name), caught


def fault(module: str, name: str) -> str | None:
    """A line about a name that is neither found nor explained; None where all is well."""
    try:
        value, caught = found(module, name)
    except AttributeError as error:
        return f"{module}.{name}: {error}"
    except ImportError as error:
        return None if "no longer exists; " in str(error) else f"{module}.{name}: {error}"
    if [warning.category for warning in caught] != [DeprecationWarning]:
        return f"{module}.{name}: {len(caught)} warnings"
    said = str(caught[0].message)
    line = said.split("`")[1]
    namespace: dict[str, Any] = {}
    exec(line, namespace)
    if not said.startswith(f"{module}.{name} has moved; write `") or namespace[line.rpartition(" ")[2]] is not value:
        return f"{module}.{name}: {said}"
    return None


@pytest.mark.parametrize("old", [old for old in OLD_NAMES if old in MODULES])
def test_every_old_name_is_found(old: str) -> None:
    names = [name for name in OLD_NAMES[old].split() if f"{old}.{name}" not in SUBMODULES]
    lines = [line for name in names if (line := fault(f"ganlab.{old}", name))]
    assert not lines, "\n".join(lines)


def test_what_has_not_moved_gives_no_warning() -> None:
    for module in ("protocols", "testing"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in OLD_NAMES.get(module, "conformance check").split():
                assert getattr(importlib.import_module(f"ganlab.{module}"), name)


def test_every_old_module_is_in_the_table() -> None:
    assert set(OLD_NAMES) - set(MODULES) == {"protocols"}


@pytest.mark.parametrize(
    "line",
    [
        "from ganlab import phases; phases.logits; phases.logits",
        pytest.param("from ganlab.phases import logits", marks=[pytest.mark.extended, pytest.mark.slow]),
        pytest.param("import ganlab.phases; ganlab.phases.logits", marks=[pytest.mark.extended, pytest.mark.slow]),
    ],
)
def test_the_warning_comes_once_and_names_the_line_to_write(line: str) -> None:
    result = subprocess.run([sys.executable, "-W", "always", "-c", line], capture_output=True, text=True, check=True)
    warned = [text for text in result.stderr.splitlines() if "DeprecationWarning" in text]
    home = "ganlab.nn.judged_output"
    assert warned == [
        f"<string>:1: DeprecationWarning: ganlab.phases.logits has moved; write `from {home} import logits`"
    ]


def test_a_name_of_a_module_that_is_a_package_now() -> None:
    code = "from ganlab.config import load_experiment; from ganlab.config import load, toml; print(load.__name__)"
    result = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "ganlab.config.load\n"
    assert result.stderr.count("DeprecationWarning") == 1


def test_the_script_of_an_earlier_installation() -> None:
    """It has `from ganlab.cli import main` and calls that, until ganlab is installed again."""
    code = "import sys; from ganlab.cli import main; sys.argv = ['ganlab', '--version']; sys.exit(main())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{ganlab.__version__}\n", "")


def test_names_that_never_were() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'logitz' from 'ganlab\.phases'"):
        exec("from ganlab.phases import logitz")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'ganlab\.phase'"):
        importlib.import_module("ganlab.phase")
    with pytest.raises(AttributeError, match=r"what it had is now in ganlab\.utils\.rng"):
        _ = importlib.import_module("ganlab.rng").seed_everythin


def test_looking_up_old_names_costs_nothing_at_the_start() -> None:
    before = "import ganlab, sys; print('ganlab._moved_names' in sys.modules)"
    after = "import ganlab.phases, ganlab.data; print('torch' in sys.modules, 'ganlab_plugins' in sys.modules)"
    code = f"{before}\n{after}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\nFalse False\n"
