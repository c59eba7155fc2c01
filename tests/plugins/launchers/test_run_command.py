"""One attempt at a task, held against how its process may end: well, badly, stopped, lost and followed by another."""

from __future__ import annotations

import _thread
import fcntl
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ganlab_plugins.launchers._run_command import run_command
from support import alive, until

HERE = {"GANLAB_TEST": "laid over"}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_command_ends_by_itself(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['GANLAB_TEST'], 'HOME' in os.environ, sys.stdin.read() == '')"
    for number in (1, 2):
        assert run_command(python(code), str(tmp_path / "log"), "/", HERE) == 0
        assert (tmp_path / "log").read_text() == "/ laid over True True\n" * number, "the output is added to the log"
    assert run_command(python("raise SystemExit(3)"), str(tmp_path / "log"), "/", {}) == 3
    assert run_command(python("import os; os.kill(os.getpid(), 9)"), str(tmp_path / "log"), "/", {}) == -9


def test_what_cannot_be_started_names_the_machine(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with pytest.raises(OSError, match=rf"^{platform.node()}: .*gone/log"):
        run_command(python(""), str(tmp_path / "gone" / "log"), "/", {})
    with pytest.raises(OSError, match=rf"^{platform.node()}: .*/gone"):
        run_command(python(""), log, str(tmp_path / "gone"), {})
    assert run_command(("/gone/python",), log, "/", {}) == 1
    assert Path(log).read_text() == f"{platform.node()}: /gone/python: No such file or directory\n"


SAVES = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path("saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
while True:
    time.sleep(0.01)
"""


def test_an_interrupt_asks_the_command_to_save_and_waits(tmp_path: Path) -> None:
    """As Ray interrupts a task that is cancelled: in the main thread, between two instructions of Python."""

    def interrupt() -> None:
        until((tmp_path / "ready").exists)
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_command(python(SAVES), str(tmp_path / "log"), str(tmp_path), {})
    assert (tmp_path / "saved").exists()


def test_an_attempt_waits_for_the_processes_of_the_one_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    codes: list[int] = []
    later = threading.Thread(target=lambda: codes.append(run_command(python("print('went on')"), str(log), "/", {})))
    with log.open("ab") as orphan:
        fcntl.flock(orphan, fcntl.LOCK_EX)
        later.start()
        until(lambda: "waiting" in log.read_text())
        assert "went on" not in log.read_text()
    later.join(60)
    assert codes == [0]
    assert log.read_text().splitlines() == ["waiting for the previous attempt to end", "went on"]


LINGERS = """
import os, pathlib, time
pathlib.Path("pid").write_text(str(os.getpid()) + "\\n")
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_lost_starter_leaves_no_orphan(tmp_path: Path) -> None:
    call = f"run_command({python(LINGERS)!r}, 'log', {str(tmp_path)!r}, {{}})"
    starter = subprocess.Popen(
        python(f"from ganlab_plugins.launchers._run_command import run_command; {call}"), cwd=tmp_path, env=os.environ
    )
    until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().endswith("\n"))
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    until(lambda: not alive(pid))
    assert run_command(python(""), str(tmp_path / "log"), "/", {}) == 0, "the log is free again"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_command_whose_starter_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    file = sys.modules[run_command.__module__].__file__
    assert file is not None
    strange = str(os.getppid())
    ended = subprocess.run(
        [sys.executable, file, strange, *python("print('begun')")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", f"process {strange}, which started this one, is gone\n")
