"""How a command prints the error that ends it; under torchrun, so that it is not lost among torchrun's own lines.

When a process fails, torchrun prints a traceback of its own and a table of the processes that failed. Nothing that the
process does prevents this, short of the exit code 0. So the error is also left in the file from which torchrun takes
the table's last line, and only the first process prints it itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from rich.console import Console


def report_error(text: str, stderr: Console) -> None:
    """Prints the error that ends a command, one line or several; under torchrun once for all processes."""
    left = _leave_for_torchrun(text)
    if os.environ.get("RANK", "0") == "0" or not left:
        stderr.print(text, markup=False, highlight=False, soft_wrap=True)


def _leave_for_torchrun(text: str) -> bool:
    """Writes an error into the file that torchrun reads of a failed process; returns whether there is such a file."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        return False
    # The format of torch.distributed.elastic.multiprocessing.errors, which is written here without importing torch.
    more = {"py_callstack": text, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError):
        Path(file).write_text(json.dumps({"message": {"message": text, "extraInfo": more}}), encoding="utf-8")
        return True
    return False
