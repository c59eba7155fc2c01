"""What several tests share: where the repository is, plugins in files of their own, waiting."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

REPOSITORY = Path(__file__).parent.parent

WEDGE = """
from attrs import frozen
from torch import abs
from ganlab import hookimpl

@frozen
class Wedge:
    margin: float = 1.0
    def discriminator(self, real, fake): return abs(self.margin - real).mean() + abs(self.margin + fake).mean()
    def generator(self, real, fake): return -fake.mean()

@hookimpl
def register_losses(register): register("wedge", Wedge)
"""


HERE = """
import contextlib
from attrs import frozen
from ganlab import cli, hookimpl

@frozen
class Here:
    def launch(self, tasks, jobs):
        for task in tasks:
            task.log.parent.mkdir(parents=True, exist_ok=True)
            with task.log.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                code = cli.call(list(task.command[3:]))
            yield task, code

@hookimpl
def register_launchers(register): register("here", Here)
"""
"""A launcher that runs the tasks of a sweep in this process: processes of their own would start torch many times."""


def computed_once(file: Path, compute: Callable[[], Any]) -> Any:
    """A JSON value that the tests' processes share by a file; the first that needs it computes it."""
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_text(json.dumps(compute()))
    return json.loads(file.read_text())


def with_tests_modules() -> dict[str, str]:
    """The environment of a process that finds the tests' own modules, such as `pytest -p quick_timing`."""
    folders = [str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Waits for a condition, and fails where it does not come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"in vain, {seconds} seconds long"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process of this machine (Linux) still runs; one that only waits to be waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
