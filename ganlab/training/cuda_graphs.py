"""CUDA graphs: train steps are captured once and replayed, so that a step is one launch instead of hundreds.

Decisions:
- There is one graph for each signature of a step, that is, for each set of updates and due penalties. All share one
  memory pool, because what persists (weights, moments, meters, buffers) lies outside of it.
- The first steps of a signature are eager steps of the training. They warm up what is created on first use, and the
  operations of two of them are traced: what a graph could not hold is found before anything is captured.
- Where a plugin breaks the rules of the step, or the capture fails, all steps are eager: slower, and correct.
- Batches of real images are copied to the tensors that the graph reads. Everything else that a graph reads stays where
  it is: meters are zeroed in place, and a state is restored before the first capture.
- A `Recorder` records the work; training uses `CudaGraphs`. So everything else runs on any device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from attrs import define, field

from ganlab.protocols.batch import Batch
from ganlab.training.graph_check import CodeLine, OperationTrace, find_capture_fault
from ganlab.training.meters import Meters
from ganlab.training.train_step import TrainStep
from ganlab.utils.errors import one_line

WARM, WATCHED = 1, 2
"""How many eager steps of a signature precede its capture: the first warms up, two are traced and compared."""

Work = Callable[[], None]


class Recorder(Protocol):
    """Of CUDA graphs, or of their stand-in without CUDA: records a train step for later replays, or runs it."""

    def run(self, work: Work) -> None:
        """Runs the work as the warm-up of a CUDA graph, under the conditions of a later recording."""
        ...

    def record(self, work: Work) -> Work:
        """Records the work, as a CUDA graph does, without running it; returns its replay, or raises RuntimeError."""
        ...


class CudaGraphs:
    """Records train steps as CUDA graphs, all in one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> None:
        # On the stream of the capture: autograd remembers the stream where it first used a parameter.
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        generator = torch.cuda.default_generators[index]
        state, stream = generator.clone_state(), torch.cuda.current_stream(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError:
            # A failed capture leaves the random generator in capture mode, and its stream the current one.
            generator.graphsafe_set_state(state)
            torch.cuda.set_stream(stream)
            raise
        return graph.replay


class EagerRecorder:
    """A recorder for devices without CUDA graphs: replays run the train step eagerly, to test all but the capture."""

    def run(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        return work


@define
class CapturedTrainStep:
    """A train step that is captured and replayed as CUDA graphs, one for each signature of a step.

    `plugin_of(file)` returns the plugin that a file belongs to, or "". `eager_reason` is a reason against a capture
    that is known beforehand. `refusal` says why steps are eager, None while they are or may still be captured.
    """

    train_step: TrainStep
    meters: Meters
    recorder: Recorder
    device: torch.device
    plugin_of: Callable[[str], str]
    eager_reason: str | None = None
    refusal: str | None = field(default=None, init=False)
    _eager_steps: Counter[Hashable] = field(factory=Counter, init=False)
    _traces: dict[Hashable, OperationTrace] = field(factory=dict, init=False)
    _replays: dict[Hashable, Work] = field(factory=dict, init=False)
    _inputs: list[Batch] = field(factory=list, init=False)

    @property
    def captured(self) -> int:
        """How many signatures of the train step have been captured as CUDA graphs."""
        return len(self._replays)

    def __call__(self, real: Sequence[Batch], step: int) -> None:
        signature = self.train_step.signature(step)
        seen = self._eager_steps[signature]
        self._eager_steps[signature] += 1
        if signature in self._replays:
            self._replay(signature, real)
        elif self.refusal is not None or self.eager_reason is not None:
            self.refusal = self.refusal or self.eager_reason
            self.train_step(real, step)
        elif seen < WARM:
            self.recorder.run(lambda: self.train_step(real, step))
        elif seen < WARM + WATCHED:
            self._trace(signature, real, step)
        else:
            self._capture(signature, real, step)

    def _trace(self, signature: Hashable, real: Sequence[Batch], step: int) -> None:
        before = self._traces.pop(signature, None)
        with OperationTrace(self.device, before) as trace:
            self.recorder.run(lambda: self.train_step(real, step))
        if before is None:
            self._traces[signature] = trace
        elif fault := find_capture_fault(before, trace):
            self._refuse(f"{self._location(fault.line)}: {fault.what}")

    def _location(self, line: CodeLine) -> str:
        if not line.file:
            return "the step"
        plugin = next((name for file in (line.file, *line.callers) if (name := self.plugin_of(file))), "")
        at = f"{line.file}, line {line.number}"
        return f"{plugin}, {at}" if plugin else at

    def _capture(self, signature: Hashable, real: Sequence[Batch], step: int) -> None:
        if not self._inputs:
            self._inputs = [batch.map(torch.clone) for batch in real]
        before = Counter(self.meters.counts)
        try:
            replay = self.recorder.record(lambda: self.train_step(self._inputs, step))
        except RuntimeError as error:
            # Drivers fail for many reasons, and none is a reason not to train.
            self.meters.counts = dict(before)
            self._refuse(f"the capture failed: {one_line(error, limit=300)}")
            self.train_step(real, step)
            return
        # Each replay adds to the meters' sums; their counts are Python numbers, which are added here.
        added = Counter(self.meters.counts) - before
        self.meters.counts = dict(before)

        def replay_and_count() -> None:
            replay()
            for name, count in added.items():
                self.meters.counts[name] += count

        self._replays[signature] = replay_and_count
        self._replay(signature, real)

    def _replay(self, signature: Hashable, real: Sequence[Batch]) -> None:
        for static, batch in zip(self._inputs, real, strict=True):
            torch._foreach_copy_(static.tensors, batch.tensors)
        self._replays[signature]()

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self._traces.clear()
        self._replays.clear()


def dry_run_capture(captured_step: CapturedTrainStep, batch: Callable[[int], Batch]) -> str | None:
    """A dry run of CUDA graphs: steps of every signature until each could be captured; returns why not, or None."""
    train_step = captured_step.train_step
    first: dict[Hashable, int] = {}
    for step in range(1000):
        first.setdefault(train_step.signature(step), step)
    for step in first.values():
        for _ in range(WARM + WATCHED + 1):
            captured_step([batch(index) for index in range(train_step.batches_per_step)], step)
    return captured_step.refusal
