"""Steps captured once and replayed: on CUDA a step is then one launch instead of hundreds.

Decisions:
- There is one graph for each kind of step, that is, for each set of turns and of penalties that are due; all share one
  pool of memory, because what lasts (weights, moments, sums, buffers) lies outside of it.
- The first steps of a kind are taken eagerly, as steps of the training like any other. They warm up what is made on
  first use, and two of them are watched: what a graph could not hold is found before anything is captured.
- Where a plugin does not keep the rules, or the capture fails, all steps are eager: slower, and right all the same.
- Batches of real images are copied to where the graph reads them. Everything else that a graph reads lies where it lay:
  sums are zeroed, never made anew, and a state is restored before the first capture.
- How work is recorded is a `Recorder`; `CudaGraphs` is the one that training uses. So the rest runs on any device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from attrs import define, field

from ganlab.data.batch import Batch
from ganlab.training.graph_check import Place, Watch, unfit
from ganlab.training.meters import Meters
from ganlab.training.turns import Turns
from ganlab.utils.errors import one_line

WARM, WATCHED = 1, 2
"""How many steps of a kind come before its capture: the first makes what is made on first use, two are compared."""

Work = Callable[[], None]


class Recorder(Protocol):
    """Runs work, or records it without running it."""

    def run(self, work: Work) -> None:
        """Runs the work as it will be recorded later."""
        ...

    def record(self, work: Work) -> Work:
        """Records the work, which does nothing yet, and gives what does it; raises RuntimeError where that fails."""
        ...


class CudaGraphs:
    """Records work as CUDA graphs in one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> None:
        # On the stream of the capture: autograd remembers on which stream it first met a parameter.
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        number = torch.cuda.current_device() if self.device.index is None else self.device.index
        generator = torch.cuda.default_generators[number]
        kept = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError:
            # A capture that broke off leaves the generator waiting for its end.
            generator.graphsafe_set_state(kept)
            raise
        return graph.replay


class Rehearsal:
    """For a device without graphs: what would be captured is run as it is, so that all but the capture is done."""

    def run(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        return work


@define
class CapturedTurns:
    """The turns of a step, replayed where they have been captured; `refusal` says why they will not be.

    `named(file)` names the plugin that a file belongs to, or is empty. `unfit` is a reason that is known beforehand.
    """

    turns: Turns
    meters: Meters
    recorder: Recorder
    device: torch.device
    named: Callable[[str], str]
    unfit: str | None = None
    refusal: str | None = field(default=None, init=False)
    _seen: Counter[Hashable] = field(factory=Counter, init=False)
    _watched: dict[Hashable, Watch] = field(factory=dict, init=False)
    _replays: dict[Hashable, Work] = field(factory=dict, init=False)
    _inputs: list[Batch] = field(factory=list, init=False)

    @property
    def captured(self) -> int:
        """How many kinds of step have been captured."""
        return len(self._replays)

    def __call__(self, real: Sequence[Batch], step: int) -> None:
        kind = self.turns.kind(step)
        seen = self._seen[kind]
        self._seen[kind] += 1
        if kind in self._replays:
            self._replay(kind, real)
        elif self.refusal is not None or self.unfit is not None:
            self.refusal = self.refusal or self.unfit
            self.turns(real, step)
        elif seen < WARM:
            self.recorder.run(lambda: self.turns(real, step))
        elif seen < WARM + WATCHED:
            self._watch(kind, real, step)
        else:
            self._capture(kind, real, step)

    def _watch(self, kind: Hashable, real: Sequence[Batch], step: int) -> None:
        before = self._watched.pop(kind, None)
        with Watch(self.device, before) as watch:
            self.recorder.run(lambda: self.turns(real, step))
        if before is None:
            self._watched[kind] = watch
        elif fault := unfit(before, watch):
            self._refuse(f"{self._where(fault.place)}: {fault.what}")

    def _where(self, place: Place) -> str:
        if not place.file:
            return "the step"
        owner = next((name for file in (place.file, *place.callers) if (name := self.named(file))), "")
        at = f"{place.file}, line {place.line}"
        return f"{owner}, {at}" if owner else at

    def _capture(self, kind: Hashable, real: Sequence[Batch], step: int) -> None:
        if not self._inputs:
            self._inputs = [batch.map(torch.empty_like) for batch in real]
        before = Counter(self.meters.counts)
        try:
            replay = self.recorder.record(lambda: self.turns(self._inputs, step))
        except RuntimeError as error:
            # A driver has many reasons, and none is a reason not to train.
            self.meters.counts = dict(before)
            self._refuse(f"the capture failed: {one_line(error, limit=300)}")
            self.turns(real, step)
            return
        # The sums are added to by each replay; how often is counted here, where no device is asked.
        added = Counter(self.meters.counts) - before
        self.meters.counts = dict(before)

        def replayed() -> None:
            replay()
            for name, count in added.items():
                self.meters.counts[name] += count

        self._replays[kind] = replayed
        self._replay(kind, real)

    def _replay(self, kind: Hashable, real: Sequence[Batch]) -> None:
        for place, batch in zip(self._inputs, real, strict=True):
            torch._foreach_copy_(place.tensors, batch.tensors)
        self._replays[kind]()

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self._watched.clear()
        self._replays.clear()


def rehearse(turns: CapturedTurns, batch: Callable[[int], Batch]) -> str | None:
    """Takes steps of every kind until each would be captured; returns why that cannot be, if it cannot."""
    first: dict[Hashable, int] = {}
    for step in range(1000):
        first.setdefault(turns.turns.kind(step), step)
    for step in first.values():
        for _ in range(WARM + WATCHED + 1):
            turns([batch(number) for number in range(turns.turns.batches)], step)
    return turns.refusal


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimiser on CUDA count its updates on the device, so that a graph of its step can be captured."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    # torch warns once where such an optimiser is used before the capture, as it is for the first steps here.
    vars(optimizer)["_warned_capturable_if_run_uncaptured"] = True
