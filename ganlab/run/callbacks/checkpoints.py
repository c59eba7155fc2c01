"""The checkpoints callback: saves the training state, and removes checkpoints that are not kept.

Decisions:
- Nothing is saved before it was checked for NaN and infinity.
- The latest `train.checkpoint_keep` checkpoints are kept, and the best one by each metric.
"""

from __future__ import annotations

from attrs import define, field

from ganlab.run.callbacks.base import Callback, broadcast_buffers, is_due
from ganlab.run.callbacks.finite_check import FiniteCheck
from ganlab.run.opened_run import OpenedRun
from ganlab.run.records import best_and_final, read_records
from ganlab.training.checkpoint import list_checkpoints, save_checkpoint
from ganlab.training.state import training_state
from ganlab.utils import distributed
from ganlab.utils.files import remove_path


@define
class CheckpointsCallback(Callback):
    """The checkpoints callback: saves a checkpoint every `train.checkpoint_every` and after the last step."""

    run: OpenedRun
    check_finite: FiniteCheck
    _saved: int = field(default=-1, init=False)

    def started(self, step: int) -> None:
        """Checkpoints callback: notes whether the step to start from is saved, and removes what is not kept."""
        folder = self.run.folder.checkpoints
        # One process looks: what it writes meanwhile would be seen by some processes and not by others.
        self._saved = distributed.broadcast_json(lambda: step if step in list_checkpoints(folder) else -1)
        if self.run.folder.writes:
            self._remove_old()  # a process that was killed may have saved without

    def after_step(self, step: int) -> None:
        """Checkpoints callback: saves a checkpoint where one is due."""
        training = self.run.training
        if step == training.total_steps or is_due(training, self.run.experiment.train.checkpoint_every, step):
            self.save(step)

    def save(self, step: int) -> None:
        """Checkpoints callback: saves one of this step unless there is one; raises Diverged for a state not finite."""
        if self._saved == step:
            return
        run = self.run
        broadcast_buffers(run.training)
        self.check_finite(step)
        state = training_state(run.training, step)
        if run.folder.writes:
            state["progress"] |= {"experiment": run.folder.info["identity"], "records": self._record_counts()}
            path = save_checkpoint(run.folder.checkpoints, step, state)
            self._remove_old()
            run.folder.write_info(seconds=round(run.seconds, 3))  # of a session that is killed, nothing else tells it
            run.events.saved(path)
        self._saved = step

    def _record_counts(self) -> dict[str, int]:
        """The number of records of each file."""
        files = {name: read_records(self.run.folder.path / name) for name in ("log.jsonl", "metrics.jsonl")}
        return {name: sum(not record.get("eval") for record in records) for name, records in files.items()}

    def _remove_old(self) -> None:
        """Checkpoints callback: removes all checkpoints but the latest ones and the best by each metric."""
        folder, keep = self.run.folder, self.run.experiment.train.checkpoint_keep
        saved = list_checkpoints(folder.checkpoints)
        if keep == 0 or len(saved) <= keep:
            return
        scored = [record for record in read_records(folder.path / "metrics.jsonl") if record["step"] in saved]
        best = {entry["best"]["step"] for entry in best_and_final(scored).values() if "best" in entry}
        for step in list(saved)[:-keep]:
            if step not in best:
                remove_path(saved[step])
