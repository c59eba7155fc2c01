"""Completion, held against the shells: what bash, zsh and fish offer once the script of ganlab is loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from ganlab.cli.main import app
from support import REPOSITORY

BASH = """
source script.sh
COMP_WORDS=({line}{last}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}
$(complete -p ganlab | sed 's/.*-F \\([^ ]*\\).*/\\1/') ganlab
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def environment(tmp_path: Path, wedge: Path) -> dict[str, str]:
    """A command `ganlab` and, as a plugin, the loss `wedge`."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "ganlab").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ganlab "$@"\n')
    (bin / "ganlab").chmod(0o755)
    (tmp_path / "plugins").mkdir()
    shutil.copy(wedge, tmp_path / "plugins" / "wedge.py")
    wedge.unlink()
    (tmp_path / "tiny.toml").write_text("")
    return os.environ | {
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins")]),
        "GANLAB_PLUGINS": str(tmp_path / "plugins"),
        "GANLAB_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }


def script(shell: str) -> None:
    Path("script.sh").write_text(app.generate_completion(shell=shell))  # type: ignore[arg-type]


def offered_by_bash(line: str, environment: dict[str, str]) -> list[str]:
    last = ' ""' if line.endswith(" ") else ""
    done = subprocess.run(
        ["bash", "-c", BASH.format(line=line, last=last)], env=environment, capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.split())


@pytest.mark.extended
@pytest.mark.slow
def test_bash_offers_the_names_that_are_there_now(environment: dict[str, str], tmp_path: Path) -> None:
    script("bash")
    assert offered_by_bash("ganlab plugins wed", environment) == ["wedge"]
    assert offered_by_bash("ganlab new loss", environment) == ["loss", "loss_wrapper"]
    assert offered_by_bash("ganlab eval r --metric k", environment) == ["kid"]
    assert offered_by_bash("ganlab score x --features in", environment) == ["inception"]
    assert offered_by_bash("ganlab sweep x.toml --launcher ", environment) == ["local", "ray", "slurm"]
    assert offered_by_bash("ganlab run x.toml --no-plugin wed", environment) == ["wedge"]
    assert offered_by_bash("ganlab run ti", environment) == ["tiny.toml"]
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").write_text('{"samplers": {"b_to_a": null}}')
    assert offered_by_bash("ganlab translate r x.png --to ", environment) == ["a", "b"]
    assert offered_by_bash("ganlab sample r --sampler ", environment) == ["b_to_a"]
    assert offered_by_bash("ganlab translate no_run x.png --to ", environment) == []
    (tmp_path / "cache" / "floor").mkdir(parents=True, exist_ok=True)
    assert offered_by_bash("ganlab cache --kind fl", environment) == ["floor"]
    (tmp_path / "plugins" / "wedge.py").rename(tmp_path / "plugins" / "soft.py")
    text = (tmp_path / "plugins" / "soft.py").read_text()
    (tmp_path / "plugins" / "soft.py").write_text(text.replace('"wedge"', '"wedded"'))
    assert offered_by_bash("ganlab plugins wed", environment) == ["wedded"], "kept names are those of other plugins"


@pytest.mark.extended
@pytest.mark.slow
def test_names_come_without_torch(environment: dict[str, str]) -> None:
    """The first time plugins are loaded; from then on they are not, and torch is what takes the time."""
    code = (
        "import sys; from ganlab import cli; cli.call(['__complete', 'plugins', 'wed']); print('torch' in sys.modules)"
    )
    for loaded in ("True", "False"):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        assert "wedge\tloss, wedge" in done.stdout
        assert lines[-1] == loaded


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str, environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script(shell)
    if shell == "fish":
        line = "source script.sh; complete --do-complete 'ganlab plugins wed'"
        done = subprocess.run(["fish", "-c", line], env=environment, capture_output=True, text=True, check=True)
        assert [found.split("\t")[0] for found in done.stdout.splitlines()] == ["wedge"]
        return
    (tmp_path / "functions").mkdir()
    Path("script.sh").rename(tmp_path / "functions" / "_cyclopts_ganlab")  # as --install-completion calls it
    (tmp_path / ".zshrc").write_text(
        f"fpath=({tmp_path}/functions $fpath); autoload -Uz compinit; compinit -u; PS1=READY\n"
    )
    child = pexpect.spawn("zsh", ["-i"], env=environment | {"TERM": "dumb", "ZDOTDIR": str(tmp_path)}, encoding="utf-8")
    child.expect("READY")
    child.send("ganlab plugins wed\t")
    child.expect("wedge", timeout=30)
    child.close(force=True)
