"""Standard output that never raises: not for a closed terminal, a broken pipe or a character without an encoding.

A run that trains for days must not end because the terminal that it was started from was closed.
"""

from __future__ import annotations

import codecs
import io
import os
from typing import TextIO


def fail_safe_stream(stream: TextIO) -> TextIO:
    """Wraps stdout or stderr: after a failed write it discards output; characters that it cannot encode become "?".

    Bytes of a file name that are not UTF-8 are written as they are, so that a terminal shows what `ls` does.
    """
    if not isinstance(stream, io.TextIOWrapper):  # None, or a replacement by a test
        return stream
    return _FailSafeStream(
        stream.detach(), encoding=stream.encoding, errors=_ON_ERROR, line_buffering=stream.line_buffering
    )


def _as_bytes(error: UnicodeError) -> tuple[bytes | str, int]:
    """Standard output's replacement of the first character that it cannot encode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    return bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else "?", error.start + 1


_ON_ERROR = "ganlab.file_names"
codecs.register_error(_ON_ERROR, _as_bytes)


class _FailSafeStream(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._discard_output()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._discard_output()

    def _discard_output(self) -> None:
        # What is still buffered goes to /dev/null, also when the process exits.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self.fileno())
        os.close(devnull)
