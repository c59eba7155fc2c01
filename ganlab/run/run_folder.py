"""`RunFolder`: the files of a run, run.json, appending records, and the lock.

Decisions:
- Records are appended and flushed line by line, each with a checksum: a flipped bit would silently change a digit of a
  score. run.json is replaced as a whole.
- A lock keeps a second process out. A folder with links in it is refused: they could lead a third-party run to any of
  the user's files.
- On resume, records and samples of steps after the checkpoint are dropped, since those steps are repeated.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
from attrs import define, field

from ganlab.run.records import read_records, record_line, to_json, truncate_to_whole_lines
from ganlab.utils.errors import UserError, did_you_mean, one_line
from ganlab.utils.files import raise_cannot_write, remove_path, write_whole

SWEEP_FILE = "sweep.json"
"""The file of a sweep's folder, whose run folders are VARIANT/seed-N in it."""

HALF_WRITTEN = re.compile(
    r"\.(step-\d+-\d+|room-\d+|(run\.json|experiment\.toml|\w+\.(jsonl|csv)|[\w-]+\.(png|py))\.\w{8})"
)
"""Temporary names of files in a run folder while they are written."""


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@define
class RunFolder:
    """A run folder, as hooks and trackers get it, with its lock: `path` is where its files are, `info` is run.json.

    Of several processes only the first `writes`; in the others the methods that write do nothing.
    """

    path: Path
    info: dict[str, Any] = field(factory=dict)
    writes: bool = True
    _lock: filelock.FileLock | None = None

    @property
    def experiment_file(self) -> Path:
        return self.path / "experiment.toml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def plugins(self) -> Path:
        return self.path / "plugins"

    @property
    def has_plots(self) -> bool:
        """Whether the run folder has the plots of a finished run, of which this is the last to be drawn."""
        return (self.plots / "metrics.png").is_file()

    def sample_file(self, step: int) -> Path:
        return self.samples / f"step-{step:08d}.png"

    def sample_grids(self) -> dict[int, Path]:
        """A run folder's sample grids by step, in order; other files beside them are left out."""
        steps = ((path.stem.removeprefix("step-"), path) for path in self.samples.glob("step-*.png"))
        return dict(sorted((int(step), path) for step, path in steps if step.isdecimal()))

    @property
    def resumed_from(self) -> int | None:
        """Of a run folder: the step at which its run was resumed; later records were dropped. None for a new run."""
        resumed = self.info.get("resumed")
        return int(resumed[-1]["step"]) if resumed else None

    def ticks(self) -> list[dict[str, Any]]:
        """A run folder's log records, from log.jsonl; NaN and infinity are text that float() reads."""
        return read_records(self.path / "log.jsonl")

    def scores(self) -> list[dict[str, Any]]:
        """Run folder: its scores, without those that `ganlab eval` added."""
        return [record for record in read_records(self.path / "metrics.jsonl") if not record.get("eval")]

    def lock(self) -> None:
        """Locks the run folder until `unlock`; raises UserError where another process has it, or where it has links.

        Files that a killed process left half written are removed.
        """
        if not self.writes:
            return
        for folder in (self.checkpoints, self.plots, self.samples, self.plugins):
            if folder.exists() and not folder.is_dir():
                raise UserError(f"{folder}: is not a folder; remove it")
        if links := [item for item in self._items() if item.is_symlink()]:
            raise UserError(f"{links[0]}: is a link; a run's files lie in its own folder")
        self._lock = filelock.FileLock(str(self.path / ".lock"))
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(f"{self.path}: another process is writing to this run") from None
        for item in self._items():
            if HALF_WRITTEN.fullmatch(item.name):
                remove_path(item)

    def _items(self) -> list[Path]:
        """All files and folders of a run folder, down to those in its own folders, and all of kept plugins."""
        folders = (self.path, self.checkpoints, self.plots, self.samples)
        return [*(item for folder in folders if folder.is_dir() for item in folder.iterdir()), *self.plugins.rglob("*")]

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def write_info(self, **changes: Any) -> None:
        """Updates run.json with these changes."""
        self.info |= changes
        if not self.writes:
            return
        write_whole(self.path / "run.json", json.dumps(to_json(self.info), indent=2) + "\n")

    def append(self, file: str, *records: Mapping[str, Any]) -> None:
        """Run folder: appends records to one of its files, all in one write."""
        if not self.writes:
            return
        lines, path = "".join(map(record_line, records)).encode(), self.path / file
        with raise_cannot_write(path, len(lines)), path.open("ab+") as stream:
            truncate_to_whole_lines(stream)
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())

    def forget_after(self, step: int) -> None:
        """Makes the run folder forget records and sample grids of steps after `step`, and an incomplete last line."""
        if not self.writes:
            return
        for made, grid in self.sample_grids().items():
            if made > step:
                grid.unlink()
        (self.plots / "metrics.png").unlink(missing_ok=True)  # the plots are of an earlier end
        for file in ("log.jsonl", "metrics.jsonl"):
            kept = [record for record in read_records(self.path / file) if record["step"] <= step]
            write_whole(self.path / file, "".join(map(record_line, kept)))


def variant_of(path: Path, info: Mapping[str, Any]) -> str:
    """The variant that a run folder is of: that of its sweep, or the experiment's name. `info` is run.json."""
    folder = path.resolve()
    return folder.parent.name if (folder.parent.parent / SWEEP_FILE).is_file() else str(info["name"])


def is_unstarted(path: Path) -> bool:
    """Whether a run folder is unstarted: empty, or with what a run left that was killed early."""
    names = {item.name for item in path.iterdir() if not HALF_WRITTEN.fullmatch(item.name)}
    if not names:
        return True
    saved = path / "checkpoints"
    return ".lock" in names <= {".lock", "experiment.toml", saved.name, "plugins"} and not any(saved.glob("step-*"))


NEEDED: dict[str, type] = {"status": str, "name": str, "seed": int, "images": dict, "total_steps": int, "device": str}
"""The keys that every run.json holds from the start, and their types."""


def read_info(path: Path) -> dict[str, Any]:
    """Reads run.json of a run folder; raises UserError where the folder is not a run, or run.json is damaged."""
    file = path / "run.json"
    if not file.is_file():
        siblings = {p.name for p in path.parent.iterdir()} - {path.name} if path.parent.is_dir() else set()
        raise UserError(f"{path}: not a run folder (it has no run.json){did_you_mean(path.name, siblings)}")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged: {one_line(error)}") from None
    held = info if isinstance(info, dict) else {}
    for key, kind in NEEDED.items():
        if type(held.get(key)) is not kind:
            raise UserError(f"{file}: damaged: it holds no {key}")
    return held
