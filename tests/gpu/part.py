"""A part of the GPU script while it runs: where, for how long, and what it has found, in a file after each finding.

`python -m gpu.part MODULE FILE SETTINGS` calls `run` of the module; SETTINGS are those of `Part` as JSON.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Part:
    """What a part of the GPU script is given, and what it reports.

    device: torch's name of the device. rehearsed: there is no GPU, so be small and say what is left out. seconds: the
    time limit.
    """

    file: Path
    device: str
    rehearsed: bool
    seconds: float
    began: float = dataclasses.field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    pictures: list[str] = dataclasses.field(default_factory=list)

    @property
    def folder(self) -> Path:
        """A folder of its own."""
        folder = self.file.with_suffix("")
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def seconds_left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def row(self, **values: Any) -> None:
        """Adds a row to the part's table."""
        self._add(self.rows, values)

    def fault(self, text: str) -> None:
        """Something is not as it must be: the part has failed, and may go on."""
        self._add(self.faults, text)

    def leave_out(self, text: str) -> None:
        """Something could not be done here."""
        self._add(self.left_out, text)

    def note(self, text: str) -> None:
        self._add(self.notes, text)

    def picture(self, path: Path) -> None:
        """A PNG file to be shown; it may be written later."""
        self._add(self.pictures, str(path))

    def _add(self, findings: list[Any], value: Any) -> None:
        findings.append(value)
        self.write()

    def write(self) -> None:
        """Writes all findings, whole or not at all."""
        names = ("rows", "faults", "left_out", "notes", "pictures")
        temporary = self.file.with_suffix(".part")
        temporary.write_text(json.dumps({name: getattr(self, name) for name in names}))
        temporary.replace(self.file)


def text_of(error: BaseException) -> str:
    """An exception as one line: its type, its text, and the innermost line of code that it passed."""
    at = traceback.extract_tb(error.__traceback__)
    place = f" ({at[-1].filename}:{at[-1].lineno})" if at else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}{place}"


def main(module: str, file: str, settings: str) -> None:
    part = Part(file=Path(file), **json.loads(settings))
    part.write()
    if part.device == "pretend":
        from ganlab.testing import pretend

        pretend.install()
    importlib.import_module(module).run(part)


if __name__ == "__main__":
    main(*sys.argv[1:])
