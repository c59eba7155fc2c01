"""Signals that ask a run to stop: a first is granted, a second ends it at once, and nothing is torn by either."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import saboteur
from children import Child, Command
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from run_folders import assert_same_run
from support import REPOSITORY, until
from tiers import spread

Write = Callable[..., Path]
SIGNALS = [
    signal.SIGTERM,
    *(pytest.param(each, marks=pytest.mark.extended) for each in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)),
]
pytestmark = pytest.mark.kill


@pytest.fixture
def long(table: dict[str, Any], write: Write) -> Path:
    table["train"] |= {"steps": 10_000_000, "checkpoint_every": 0, "log_every": 1}
    return write(table)


def assert_goes_on_exactly(file: Path, run: Path, tmp_path: Path) -> None:
    """Three steps more, held against a run that was never stopped."""
    step = max(list_checkpoints(run / "checkpoints"))
    more = ("--set", f"train.steps={step + 3}")
    for out in ("whole", run):
        child = Child(Command("run", file, "--out", out, "--resume", *more), tmp_path / "log")
        assert child.ended() == 0, child.said
    shutil.rmtree(list_checkpoints(run / "checkpoints")[step])  # which a run that is not stopped does not have
    assert_same_run(Path("whole"), run)


@pytest.mark.parametrize("number", SIGNALS, ids=attrgetter("name"))
def test_one_signal(number: signal.Signals, long: Path, tmp_path: Path) -> None:
    child = Child(Command("run", long, "--out", "r"), tmp_path / "log")
    until(lambda: len(read_records(Path("r/log.jsonl"))) > 3)
    os.kill(child.pid, number)
    assert child.ended() == 75, child.said
    assert "go on with --resume" in child.said
    assert read_info(Path("r"))["status"] == "interrupted"
    assert_goes_on_exactly(long, Path("r"), tmp_path)


def test_a_hangup_is_ignored_where_it_was_ignored_before(long: Path, tmp_path: Path) -> None:
    """As under nohup."""
    child = Child(Command("run", long, "--out", "r", before=saboteur.ignore_hangup), tmp_path / "log")
    until(lambda: len(read_records(Path("r/log.jsonl"))) > 3)
    os.kill(child.pid, signal.SIGHUP)
    steps = len(read_records(Path("r/log.jsonl")))
    until(lambda: len(read_records(Path("r/log.jsonl"))) > steps + 3)
    os.kill(child.pid, signal.SIGTERM)
    assert child.ended() == 75, child.said


def test_an_interrupt_is_heard_in_the_background_of_a_script(long: Path, tmp_path: Path) -> None:
    child = Child(Command("run", long, "--out", "r", before=saboteur.ignore_interrupt), tmp_path / "log")
    until(lambda: len(read_records(Path("r/log.jsonl"))) > 3)
    os.kill(child.pid, signal.SIGINT)
    assert child.ended() == 75, child.said
    assert "go on with --resume" in child.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=attrgetter("name"))
def test_samples_that_are_stopped(number: signal.Signals, table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """In the background of a script too, and of a file as of a folder."""
    assert Child(Command("run", write(table), "--out", "r"), tmp_path / "log").ended() == 0
    before = saboteur.ignore_interrupt
    child = Child(Command("sample", "r", "--count", 10**6, "--out", "d", before=before), tmp_path / "folder.log")
    until(lambda: Path("d/00300.png").exists() or Path("d/000300.png").exists())
    os.kill(child.pid, number)
    assert child.ended() == 75, child.said
    said = "d: not all of 1,000,000 images are written; the same command goes on"
    assert child.said.splitlines()[-1] == said
    assert not list(Path("d").glob(".*.part"))
    child = Child(Command("sample", "r", "--count", 10**7, "--out", "d.npz", before=before), tmp_path / "file.log")
    until(lambda: list(Path.cwd().glob(".d.npz.*")))
    os.kill(child.pid, number)
    assert child.ended() == 75, child.said
    assert child.said.splitlines()[-1] == "d.npz: nothing is written; the same command starts again"
    assert not list(Path.cwd().glob("*d.npz*"))


def saving(run: Path) -> bool:
    return any(run.glob("checkpoints/.step-*/*.safetensors"))


@pytest.mark.parametrize("number", SIGNALS[:3], ids=attrgetter("name"))
def test_a_signal_during_a_save(number: signal.Signals, table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    table["train"] |= {"steps": 10_000_000, "checkpoint_every": 3, "log_every": 1}
    file = write(table)
    child = Child(Command("run", file, "--out", "r", before=saboteur.slow_disk), tmp_path / "log")
    until(lambda: saving(Path("r")))
    os.kill(child.pid, number)
    assert child.ended() == 75, child.said
    saved = list_checkpoints(Path("r/checkpoints"))
    assert list(saved) == [3]
    load_checkpoint(saved[3])
    assert not saving(Path("r"))


@pytest.mark.extended
@pytest.mark.kill
def test_a_second_signal_during_the_save_that_the_first_asked_for(
    table: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    """It ends at once: the save is given up, and what was saved before is whole."""
    table["train"] |= {"steps": 10_000_000, "checkpoint_every": 4, "log_every": 1}
    file = write(table)
    child = Child(Command("run", file, "--out", "r", before=saboteur.slow_disk), tmp_path / "log")
    until(lambda: len(read_records(Path("r/log.jsonl"))) >= 5)
    os.kill(child.pid, signal.SIGTERM)
    until(lambda: saving(Path("r")))
    started = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    assert child.ended() == 130, child.said
    assert time.monotonic() - started < 5
    assert "ended at once" in child.said
    assert "Traceback" not in child.said
    saved = list_checkpoints(Path("r/checkpoints"))
    assert next(iter(saved)) == 4
    for path in saved.values():
        load_checkpoint(path)
    assert not saving(Path("r"))
    assert read_info(Path("r"))["status"] == "interrupted"


SHUTTING_DOWN = """
import atexit, os, signal, threading, time
from ganlab.cli import main


def slow(write=os.write, sleep=time.sleep):
    write(1, b"here")
    sleep({seconds})


def once_there_is_a_result():
    while signal.getsignal(signal.SIGTERM) == signal.default_int_handler:
        time.sleep(0.01)
    slow()


class Last:
    def __del__(self, slow=slow):
        slow()


def call(arguments):
    if "{where}" == "a thread":
        threading.Thread(target=once_there_is_a_result).start()
    elif "{where}" == "atexit":
        atexit.register(slow)
    else:
        main.kept_to_the_end = Last()
    print("said", end="")
    return 75


main.call = call
main.main()
"""


@pytest.mark.parametrize("number", spread(3, [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]), ids=attrgetter("name"))
@pytest.mark.parametrize(("where", "seconds"), [("a thread", 60), ("atexit", 60), ("the end", 1)])
def test_a_signal_while_python_shuts_down_leaves_the_exit_code(
    where: str, seconds: int, number: signal.Signals
) -> None:
    """Handlers end a wait for a thread or for `atexit`; at the end Python calls none, and it is waited for."""
    code = SHUTTING_DOWN.format(where=where, seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    started = time.monotonic()
    assert process.stdout.read(8) in (b"heresaid", b"saidhere"), "what was printed is not lost"
    process.send_signal(number)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 75
    assert time.monotonic() - started < 30
