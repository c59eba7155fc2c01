"""The launcher of a cluster: each run is a Ray task that starts `ganlab run` on some node and waits for it.

Decisions:
- A task is a command that can be started again until it has finished, so Ray may start it again without end: what was
  lost with a node or a worker goes on elsewhere from its latest checkpoint. A run that fails is not started again.
- A run reserves its threads as CPUs. Their number is settled once, before the first run, because a run's bits depend
  on it: losing a node does not change it.
- Run folders, code and Python are found under the same paths on every node; nothing is copied.
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
"""How long the head of a cluster may take to answer; Ray itself would try for minutes."""


def _whole_or_part(instance: object, attribute: Attribute[float], value: float) -> None:
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"expected a whole number or a part of one, got {value}")


@frozen
class Ray:
    """Runs on the nodes of a Ray cluster, `--jobs` at a time; what a lost node ran goes on elsewhere.

    All nodes must see the folder of the sweep, the current folder and this Python with ganlab under the same paths. A
    run has the environment of its node, and the variables PYTHONPATH and GANLAB_* of the command.

    address: the cluster, HOST:PORT; by default RAY_ADDRESS, else the one running here, else a Ray of its own here.
    threads: CPU threads of each run, reserved; by default as many as let `--jobs` runs fit on the nodes at once. A
    run's bits depend on it.
    gpus: GPUs that each run reserves, or the part of one. It sees no others: with 0 it trains on the CPU.
    """

    address: str | None = field(default=None, validator=optional(min_len(1)))
    threads: int | None = field(default=None, validator=optional([ge(1), le(4096)]))
    gpus: float = field(default=0.0, validator=_whole_or_part)

    def launch(self, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, int]]:
        """Raises ComponentError where Ray is not installed or the cluster cannot be reached."""
        if not tasks:
            return
        try:
            import ray
        except ImportError as error:
            raise ComponentError(f"launcher ray: {one_line(error)}; pip install 'ganlab[ray]'") from None
        with _connected(self.address):
            threads = self._settled([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs)
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
                # A task that runs is interrupted, and ends when its run has saved; one that waits is dropped.
                for unfinished in running:
                    ray.cancel(unfinished)
                _wait(running, len(running))

    def _settled(self, nodes: Sequence[Mapping[str, float]], jobs: int) -> int:
        """The threads of each run, given each node's resources; warns of what would otherwise look like a mistake."""
        largest = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        wanted = max(1, min(jobs, _room(nodes, 1, self.gpus)))
        fitting = (threads for threads in range(largest, 0, -1) if _room(nodes, threads, self.gpus) >= wanted)
        threads = self.threads or next(fitting, 1)
        if _room(nodes, threads, self.gpus) == 0:
            needs = f"{threads} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
            warnings.warn(f"launcher ray: no node has {needs} for a run; all wait until one has", stacklevel=2)
        present = sum(node.get("GPU", 0) for node in nodes)
        if present and not self.gpus:
            message = f"launcher ray: the cluster has {present:g} GPUs, and the runs use none; set launcher.gpus"
            warnings.warn(message, stacklevel=2)
        return threads

    def _environment(self, threads: int) -> dict[str, str]:
        """What a run's environment must have, wherever it is started."""
        own = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or name.startswith("GANLAB_")}
        own |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # Ray names the GPUs that a task reserved; whether it hides them from one that reserved none differs by version.
        return own if self.gpus else own | {"CUDA_VISIBLE_DEVICES": ""}


def _room(nodes: Sequence[Mapping[str, float]], threads: int, gpus: float) -> int:
    """How many runs fit on the nodes at once."""
    by_gpu = [int(node.get("GPU", 0) / gpus + 1e-6) if gpus else sys.maxsize for node in nodes]
    return sum(min(int(node.get("CPU", 0)) // threads, most) for node, most in zip(nodes, by_gpu, strict=True))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """In the body this process is connected to the cluster; it stays so where it was before."""
    import ray

    if ray.is_initialized():
        yield
        return
    target, where = _target(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        _refuse_silent(target)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise ComponentError(f"launcher ray: {where}: {one_line(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # Ray's own would end the sweep without saving
    try:
        yield
    finally:
        with _hushed():
            ray.shutdown()


def _target(address: str | None) -> tuple[str, str]:
    """The address that Ray will take, empty where it will start its own, and the same in words."""
    if named := address or os.environ.get("RAY_ADDRESS"):
        return named, f"address {named}"
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    noted = note.read_text().strip() if note.is_file() else ""
    return noted, f"address {noted} in {note}, which `ray stop` removes" if noted else "a Ray on this machine"


def _refuse_silent(address: str) -> None:
    """Raises OSError where nothing answers at HOST:PORT; other forms of an address are left to Ray."""
    host, _, port = address.rpartition(":")
    if "://" not in address and host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _wait(running: Mapping[ray.ObjectRef[int], Task], count: int) -> list[ray.ObjectRef[int]]:
    """Returns at least `count` of the tasks, which have ended."""
    import ray

    if not running:
        return []
    with _hushed():
        return ray.wait(list(running), num_returns=count)[0]


def _hushed() -> contextlib.AbstractContextManager[object]:
    """In the body Ray prints nothing: a thread of it tells of lost nodes, whatever the level of its logger."""
    return contextlib.redirect_stdout(io.StringIO())


def _exit_code(ended: ray.ObjectRef[int], task: Task) -> int:
    """The exit code of a task's run; 1 where there is none, and then its log says why."""
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
