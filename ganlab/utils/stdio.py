"""Output that never ends a run: a terminal that is closed, a pipe nobody reads, an encoding without the character.

A run that trains for days must not die because the window that it was started from is gone.
"""

from __future__ import annotations

import io
import os
from typing import TextIO


def fail_safe_stream(stream: TextIO) -> TextIO:
    """The same output, silent from where it cannot be written to, with "?" for what its encoding lacks."""
    if not isinstance(stream, io.TextIOWrapper):  # none at all, or a test's own
        return stream
    return _Lasting(stream.detach(), encoding=stream.encoding, errors="replace", line_buffering=stream.line_buffering)


class _Lasting(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        # What is still buffered goes nowhere, at the end of the process too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
