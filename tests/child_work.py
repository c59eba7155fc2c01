"""What child processes of tests do, as functions of a module that a forked process can import."""

from __future__ import annotations

import pickle
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from children import Command
from ganlab.cli.main import main


def note_peak(command: Command, file: str) -> int:
    """Runs a command, and writes the most memory that this process had, in MiB."""
    code = command()
    Path(file).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
    return code


def sample_unpickled(source: str, target: str) -> int:
    """Draws images of a pickled run."""
    run = pickle.loads(Path(source).read_bytes())  # noqa: S301 - of what the test has pickled
    torch.save(run.sample(4), target)
    return 0


def call_main(arguments: list[str], before: Callable[[], object] | None = None) -> int:
    """The entry point of the command, which wraps standard output and handles signals; `before` it, a function."""
    if before is not None:
        before()
    sys.argv = ["ganlab", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
