"""A registered component, and the origin of the plugin that registered it: its distribution, version and file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ganlab.plugin.local_imports import local_imports
from ganlab.utils.hashing import file_sha256


@frozen
class Origin:
    """The origin of a plugin: its name, distribution, version and file. `source`: "bundled", "installed" or "file"."""

    plugin: str
    source: str
    distribution: str
    version: str
    file: Path | None

    def record(self) -> dict[str, str]:
        """Returns the plugin's entry in run.json."""
        note = {"plugin": self.plugin, "source": self.source}
        if self.distribution:
            note |= {"distribution": self.distribution, "version": self.version}
        if self.file is not None:
            note |= {"file": str(self.file), "sha256": file_sha256(self.file)}
        return note

    def imports(self) -> dict[str, dict[str, str]]:
        """Returns the local files that the plugin imports, as run.json records them: by module, each with its hash."""
        if self.file is None or self.source == "bundled":
            return {}
        found = sorted(local_imports(self.file).items())
        return {name: {"file": str(file), "sha256": file_sha256(file)} for name, file in found}

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.plugin} ({package or self.file})"

    @property
    def located(self) -> str:
        """The origin with its file, for errors."""
        package = f"{self.distribution} {self.version}".strip()
        return f"{self.plugin} ({', '.join(str(part) for part in (package, self.file) if part)})"


@frozen
class Component:
    """A registered component: its class, kind and name, and the origin of the plugin that registered it."""

    kind: str
    name: str
    cls: type
    origin: Origin

    @property
    def location(self) -> str:
        """The class's file and line."""
        try:
            return f"{inspect.getsourcefile(self.cls)}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):  # a class created at run time has no source
            return str(self.origin.file)


@frozen
class MissingComponent:
    """Stands for a component whose plugin is missing, in a run that is read by a command that does not need it."""

    kind: str
    name: str
    options: Mapping[str, Any]
