"""The TensorBoard tracker: event files in the run folder, so that `tensorboard --logdir runs` shows all runs together.

Decisions:
- Events are written immediately, in TensorBoard's format but not by its writer: that buffers up to two minutes in
  memory, which a kill loses, and its thread dies with a traceback if the disk is full.
- A resumed run writes another file, which tells readers to discard the steps from its checkpoint on (`purge_step`). The
  records of that step are written again, since a kill may have prevented it the first time.
- Readers sort the files by name, which starts with a timestamp in seconds. A new file's timestamp is always later than
  the others', whatever the clock.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import define, frozen
from PIL import Image

from ganlab import ComponentError, Register, TrackerConfig, hookimpl, numbers_of, one_line

if TYPE_CHECKING:
    from ganlab import RunFolder

PREFIX = "events.out.tfevents."
"""Prefix of TensorBoard's event files."""


def event_file(folder: Path) -> Path:
    """The path of a new TensorBoard event file, which readers read last."""
    earlier = [file.name.removeprefix(PREFIX).split(".")[0] for file in folder.glob(f"{PREFIX}*")]
    latest = max((int(second) for second in earlier if second.isdigit()), default=0)
    return folder / f"{PREFIX}{max(int(time.time()), latest + 1):010d}.ganlab"


@define
class Events:
    """A `Tracker` that writes scalars, sample grids and texts to a TensorBoard event file."""

    path: Path

    def log(self, record: Mapping[str, Any]) -> None:
        self.write(record["step"], self.summaries(record))

    def samples(self, step: int, path: Path) -> None:
        from torch.utils.tensorboard import summary

        with Image.open(path) as grid:
            self.write(step, [summary.image("samples", np.asarray(grid.convert("RGB")), dataformats="HWC")])

    def close(self) -> None:
        """Nothing to do: events are written at once."""

    def begin(self, run: RunFolder, first: int) -> None:
        """Writes the first TensorBoard events: the experiment, and a resumed run's records from step `first` on."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from torch.utils.tensorboard import summary

        self.path.parent.mkdir(exist_ok=True)
        start = run.resumed_from or 0
        self.append(file_version="brain.Event:2")
        if run.resumed_from is not None:
            self.append(step=start, session_log=SessionLog(status=SessionLog.START))
        toml = run.experiment_file.read_text(encoding="utf-8")
        self.write(start, [summary.text("experiment", "".join(f"    {line}\n" for line in toml.splitlines()))])
        for record in [*run.ticks(), *run.scores()]:
            if record["step"] >= first:
                self.log(record)
        for step, grid in run.sample_grids().items():
            if step >= first:
                self.samples(step, grid)

    def summaries(self, record: Mapping[str, Any]) -> list[Any]:
        from torch.utils.tensorboard import summary

        made = [summary.scalar(name, value) for name, value in numbers_of(record).items()]
        return [*made, summary.text("alarms", "; ".join(record["alarms"]))] if "alarms" in record else made

    def write(self, step: int, summaries: list[Any]) -> None:
        """Writes one event with all summaries."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.append(step=step, summary=Summary(value=[value for each in summaries for value in each.value]))

    def append(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        stream = io.BytesIO()
        RecordWriter(stream).write(Event(wall_time=time.time(), **event).SerializeToString())
        with self.path.open("ab") as file:
            file.write(stream.getvalue())


@frozen
class TensorBoard:
    """TensorBoard event files in the run folder's `tensorboard/`. Needs `ganlab[tensorboard]`.

    Logs values of ticks (`train/…`) and scores (`score/…`) as scalars, sample grids as images, the experiment and
    alarms as texts.
    """

    def prepare(self) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            cause = one_line(error, limit=100)
            raise ComponentError(f"it needs another package ({cause}): pip install 'ganlab[tensorboard]'") from error

    def build(self, run: RunFolder) -> Events:
        self.prepare()
        folder = run.path / "tensorboard"
        is_late = not any(folder.glob(f"{PREFIX}*"))  # it was added on resume, so no earlier file has the records
        events = Events(event_file(folder))
        events.begin(run, 0 if is_late else run.resumed_from or 0)
        return events


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("tensorboard", TensorBoard)
