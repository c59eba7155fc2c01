"""`OpenedRun`: a run that is ready to train, as `open_run` returns it and as the callbacks receive it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from ganlab.config.schema import Experiment
from ganlab.evaluation.evaluator import Evaluator
from ganlab.plugin.loader import Plugins
from ganlab.run.events import EventDispatcher
from ganlab.run.run_folder import RunFolder
from ganlab.training.loop import Training
from ganlab.utils.signals import StopRequest
from ganlab.viz.progress import ProgressView


@frozen
class OpenedRun:
    """An opened run, ready to train: its experiment, all that was built for it, and its locked folder.

    `earlier` is run.json as the run left it that is resumed, empty for a new run. `start` is the step to train from.
    `began` is when the command started, by the monotonic clock.
    """

    experiment: Experiment
    plugins: Plugins
    training: Training
    evaluator: Evaluator
    folder: RunFolder
    earlier: Mapping[str, Any]
    start: int
    view: ProgressView
    stop: StopRequest
    events: EventDispatcher
    began: float

    @property
    def seconds(self) -> float:
        """How long the opened run has taken so far, with its earlier sessions."""
        return float(self.earlier.get("seconds", 0.0)) + time.monotonic() - self.began
