"""ganlab.plugin.component."""

from __future__ import annotations

import inspect
from pathlib import Path

from attrs import frozen

from ganlab.utils.hashing import file_sha256


@frozen
class Origin:
    """Where a plugin came from. `source` is "bundled", "installed" or "file"."""

    plugin: str
    source: str
    distribution: str
    version: str
    file: Path | None

    def record(self) -> dict[str, str]:
        """What run.json keeps of it."""
        note = {"plugin": self.plugin, "source": self.source}
        if self.distribution:
            note |= {"distribution": self.distribution, "version": self.version}
        if self.file is not None:
            note |= {"file": str(self.file), "sha256": file_sha256(self.file)}
        return note

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.plugin} ({package or self.file})"

    @property
    def located(self) -> str:
        """The same with the file, for what an author has to mend there."""
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.plugin} ({', '.join(str(part) for part in (package, self.file) if part)})"


@frozen
class Component:
    """A registered class."""

    kind: str
    name: str
    cls: type
    origin: Origin

    @property
    def location(self) -> str:
        """The file and line of the class."""
        try:
            return f"{inspect.getsourcefile(self.cls)}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):  # a class made at run time has no source
            return str(self.origin.file)
