"""TensorBoard event files in the run folder, so that `tensorboard --logdir runs` shows all runs side by side.

Decisions:
- Records are written here and now, with the package's formats but without its writer: that keeps up to two minutes in
  memory, which a kill loses, and its thread dies with a traceback on a full disk.
- A resumed run writes another file, which tells readers to forget the steps from its checkpoint on (`purge_step`). What
  the records have of that step is written again, so that nothing is missing that a kill kept from here.
- Readers take the files in the order of their names, which begin with a second. A new file's is later than the others',
  whatever the clock says.
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
"""How TensorBoard knows its files."""


def event_file(folder: Path) -> Path:
    """A new file in the folder, which readers take last."""
    earlier = [file.name.removeprefix(PREFIX).split(".")[0] for file in folder.glob(f"{PREFIX}*")]
    latest = max((int(second) for second in earlier if second.isdigit()), default=0)
    return folder / f"{PREFIX}{max(int(time.time()), latest + 1):010d}.ganlab"


@define
class Events:
    """A `Tracker` that writes scalars, grids and texts to an event file."""

    path: Path

    def log(self, record: Mapping[str, Any]) -> None:
        self.write(record["step"], self.summaries(record))

    def samples(self, step: int, path: Path) -> None:
        from torch.utils.tensorboard import summary

        with Image.open(path) as grid:
            self.write(step, [summary.image("samples", np.asarray(grid.convert("RGB")), dataformats="HWC")])

    def close(self) -> None:
        """Each record is in the file already."""

    def begin(self, run: RunFolder) -> None:
        """What is known at the start: the experiment, and what a resumed run's records have of the step it is at."""
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
            if record["step"] == start:
                self.log(record)
        if run.sample_file(start).exists():
            self.samples(start, run.sample_file(start))

    def summaries(self, record: Mapping[str, Any]) -> list[Any]:
        from torch.utils.tensorboard import summary

        made = [summary.scalar(name, value) for name, value in numbers_of(record).items()]
        return [*made, summary.text("alarms", "; ".join(record["alarms"]))] if "alarms" in record else made

    def write(self, step: int, summaries: list[Any]) -> None:
        """One event with all of them."""
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
    """Event files for TensorBoard in the run folder's `tensorboard/`. Needs `ganlab[tensorboard]`.

    Scalars of every number of a tick (`train/…`) and of every score (`score/…`), sample grids as images, the experiment
    and alarms as texts.
    """

    def prepare(self) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            cause = one_line(error, limit=100)
            raise ComponentError(f"it needs another package ({cause}): pip install 'ganlab[tensorboard]'") from error

    def build(self, run: RunFolder) -> Events:
        self.prepare()
        events = Events(event_file(run.path / "tensorboard"))
        events.begin(run)
        return events


@hookimpl
def register_trackers(register: Register[TrackerConfig]) -> None:
    register("tensorboard", TensorBoard)
