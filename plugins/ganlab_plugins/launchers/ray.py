"""The Ray launcher: each run of a sweep is a Ray task that starts `ganlab run` on a node of a cluster and waits for it.

Decisions:
- A task's command can be restarted until it has finished, so Ray has unlimited retries: a run that is lost with a node
  or a worker resumes elsewhere from its latest checkpoint. A run that fails is not restarted.
- A run reserves its threads as CPUs. Their number is fixed before the first run, because a run's exact results depend
  on it: losing a node does not change it.
- Run folders, code and Python must be at the same paths on every node; nothing is copied.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import Attribute, field, frozen
from attrs.validators import ge, le, min_len, optional

from ganlab import ComponentError, Launcher, Register, Task, hookimpl, one_line
from ganlab_plugins.launchers._run_command import run_command

if TYPE_CHECKING:
    import ray

CONNECT_SECONDS = 10.0
"""Seconds that the head of a Ray cluster may take to answer; Ray itself would try for minutes."""


def _whole_or_part(instance: object, attribute: Attribute[float], value: float) -> None:
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"expected a whole number, or a fraction between 0 and 1, got {value}")


@frozen
class Ray:
    """Ray launcher: runs on the nodes of a Ray cluster, `--jobs` at a time; runs of a lost node resume on another.

    All nodes must have the sweep's folder, the current folder and this Python with ganlab at the same paths. A run has
    its node's environment, plus the variables PYTHONPATH and GANLAB_* of the command.

    address: the cluster, HOST:PORT; by default RAY_ADDRESS, else the cluster running here, else a new local one.
    threads: CPU threads that each run reserves; by default the most with which `--jobs` runs fit on the nodes at once.
        A run's exact results depend on it.
    gpus: GPUs that each run reserves, or a fraction of one. It sees no others: with 0 it trains on the CPU.
    """

    address: str | None = field(default=None, validator=optional(min_len(1)))
    threads: int | None = field(default=None, validator=optional([ge(1), le(4096)]))
    gpus: float = field(default=0.0, validator=_whole_or_part)

    def launch(self, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, int]]:
        """Starts runs on the Ray cluster; raises ComponentError if Ray is not installed or does not answer."""
        if not tasks:
            return
        try:
            import ray
        except ImportError as error:
            raise ComponentError(f"launcher ray: {one_line(error)}; pip install 'ganlab[ray]'") from None
        with _connected(self.address):
            threads = self._threads_per_run([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs)
            run = ray.remote(num_cpus=threads, num_gpus=self.gpus, max_retries=-1, scheduling_strategy="SPREAD")(
                run_command
            )
            environment = self._environment(threads)
            waiting = list(tasks)
            running: dict[ray.ObjectRef[int], Task] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        task = waiting.pop(0)
                        log = Path.cwd() / task.log
                        log.parent.mkdir(parents=True, exist_ok=True)
                        started = run.options(name=task.name).remote(task.command, str(log), os.getcwd(), environment)
                        running[started] = task
                    for ended in _wait(running, 1):
                        yield running[ended], _exit_code(ended, running.pop(ended))
            finally:
                # A running task is interrupted, and ends when its run has saved; a pending task is cancelled.
                for unfinished in running:
                    ray.cancel(unfinished)
                _wait(running, len(running))

    def _threads_per_run(self, nodes: Sequence[Mapping[str, float]], jobs: int) -> int:
        """The threads of each run, given the Ray nodes' resources; warns if no node fits a run or GPUs stay unused."""
        largest = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        wanted = max(1, min(jobs, _room(nodes, 1, self.gpus)))
        fitting = (threads for threads in range(largest, 0, -1) if _room(nodes, threads, self.gpus) >= wanted)
        threads = self.threads or next(fitting, 1)
        if _room(nodes, threads, self.gpus) == 0:
            needs = f"{threads} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
            warnings.warn(f"launcher ray: no node has {needs} for a run; all runs wait until one has", stacklevel=2)
        present = sum(node.get("GPU", 0) for node in nodes)
        if present and not self.gpus:
            message = f"launcher ray: the cluster has {present:g} GPUs, and the runs use none; set launcher.gpus"
            warnings.warn(message, stacklevel=2)
        return threads

    def _environment(self, threads: int) -> dict[str, str]:
        """The environment variables that a run must have on any Ray node."""
        own = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or name.startswith("GANLAB_")}
        own |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # Ray sets it for tasks that reserve GPUs; whether it hides GPUs from other tasks depends on Ray's version.
        return own if self.gpus else own | {"CUDA_VISIBLE_DEVICES": ""}


def _room(nodes: Sequence[Mapping[str, float]], threads: int, gpus: float) -> int:
    """The number of runs that fit on the Ray nodes at once."""
    by_gpu = [int(node.get("GPU", 0) / gpus + 1e-6) if gpus else sys.maxsize for node in nodes]
    return sum(min(int(node.get("CPU", 0)) // threads, most) for node, most in zip(nodes, by_gpu, strict=True))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connects this process to the Ray cluster for the body; an existing connection is kept afterwards."""
    import ray

    if ray.is_initialized():
        yield
        return
    target, where = _target(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(target)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise ComponentError(f"launcher ray: {where}: {one_line(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # Ray's handler would end the sweep without saving
    try:
        yield
    finally:
        with _silenced():
            ray.shutdown()


def _target(address: str | None) -> tuple[str, str]:
    """The address that Ray will use, empty if it will start a local cluster, and a description of it for errors."""
    if named := address or os.environ.get("RAY_ADDRESS"):
        return named, f"address {named}"
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    noted = note.read_text().strip() if note.is_file() else ""
    return noted, f"address {noted} in {note}, which `ray stop` removes" if noted else "a Ray on this machine"


def _check_reachable(address: str) -> None:
    """Raises OSError if no Ray head answers at HOST:PORT; other forms of an address are left to Ray."""
    host, _, port = address.rpartition(":")
    if "://" not in address and host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _wait(running: Mapping[ray.ObjectRef[int], Task], count: int) -> list[ray.ObjectRef[int]]:
    """Waits until at least `count` Ray tasks have ended, and returns them."""
    import ray

    if not running:
        return []
    with _silenced():
        return ray.wait(list(running), num_returns=count)[0]


def _silenced() -> contextlib.AbstractContextManager[object]:
    """Ray prints nothing in the body: one of its threads reports lost nodes, whatever its logger's level."""
    return contextlib.redirect_stdout(io.StringIO())


def _exit_code(ended: ray.ObjectRef[int], task: Task) -> int:
    """The exit code of a Ray task's run; 1 if it has none, and then the reason is added to its log."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(ended)
    except RayError as error:
        why = f"could not be started: {error.cause}" if isinstance(error, RayTaskError) else f"was lost: {error}"
        with task.log.open("a", encoding="utf-8") as log:
            log.write(" ".join(why.split()) + "\n")
        return 1


@hookimpl
def register_launchers(register: Register[Launcher]) -> None:
    register("ray", Ray)
