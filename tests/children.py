"""Processes of their own for tests that kill, starve or race them, forked from one that has imported ganlab already.

So a process costs a fraction of a second and not three. What a child is to do first is a function of a module in
`tests/`, since it is handed over by its name.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch

import forked_python
import ganlab_plugins
import quick_plots
from ganlab.viz import plots
from support import with_tests_modules

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("ganlab.cli.main", "ganlab.run.train", "ganlab.viz.plots", "matplotlib.figure", "torchvision"),
        "sklearn.datasets",
        *(module.name for module in pkgutil.walk_packages(ganlab_plugins.__path__, "ganlab_plugins.")),
        "forked_from",
    ]
)


class Child:
    """A process that does `work`; what it prints lands in a file."""

    def __init__(self, work: Callable[[], object], log: Path) -> None:
        self.log = log
        # The process that is forked from finds the tests' modules by PYTHONPATH alone, and passes over what is missing.
        with mock.patch.dict(os.environ, with_tests_modules()):
            forkserver.ensure_running()
        self.process = _context.Process(target=_child, args=(work, dict(os.environ), os.getcwd(), str(log)))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def ended(self, seconds: float = 120) -> int:
        """Waits; the exit code, or the signal that ended it as a negative number."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"did not end in {seconds} seconds; it said: {self.said}")
        return self.process.exitcode

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def set_environment(variables: dict[str, str]) -> None:
    """For `before` of a command: what only this child's environment has."""
    os.environ.update(variables)


class Command:
    """A ganlab command as the work of a child, after `before` in the same process."""

    def __init__(self, *arguments: object, before: Callable[[], object] | None = None) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.before = before

    def __call__(self) -> int:
        from ganlab.cli import main

        if self.before is not None:
            self.before()
        return main.call(self.arguments)


def serve_commands(folder: Path) -> None:
    """The work of a child that forks commands for `forked_python.executable(folder)`, until this process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    forked_python.Server(folder, parent.sentinel).serve()


def _child(work: Callable[[], object], environment: dict[str, str], folder: str, log: str) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored where the tests were started by nohup
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name, stand_in in quick_plots.STAND_INS.items():
        setattr(plots, name, stand_in)
    torch.set_num_threads(1)  # several children at once would keep waiting for each other's
    code = work()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)
