"""`ganlab new`: what it writes for each kind passes `ganlab check`, its own test and ruff, as written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ganlab.plugin.kinds import KINDS
from support import REPOSITORY, with_tests_modules

Ganlab = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("quick_timing")


def ruff(*arguments: object) -> None:
    command = [sys.executable, "-m", "ruff", *map(str, arguments), "--config", str(REPOSITORY / "pyproject.toml")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.extended
@pytest.mark.slow
def test_what_is_written_passes(ganlab: Ganlab, tmp_path: Path) -> None:
    """Of every kind; pytest and ruff see all of them at once, since each takes seconds to start."""
    for kind in KINDS:
        code, out, err = ganlab("new", kind, f"my_{kind}")
        assert (code, out, err) == (0, f"my_{kind}.py\ntest_my_{kind}.py\n", "")
        code, out, err = ganlab("check", f"my_{kind}.py")
        assert code == 0, out + err
        assert f"{kind} my_{kind}" in out
        assert "0 faults" in out
        assert " refused by the component" not in out
        assert " left out" not in out
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "quick_timing", "."]
    done = subprocess.run(pytest_, env=with_tests_modules(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{2 * len(KINDS)} passed" in done.stdout
    ruff("check", tmp_path)
    ruff("format", "--check", tmp_path)


def test_the_longest_name_keeps_to_the_line(ganlab: Ganlab, tmp_path: Path) -> None:
    for kind in KINDS:
        assert ganlab("new", kind, f"{kind}_{'x' * (39 - len(kind))}")[0] == 0
    assert len(list(tmp_path.glob("*.py"))) == 2 * len(KINDS)
    ruff("check", tmp_path)


@pytest.mark.extended
@pytest.mark.slow
def test_the_written_test_fails_for_a_plugin_that_was_broken(ganlab: Ganlab) -> None:
    ganlab("new", "loss", "mine")
    file = Path("mine.py")
    file.write_text(file.read_text().replace("-fake.mean()", "-fake.detach().mean()"))
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "quick_timing", "test_mine.py"]
    done = subprocess.run(pytest_, env=with_tests_modules(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the generator's loss has no gradient: it is detached from the logits" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_a_loss_is_about_ten_lines(ganlab: Ganlab) -> None:
    ganlab("new", "loss", "mine")
    body = Path("mine.py").read_text().partition("@frozen")[2].replace('"""', "#")
    lines = [line for line in body.splitlines() if line.strip() and not line.strip().startswith(("#", "margin: the"))]
    assert len(lines) <= 10


def test_the_written_loss_trains(
    ganlab: Ganlab, table: dict[str, object], write: Callable[..., Path], tmp_path: Path
) -> None:
    ganlab("new", "loss", "mine")
    table |= {"plugins": ["mine.py"], "loss": {"name": "mine", "margin": 0.5}}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err


def test_out_names_the_file(ganlab: Ganlab, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    code, out, _ = ganlab("new", "penalty", "mine", "--out", "plugins/other.py")
    assert (code, out) == (0, "plugins/other.py\nplugins/test_other.py\n")
    assert 'with_name("other.py")' in Path("plugins/test_other.py").read_text()
    assert 'register("mine", Mine)' in Path("plugins/other.py").read_text()


WANTED = "expected ASCII letters, digits and '_', starting with a letter, and not a keyword of Python"

REFUSED = {
    ("los", "mine"): "unknown kind 'los'; did you mean 'loss'?",
    ("shoe", "mine"): "unknown kind 'shoe'; there are: generator, discriminator, game, loss, loss_wrapper, penalty,",
    ("loss", "my-loss"): f"name 'my-loss': {WANTED}; did you mean 'my_loss'?\n",
    ("loss", "my loss"): f"name 'my loss': {WANTED}; did you mean 'my_loss'?\n",
    ("loss", "class"): f"name 'class': {WANTED}\n",
    ("loss", "_mine"): f"name '_mine': {WANTED}; did you mean 'mine'?\n",
    ("loss", "2nd"): f"name '2nd': {WANTED}\n",
    ("loss", "émile"): f"name 'émile': {WANTED}; did you mean 'emile'?\n",
    ("loss", "größe"): f"name 'größe': {WANTED}\n",
    ("loss", "損失"): f"name '損失': {WANTED}\n",
    ("loss", os.fsdecode(b"l\xe9")): rf"name 'l\xe9': {WANTED}" + "\n",
    ("loss", ""): f"name '': {WANTED}\n",
    ("loss", "x" * 41): f"name '{'x' * 41}': expected at most 40 characters",
    ("loss", "bce"): "name 'bce': the loss 'bce' is already registered by losses.bce (ganlab ",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_name_that_cannot_be(arguments: tuple[str, str], ganlab: Ganlab, tmp_path: Path) -> None:
    code, out, err = ganlab("new", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(REFUSED[arguments])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(ganlab: Ganlab, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    code, _, err = ganlab("new", "loss", "mine")
    assert (code, err) == (2, "test_mine.py: is there already, and is not overwritten\n")
    assert not (tmp_path / "mine.py").exists()
    assert (tmp_path / "test_mine.py").read_text() == "precious"
    assert ganlab("new", "loss", "mine", "--out", "no/mine.py")[::2] == (2, "no: no such folder\n")
    for folder in (".", "..", tmp_path):
        assert ganlab("new", "loss", "mine", "--out", folder)[::2] == (
            2,
            f"--out {folder}: is a folder; expected FILE.py\n",
        )
    assert ganlab("new", "loss", "mine", "--out", "mine.txt")[::2] == (
        2,
        "mine.txt: expected the name of a Python file, such as my_loss.py\n",
    )
    for module in ("torch", "sys", "os"):  # a test beside the file would import it in the module's place
        line = f"{module}.py: an installed Python module is called {module!r}; choose another by --out\n"
        assert ganlab("new", "loss", module)[::2] == (2, line)
    assert ganlab("new", "loss", "mine", "--out", "optimizers.py")[::2] == (
        2,
        "optimizers.py: a plugin of the name 'optimizers' is already loaded; choose another by --out\n",
    )
