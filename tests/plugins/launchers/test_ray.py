"""The Ray launcher, held against the local one on a simulated cluster of two nodes, of which one is killed.

Each node has one CPU. What a run waits for here is a file, so that a node dies while its run is known to be halfway.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from ganlab import ComponentError, Task
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab_plugins.launchers.ray import Ray
from support import alive, until

Command = Callable[..., tuple[int, str, str]]


pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(head: Cluster) -> Cluster:
    """Two nodes, whatever the test before has left."""
    while len(head.list_all_nodes()) < 2:
        head.add_node(num_cpus=1)
    return head


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


# ---------------------------------------------------------------------------------------------------------------------
# Tasks
# ---------------------------------------------------------------------------------------------------------------------

COUNTS = """
import os, pathlib, sys, time
name, code = sys.argv[1:]
with open("events", "a") as events:
    events.write(f"{name} begins\\n")
print(name, os.environ["OMP_NUM_THREADS"], os.environ["GANLAB_TEST"], repr(os.environ["CUDA_VISIBLE_DEVICES"]))
time.sleep(0.3)
with open("events", "a") as events:
    events.write(f"{name} ends\\n")
sys.stdout.flush()
os._exit(int(code)) if int(code) >= 0 else os.kill(os.getpid(), -int(code))
"""


@pytest.mark.ray
def test_every_task_runs_a_few_at_a_time(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of one, the others run: in the command's folder, with its variables, as many as jobs."""
    monkeypatch.setenv("GANLAB_TEST", "set after the cluster was started")
    codes = {"good": 0, "bad": 3, "killed": -9, "last": 0}
    tasks = [Task(name, (*python(COUNTS), name, str(code)), Path(f"logs/{name}.log")) for name, code in codes.items()]
    tasks.insert(2, Task("no_python", ("/gone/python",), Path("logs/no_python.log")))
    ended = {task.name: code for task, code in Ray(address=cluster.address).launch(tasks, 1)}
    assert ended == codes | {"no_python": 1}
    assert Path("logs/good.log").read_text() == "good 1 set after the cluster was started ''\n"
    assert "/gone/python: No such file" in Path("logs/no_python.log").read_text()
    assert Path("events").read_text().splitlines() == [
        f"{name} {what}" for name in codes for what in ("begins", "ends")
    ], "one at a time"


@pytest.mark.extended
@pytest.mark.ray
def test_a_task_that_its_node_cannot_start_has_failed_and_its_log_says_why(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANLAB_TEST", "more than a process can be given" * 10_000)
    task = Task("x", python(""), Path("x.log"))
    assert list(Ray(address=cluster.address).launch([task], 1)) == [(task, 1)]
    assert Path("x.log").read_text().startswith(f"could not be started: {platform.node()}: [Errno 7]")


@pytest.mark.extended
@pytest.mark.ray
def test_a_run_sees_the_gpus_that_it_reserves(cluster: Cluster) -> None:
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    tasks = [Task(name, python(code), Path(f"{name}.log")) for name in ("a", "b")]
    node = cluster.add_node(num_cpus=4, num_gpus=2)
    try:
        launched = list(Ray(address=cluster.address, gpus=1).launch(tasks, 2))
    finally:
        cluster.remove_node(node)
    assert sorted(code for _, code in launched) == [0, 0]
    assert {Path(f"{name}.log").read_text() for name in ("a", "b")} <= {"0 2\n", "1 2\n"}


MARKS = """
import os, pathlib, time
with open("starters", "a") as file:
    file.write(f"{os.getppid()}\\n")
while not pathlib.Path("open").exists():
    time.sleep(0.02)
"""


@pytest.mark.extended
@pytest.mark.ray
def test_a_task_whose_worker_is_killed_is_started_again(cluster: Cluster) -> None:
    def starters() -> list[int]:
        return [int(line) for line in Path("starters").read_text().splitlines()] if Path("starters").exists() else []

    code = "\n".join(
        [
            "from ganlab import Task",
            "from ganlab_plugins.launchers.ray import Ray",
            "from pathlib import Path",
            f"task = Task('x', {python(MARKS)!r}, Path('x.log'))",
            f"print([code for _, code in Ray(address={cluster.address!r}).launch([task], 1)])",
        ]
    )
    driver = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    until(lambda: len(starters()) == 1)
    os.kill(starters()[0], signal.SIGKILL)
    until(lambda: len(starters()) == 2)
    Path("open").touch()
    assert driver.communicate(timeout=120)[0] == "[0]\n"
    assert starters()[0] != starters()[1]


SAVES = """
import pathlib, signal, sys, time
name = sys.argv[1]
def save(*_):
    time.sleep(0.5)
    pathlib.Path(f"{name}.saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
pathlib.Path(f"{name}.runs").touch()
while name != "first":
    time.sleep(0.02)
"""


@pytest.mark.extended
@pytest.mark.ray
def test_closing_the_iterator_stops_what_runs_and_drops_what_waits(cluster: Cluster) -> None:
    tasks = [Task(name, (*python(SAVES), name), Path(f"{name}.log")) for name in ("first", "a", "b", "c", "d")]
    launched = Ray(address=cluster.address, threads=1).launch(tasks, 4)
    assert next(launched) == (tasks[0], 0)
    until(lambda: len(list(Path().glob("?.runs"))) == 2)
    launched.close()
    running = {file.stem for file in Path().glob("?.runs")}
    assert len(running) == 2, "as many as there are CPUs"
    assert {file.stem for file in Path().glob("?.saved")} == running


# ---------------------------------------------------------------------------------------------------------------------
# Sweeps
# ---------------------------------------------------------------------------------------------------------------------

GATE = """
import os, pathlib, time
from ganlab import hookimpl

@hookimpl
def checkpoint_saved(run, path):
    run.path.with_suffix(".pid").write_text(f"{os.getpid()}\\n")
    while not pathlib.Path("gate_is_open").exists():
        time.sleep(0.02)
"""


def sweep(path: Path, out: str, address: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ganlab", "sweep", str(path), "--jobs", "2", "--out", out, *arguments]
    return subprocess.Popen(
        command,
        env=os.environ | {"RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.extended
@pytest.mark.ray
@pytest.mark.usefixtures("forked_processes")
def test_a_sweep_that_loses_a_node_ends_as_it_does_on_this_machine(
    cluster: Cluster,
    table: dict[str, Any],
    write: Callable[..., Path],
    ganlab: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "gate.py").write_text(GATE)
    monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path / "plugins"))
    table["metric"] = [{"name": "fid", "every": 10, "samples": 16, "features": {"name": "classifier", "updates": 20}}]
    table["train"] |= {"steps": 30, "log_every": 10, "checkpoint_every": 10}
    write(table)
    path = write(
        {"base": "tiny.toml", "seeds": [0, 1], "variants": {"bce": {}}, "launcher": {"name": "local", "threads": 1}},
        "sweep.toml",
    )

    through_ray = sweep(path, "r", cluster.address, "--launcher", "ray")
    runs = [Path(f"r/bce/seed-{seed}") for seed in (0, 1)]
    files = [run.with_suffix(".pid") for run in runs]
    until(lambda: all(file.is_file() and file.read_text().endswith("\n") for file in files))
    processes = [int(file.read_text()) for file in files]
    (lost,) = cluster.worker_nodes
    cluster.remove_node(lost, allow_graceful=False)
    until(lambda: [alive(process) for process in processes].count(False) == 1)
    Path("gate_is_open").touch()
    out, err = through_ray.communicate(timeout=240)
    assert (through_ray.returncode, err) == (0, ""), out
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "2 runs in r",
        "1/2",
        "2/2",
        "compare them by: ganlab compare r",
    ], "nothing of Ray's"
    assert sorted(len(read_info(run)["resumed"]) for run in runs) == [0, 1], "the run of the lost node, and only that"
    assert [entry["step"] for run in runs for entry in read_info(run)["resumed"]] == [10]

    assert ganlab("sweep", path, "--jobs", 2, "--out", "l")[0] == 0
    for run in runs:
        assert read_info(run)["status"] == "finished"
        local = Path("l") / run.relative_to("r")
        values = [[(r["step"], r["name"], r["value"]) for r in read_records(f / "metrics.jsonl")] for f in (run, local)]
        assert values[0] == values[1]
        assert len(values[0]) == 4
        losses = [[r["loss_generator"] for r in read_records(folder / "log.jsonl")] for folder in (run, local)]
        assert losses[0] == losses[1]

    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    code, out, _ = ganlab("sweep", path, "--launcher", "ray", "--out", "r")
    assert code == 0, "a sweep that has finished asks no cluster"
    assert out.startswith("2 runs in r, 2 finished already\n")


@pytest.mark.extended
@pytest.mark.ray
@pytest.mark.usefixtures("forked_processes")
def test_stopping_a_sweep_saves_its_runs(table: dict[str, Any], write: Callable[..., Path]) -> None:
    """On a Ray of its own, whose handler of SIGTERM would end the sweep and leave the run unsaved."""
    table["train"] |= {"steps": 5_000_000, "log_every": 10}
    write(table)
    path = write({"base": "tiny.toml", "variants": {"bce": {}}, "launcher": "ray"}, "sweep.toml")
    stopped = sweep(path, "s", "local")
    run = Path("s/bce/seed-0")
    until(lambda: read_records(run / "log.jsonl"))
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 75, (out, err)
    assert "Traceback" not in err
    assert read_info(run)["status"] == "interrupted"
    assert list((run / "checkpoints").iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# What is refused, and what is settled before the first run
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launcher", "line"),
    [
        (
            {"name": "ray", "address": "127.0.0.1:1"},
            "launcher ray: address 127.0.0.1:1: [Errno",
        ),
        ({"name": "ray", "address": "127.0.0.1:99999"}, "launcher ray: address 127.0.0.1:99999: "),
        ({"name": "ray", "address": "nonsense"}, "launcher ray: address nonsense: "),
        ({"name": "ray", "address": ""}, "launcher.address: "),
        ({"name": "ray", "threads": 0}, "launcher.threads: must be >= 1, got 0"),
        (
            {"name": "ray", "gpus": 1.5},
            "launcher.gpus: expected a whole number, or a fraction between 0 and 1, got 1.5",
        ),
        ({"name": "ray", "gpus": -1}, "launcher.gpus: expected a whole number, or a fraction between 0 and 1, got -1"),
        ({"name": "ray", "adress": "x"}, "launcher.adress: unknown key; did you mean 'address'?"),
    ],
)
def test_bad_options(
    launcher: dict[str, Any], line: str, table: dict[str, Any], write: Callable[..., Path], ganlab: Command
) -> None:
    write(table)
    path = write({"base": "tiny.toml", "variants": {"x": {}}, "launcher": launcher}, "sweep.toml")
    code, _, err = ganlab("sweep", path, "--out", "s")
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1


def test_a_cluster_that_has_crashed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray notes the cluster of this machine in a file, and would try for minutes to reach one that is gone."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(ComponentError, match=r"ray_current_cluster, which `ray stop` removes: .*refused"):
        next(Ray().launch([Task("x", (), Path("x"))], 1))


def test_without_ray_one_line_says_what_to_install(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write(table)
    path = write({"base": "tiny.toml", "variants": {"x": {}}}, "sweep.toml")
    code, _, err = ganlab("sweep", path, "--out", "s", "--launcher", "ray")
    assert code == 2
    assert err == "launcher ray: import of ray halted; None in sys.modules; pip install 'ganlab[ray]'\n"
    with pytest.raises(ComponentError):
        next(Ray().launch([Task("x", (), Path("x"))], 1))


@pytest.mark.parametrize(
    ("cpus", "jobs", "options", "threads"),
    [
        ([8], 1, {}, 8),
        ([8], 2, {}, 4),
        ([8], 3, {}, 2),
        ([8], 9, {}, 1),
        ([1, 1], 1, {}, 1),
        ([8, 8], 2, {}, 8),
        ([8, 8], 3, {}, 4),
        ([8, 2], 3, {}, 2),
        ([0, 8], 2, {}, 4),
        ([8, 8], 2, {"threads": 3}, 3),
        ([(8, 1), (8, 1)], 8, {"gpus": 1}, 8),
        ([(8, 1), (8, 1)], 8, {"gpus": 0.5}, 4),
        ([(8, 1), (32, 0)], 8, {"gpus": 1}, 8),
        ([(8, 3)], 10, {"gpus": 0.1}, 1),
    ],
)
def test_threads_are_as_many_as_let_the_jobs_fit(
    cpus: list[int | tuple[int, int]], jobs: int, options: dict[str, Any], threads: int
) -> None:
    """On one node the cores divided by the jobs, as the local launcher has them."""
    nodes = [
        dict(zip(("CPU", "GPU"), node, strict=True)) if isinstance(node, tuple) else {"CPU": node} for node in cpus
    ]
    assert Ray(**options)._threads_per_run(nodes, jobs) == threads


@pytest.mark.parametrize(
    ("nodes", "options", "words"),
    [
        ([{"CPU": 2.0}], {"threads": 4}, "no node has 4 CPUs for a run; all runs wait until one has"),
        ([{"CPU": 2.0}], {"gpus": 1}, "no node has 1 CPUs and 1 GPUs for a run; all runs wait until one has"),
        ([{"memory": 1.0}], {}, "no node has 1 CPUs for a run"),
        ([{"CPU": 2.0, "GPU": 4.0}], {}, "the cluster has 4 GPUs, and the runs use none; set launcher.gpus"),
    ],
)
def test_what_would_look_like_a_mistake_is_told(
    nodes: list[dict[str, float]], options: dict[str, Any], words: str
) -> None:
    with pytest.warns(UserWarning, match=words):
        Ray(**options)._threads_per_run(nodes, 1)
