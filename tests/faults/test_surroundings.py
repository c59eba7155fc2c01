"""Odd surroundings, of which none is a reason not to run: clocks, time zones, locales, no home, nobody who reads."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saboteur
from children import Child, Command
from ganlab.run.run_folder import read_info
from run_folders import assert_same_run
from support import until

Write = Callable[..., Path]


@pytest.fixture
def scored(table: dict[str, Any], write: Write) -> Path:
    table["train"] |= {"sample_every": 2, "checkpoint_every": 2}
    table["metric"] = [{"name": "fid", "every": 2, "samples": 16, "features": {"name": "classifier", "updates": 20}}]
    return write(table)


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ganlab", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, **options)


def test_a_clock_that_is_set_back(scored: Path, tmp_path: Path) -> None:
    """Between the two halves of a run, which then ends before it has begun."""
    whole = Child(Command("run", scored, "--out", "whole"), tmp_path / "log")
    assert whole.ended() == 0, whole.said
    half = Child(Command("run", scored, "--out", "r", "--set", "train.steps=2"), tmp_path / "log")
    assert half.ended() == 0, half.said
    back = Child(Command("run", scored, "--out", "r", "--resume", before=saboteur.clock_set_back), tmp_path / "log")
    assert back.ended() == 0, back.said
    info = read_info(Path("r"))
    assert info["ended"].startswith("1999-06")
    assert info["started"] > info["ended"]
    assert info["seconds"] > 0
    assert_same_run(Path("whole"), Path("r"))
    # Its name says 1999, and nothing is in the way of that either.
    named = Child(Command("run", scored, before=saboteur.clock_set_back), tmp_path / "log")
    assert named.ended() == 0, named.said
    (folder,) = Path("runs/tiny").iterdir()
    assert folder.name.startswith("1999")


@pytest.mark.extended
@pytest.mark.slow
def test_another_time_zone_and_locale(scored: Path, tmp_path: Path) -> None:
    """A locale without the characters that are printed; a folder's name has some of its own."""
    plain = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
    first = Child(
        Command("run", scored, "--out", "läufe-é", "--set", "train.steps=2", before=saboteur.in_tokyo),
        tmp_path / "log",
    )
    assert first.ended() == 0, first.said
    other = plain | {"LC_ALL": "C", "TZ": "America/New_York"}
    second = run(scored, "--out", "läufe-é", "--resume", env=os.environ | other)
    assert second.returncode == 0, second.stderr.decode()
    third = run(scored, "--out", "r", env=os.environ | plain | {"PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX"})
    assert third.returncode == 0, third.stderr.decode()
    assert_same_run(Path("r"), Path("läufe-é"))
    assert read_info(Path("läufe-é"))["started"].endswith("+00:00")


@pytest.mark.extended
@pytest.mark.slow
def test_a_user_without_a_home(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    child = Child(
        Command("run", scored, "--out", "r", before=functools.partial(saboteur.nobody, str(tmp_path / "temporary"))),
        tmp_path / "log",
    )
    assert child.ended() == 0, child.said
    assert any((tmp_path / "temporary" / "ganlab-54321").rglob("*.safetensors")), "what is costly is kept there"
    assert not Path("~").exists()


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_no_terminal_and_nobody_who_reads(scored: Path) -> None:
    """A pipe that is closed at its other end, as by `| head -1`; output that is closed from the beginning."""
    command = [sys.executable, "-m", "ganlab", "run", str(scored)]
    read, write = os.pipe()
    piped = subprocess.Popen([*command, "--out", "piped"], stdin=subprocess.DEVNULL, stdout=write, stderr=write)
    os.close(write)
    os.close(read)
    assert piped.wait(120) == 0
    assert read_info(Path("piped"))["status"] == "finished"
    closed = subprocess.run(f"{' '.join(command)} --out closed >&- 2>&- <&-", shell=True, check=False, timeout=120)
    assert closed.returncode == 0
    assert read_info(Path("closed"))["status"] == "finished"


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_a_terminal_that_goes_away(table: dict[str, Any], write: Write) -> None:
    """The run gets SIGHUP, saves, and ends as interrupted; output that nobody can read does not stop it."""
    import pexpect

    table["train"] |= {"steps": 10_000_000, "checkpoint_every": 0, "log_every": 1}
    command = ["-m", "ganlab", "run", str(write(table)), "--out", "r"]
    # Where the tests were started by nohup it would be ignored, and rightly.
    heeded = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    child = pexpect.spawn(sys.executable, command, timeout=90, preexec_fn=heeded)
    try:
        child.expect("loss D")
        os.close(child.child_fd)
        until(lambda: read_info(Path("r"))["status"] == "interrupted")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    assert any(Path("r/checkpoints").glob("step-*"))
