"""The Slurm launcher: each run of a sweep is a job of the cluster's queue, submitted through submitit.

Decisions:
- The sweep's process stays on the login node: it submits jobs, at most as many at a time as `--jobs` says, and waits.
- A run that the queue ends (its time limit, preemption, a lost node) is submitted again and resumes from its latest
  checkpoint, so a time limit may be far shorter than a run. One that the user cancels with scancel is not.
- A refusal of the first job ends the sweep in one line; of a later one, that run alone fails.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import define, field, frozen
from attrs.validators import ge, gt, le, min_len, optional

from ganlab import ComponentError, Launcher, Register, Task, hookimpl, one_line
from ganlab_plugins.launchers._queue_job import INTERRUPTED, run_job

POLL = 0.5
"""Seconds between two looks at the jobs; submitit asks the queue itself far less often."""

SETTLES = 60
"""Seconds after which the queue's word on a job that has ended is taken as final."""

LOST = ("TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "INTERRUPTED")
"""Slurm's states of a job that the queue ended; the last is that of submitit's local executor."""

GOES_ON = ("RUNNING", "COMPLETING", "UNKNOWN", "")


@define
class Job:
    """A job of the queue: an attempt at a task. `stop` is the file that asks it to save."""

    task: Task
    attempt: int
    submitted: Any
    stop: Path
    preempted: float | None = None

    def state(self) -> str:
        """The state of the job by the queue, asked now: "RUNNING", "CANCELLED" and so on."""
        info = self.submitted.get_info(mode="force")
        state = str(info.get("State") or info.get("jobState") or "")
        return state.split(maxsplit=1)[0] if state else ""

    def has_ended(self) -> bool:
        """Whether the job of the queue has ended. A preempted one that the queue does not start again has."""
        if self.submitted.done():
            return True
        if self.submitted.state.upper() != "PREEMPTED":
            self.preempted = None
            return False
        self.preempted = self.preempted or time.monotonic()
        return time.monotonic() - self.preempted > SETTLES

    def settled_state(self) -> str:
        """The state of a job that has ended, once the queue knows that it has."""
        until = time.monotonic() + SETTLES
        while (state := self.state()) in GOES_ON and time.monotonic() < until:
            time.sleep(POLL)
        return state


@frozen
class Slurm:
    """Slurm launcher: each run of a sweep is a job of the cluster. Needs `ganlab[slurm]` and a shared file system.

    The sweep is started on a login node and waits there. A run that the queue ends, at the time limit or for another
    job, is submitted again and resumes.

    partition, account, qos, constraint: Slurm's options of these names; by default the cluster's own.
    minutes: the time limit of a job. A run may take longer, and is then submitted again.
    threads: CPU threads that each run reserves. A run's exact results depend on it.
    gpus: GPUs that each run reserves.
    memory_gb: memory that each run reserves; by default the cluster's own.
    setup: shell commands before a run, such as "module load cuda".
    submissions: how often a run is submitted at most.
    cluster: "slurm"; "local" runs the jobs on this machine, without a queue, to try a sweep.
    """

    partition: str | None = field(default=None, validator=optional(min_len(1)))
    account: str | None = field(default=None, validator=optional(min_len(1)))
    qos: str | None = field(default=None, validator=optional(min_len(1)))
    constraint: str | None = field(default=None, validator=optional(min_len(1)))
    minutes: int = field(default=240, validator=[ge(3), le(10**6)])
    threads: int = field(default=4, validator=[ge(1), le(4096)])
    gpus: int = field(default=0, validator=[ge(0), le(64)])
    memory_gb: float | None = field(default=None, validator=optional([gt(0), le(10**6)]))
    setup: tuple[str, ...] = ()
    submissions: int = field(default=100, validator=[ge(1), le(10**6)])
    cluster: Literal["slurm", "local"] = "slurm"

    def launch(self, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, int]]:
        """Submits runs to Slurm; raises ComponentError if submitit is not installed or the queue takes no job."""
        waiting = [(task, 1) for task in tasks]
        running: list[Job] = []
        accepted = False
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    task, attempt = waiting.pop(0)
                    try:
                        running.append(self._submit(task, attempt))
                    except ComponentError as error:
                        if not accepted:
                            raise
                        _note(task, str(error))
                        yield task, 1
                    accepted = True
                for job in [job for job in running if job.has_ended()]:
                    running.remove(job)
                    code, again = _outcome(job)
                    if again and job.attempt < self.submissions:
                        job.submitted.cancel(check=False)  # where the queue would start it again by itself
                        waiting.insert(0, (job.task, job.attempt + 1))
                    else:
                        yield job.task, code
                time.sleep(POLL)
        finally:
            _stop(running)

    def _submit(self, task: Task, attempt: int) -> Job:
        """Submits an attempt at a task to Slurm; raises ComponentError with the queue's refusal."""
        try:
            import submitit
        except ImportError as error:
            raise ComponentError(f"launcher slurm: {one_line(error)}; pip install 'ganlab[slurm]'") from None
        log = Path.cwd() / task.log
        folder = log.parent / ".slurm"
        stop = folder / f"{uuid.uuid4().hex}.stop"
        environment = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        named = {"partition": self.partition, "account": self.account, "qos": self.qos, "constraint": self.constraint}
        options: dict[str, Any] = {f"slurm_{name}": value for name, value in named.items() if value is not None}
        if self.memory_gb is not None:
            options["mem_gb"] = self.memory_gb
        if self.setup:
            options[f"{self.cluster}_setup"] = list(self.setup)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            executor = submitit.AutoExecutor(folder, cluster=self.cluster)
            executor.update_parameters(
                name=f"ganlab-{task.name.replace('/', '-')}",
                timeout_min=self.minutes,
                cpus_per_task=self.threads,
                gpus_per_node=self.gpus,
                nodes=1,
                tasks_per_node=1,
                stderr_to_stdout=True,
                **options,
            )
            with contextlib.redirect_stderr(io.StringIO()):  # to which submitit repeats what sbatch says
                job = executor.submit(run_job, task.command, str(log), os.getcwd(), environment, str(stop))
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            raise ComponentError(f"launcher slurm: the job is not accepted: {one_line(error)}") from None
        return Job(task, attempt, job, stop)


def _outcome(job: Job) -> tuple[int, bool]:
    """The exit code of a job of the queue that has ended, and whether it is to be submitted again."""
    from submitit.core.utils import UncompletedJobError

    try:
        code = int(job.submitted.result())
    except UncompletedJobError as error:
        state = job.settled_state()
        if state in LOST:
            return INTERRUPTED, True
        _note(job.task, f"the job {job.submitted.job_id} ended without a result ({state or 'unknown'}): {_last(error)}")
        return 1, False
    return code, code == INTERRUPTED and job.settled_state() != "CANCELLED"


def _last(error: Exception) -> str:
    """The last line of a job's error, which has its traceback or its output."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    said = [line for line in lines if not line.startswith(("You can check full logs", "or at paths", "- /"))]
    return one_line(said[-1] if said else error)


def _note(task: Task, text: str) -> None:
    """Adds a line to the log of a job's task."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("a", encoding="utf-8") as log:
        log.write(" ".join(text.split()) + "\n")


def _stop(running: Sequence[Job]) -> None:
    """Asks the jobs of the queue to save, cancels those that have not begun, and waits for all."""
    for job in running:
        job.stop.touch()
        if job.state() in ("PENDING", "REQUEUED"):
            job.submitted.cancel(check=False)
    while not all(job.has_ended() for job in running):
        time.sleep(POLL)
    for job in running:
        job.stop.unlink(missing_ok=True)


@hookimpl
def register_launchers(register: Register[Launcher]) -> None:
    register("slurm", Slurm)
