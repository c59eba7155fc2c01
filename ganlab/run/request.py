"""`RunRequest`: the arguments of `ganlab run`, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen


@frozen
class RunRequest:
    """The request of `ganlab run`: an experiment file, overrides, where to write, and whether to resume.

    `anyway` resumes a run even where it will not be repeated exactly. `blocked` are plugins that are not loaded.
    """

    experiment: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    resume: bool = False
    anyway: bool = False
    device: str = "auto"
    plugin_files: tuple[Path, ...] = ()
    blocked: tuple[str, ...] = ()
