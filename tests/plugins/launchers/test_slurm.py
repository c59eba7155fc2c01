"""The Slurm launcher on submitit's local executor, its jobs ended as a queue ends them; and with a queue that refuses.

The queue that refuses is stood in for by scripts called sbatch and srun.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab import ComponentError, Task
from ganlab_plugins.launchers._queue_job import run_job
from ganlab_plugins.launchers.slurm import Slurm
from support import until

Command = Callable[..., tuple[int, str, str]]

# As a run does: it goes on after what it saved, and saves when it is asked to stop.
RUN = """
import pathlib, signal, sys, time
state = pathlib.Path(sys.argv[1])
steps = int(state.read_text()) if state.exists() else 0
def save(*_):
    state.write_text(str(steps))
    print("saved at", steps, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("starts at", steps, flush=True)
while steps < 3:
    gate = pathlib.Path(f"{state}.{steps}")
    while not gate.exists():
        time.sleep(0.02)
    steps += 1
print("done", flush=True)
"""


def task(folder: Path, name: str = "a") -> Task:
    return Task(name, (sys.executable, "-c", RUN, str(folder / "state")), folder / "runs" / f"{name}.log")


@pytest.mark.extended
@pytest.mark.slow
def test_a_job_that_the_queue_ends_is_submitted_again_and_resumes(tmp_path: Path) -> None:
    """SIGTERM to the job's controller, which passes it to the job as Slurm does; then SIGKILL of the whole job."""
    one = task(tmp_path)
    ended: list[tuple[Task, int]] = []
    sweep = threading.Thread(target=lambda: ended.extend(Slurm(cluster="local", threads=1).launch([one], 1)))
    sweep.start()

    def log() -> list[str]:
        return one.log.read_text().splitlines() if one.log.exists() else []

    until(lambda: log() == ["starts at 0"])
    Path(f"{tmp_path}/state.0").touch()
    subprocess.run(["sleep", "0.3"], check=True)
    os.kill(job_of(one), signal.SIGTERM)
    until(lambda: log() == ["starts at 0", "saved at 1", "starts at 1"])
    os.kill(job_of(one), signal.SIGKILL)  # the controller: its own child goes on, and the next attempt waits for it
    for gate in (1, 2):
        Path(f"{tmp_path}/state.{gate}").touch()
    sweep.join(120)
    assert ended == [(one, 0)]
    assert log()[-1] == "done"
    assert log().count("saved at 1") == 1


def job_of(task: Task) -> int:
    """The process of the latest job of the task: submitit's number of a local job."""
    scripts = sorted((task.log.parent / ".slurm").glob("*_submitted.pkl"), key=lambda path: path.stat().st_mtime)
    return int(scripts[-1].name.split("_")[0])


@pytest.mark.extended
@pytest.mark.slow
def test_the_last_submission_is_the_last(tmp_path: Path) -> None:
    asks = Task("a", (sys.executable, "-c", "print('again'); raise SystemExit(75)"), tmp_path / "a.log")
    assert list(Slurm(cluster="local", threads=1, submissions=2).launch([asks], 1)) == [(asks, 75)]
    assert asks.log.read_text() == "again\nagain\n"


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("forked_processes")
def test_a_sweep_by_slurms_launcher_is_that_of_the_local_one(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command
) -> None:
    table["train"]["steps"] = 2
    write(table)
    launcher = {"name": "slurm", "cluster": "local", "threads": 1}
    variants = {"good": {}, "bad": {"dataset": {"name": "image_folder", "path": "gone"}}}
    path = write({"base": "tiny.toml", "launcher": launcher, "variants": variants}, "sweep.toml")
    code, out, err = ganlab("sweep", path, "--jobs", 2, "--out", "s")
    assert (code, err) == (1, ""), out
    assert "good seed 0: finished" in out
    assert "bad seed 0: exit code 2 (" in out
    assert "no such folder" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_jobs_process_asks_its_command_once_to_save(number: signal.Signals, tmp_path: Path) -> None:
    one = task(tmp_path)
    one.log.parent.mkdir()
    pid = os.fork()
    if pid == 0:
        code = run_job(one.command, str(one.log), str(tmp_path), {}, str(tmp_path / "stop"))
        os._exit(code)
    until(lambda: one.log.exists() and "starts" in one.log.read_text())
    os.kill(pid, number)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert one.log.read_text() == "starts at 0\nsaved at 0\n"


def tools(folder: Path, **texts: str) -> str:
    """Scripts by these names; returns a PATH with them in front."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


REFUSES = "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1"


@pytest.mark.parametrize(
    ("scripts", "words"),
    [
        ({"srun": "", "sbatch": REFUSES}, "Batch job submission failed: Invalid partition name specified"),
        ({"srun": "", "sbatch": "echo 'what?'"}, "what?"),
        ({}, 'Could not detect "srun"'),
    ],
)
def test_a_queue_that_refuses_is_one_line(
    scripts: dict[str, str],
    words: str,
    table: dict[str, Any],
    write: Callable[..., Path],
    ganlab: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", **scripts))
    write(table)
    path = write({"base": "tiny.toml", "launcher": "slurm", "variants": {"x": {}}}, "sweep.toml")
    code, _, err = ganlab("sweep", path, "--out", "s")
    assert code == 2
    assert err.startswith("launcher slurm: the job is not accepted: ")
    assert words in err
    assert len(err.splitlines()) == 1


def test_what_is_submitted_to_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options as sbatch's own, by the file that submitit hands to it."""
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", srun="", sbatch=f'cp "$1" {tmp_path}/sent; {REFUSES}'))
    launcher = Slurm(
        partition="gpu", account="lab", qos="low", constraint="a100", minutes=30, threads=8, gpus=1, memory_gb=12.5,
        setup=("module load cuda",),
    )  # fmt: skip
    with pytest.raises(ComponentError):
        next(launcher.launch([task(tmp_path, "x/seed-0")], 1))
    lines = (tmp_path / "sent").read_text().splitlines()
    wanted = {
        *("partition=gpu", "account=lab", "qos=low", "constraint=a100", "time=30", "cpus-per-task=8"),
        *("gpus-per-node=1", "nodes=1", "ntasks-per-node=1", "job-name=ganlab-x-seed-0"),
    }
    assert {f"#SBATCH --{option}" for option in wanted} <= set(lines)
    assert any(line.startswith("#SBATCH --mem=12") for line in lines)
    assert any(line.startswith("#SBATCH --signal=USR2@") for line in lines)
    assert "module load cuda" in lines


def test_without_submitit_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ComponentError, match=r"^launcher slurm: .*; pip install 'ganlab\[slurm\]'$"):
        next(Slurm().launch([task(tmp_path)], 1))
