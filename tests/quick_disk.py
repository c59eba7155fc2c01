"""Files are not flushed to the disk, which takes a third of a short run's time, for the tests and what they fork.

No test crashes the machine, and a process that is killed loses nothing of what it has written. That files are flushed,
in which order, and what happens when that fails is tested by counting calls of `os.fsync`, and by others in its place.
"""

from __future__ import annotations

import os


def check_descriptor(file: int) -> None:
    """In the place of `os.fsync`: raises OSError for what is no open file."""
    os.fstat(file)


os.fsync = check_descriptor
