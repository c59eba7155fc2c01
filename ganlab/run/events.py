"""`EventDispatcher`: calls plugins' hooks and the experiment's trackers when a run starts, ticks, saves or ends.

Decisions:
- They cannot end a run. One that raises is named, in the output and in run.json (`plugin_failures`), and not called
  again; the training continues.
- They cannot change a run: the global random states and the current folder are restored after each call, and records
  are passed as copies.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

from ganlab.plugin.component import Component
from ganlab.plugin.failures import CatchPluginErrors, PluginFailure, describe_error
from ganlab.plugin.loader import Plugins
from ganlab.protocols import Tracker, TrackerConfig
from ganlab.run.run_folder import RunFolder
from ganlab.utils.errors import CannotWrite, ComponentError, UserError
from ganlab.utils.rng import preserve_random_state
from ganlab.viz.progress import ProgressView


@define
class EventDispatcher:
    """Dispatches a run's events to hooks and trackers; only in the process that writes the run folder."""

    plugins: Plugins
    run: RunFolder
    view: ProgressView
    _trackers: list[tuple[Component, Tracker]] = field(factory=list, init=False)

    def started(self, trackers: tuple[TrackerConfig, ...]) -> None:
        """Event of a run that starts: builds the trackers and calls `run_started`; raises UserError where one fails."""
        if not self.run.writes:
            return
        with preserve_random_state():
            for index, config in enumerate(trackers):
                component = self.plugins.registry.component_of("tracker", config)
                with CatchPluginErrors() as guard:
                    self._trackers.append((component, config.build(self.run)))
                if isinstance(guard.error, ComponentError):
                    raise UserError(f"tracker[{index}]: {guard.error}")
                if guard.error is not None:
                    origin = component.origin
                    why = f"tracker {component.name!r}, build: {describe_error(guard.error, origin)}"
                    failure = PluginFailure(origin, why)
                    raise UserError(f"tracker[{index}]: {failure}") from guard.error
        self._call_hooks("run_started")

    def tick(self, record: dict[str, Any]) -> None:
        """Event of a log record: trackers' `log`, hook `tick_finished`."""
        self._call_trackers("log", copy.deepcopy(record))
        self._call_hooks("tick_finished", record=copy.deepcopy(record))

    def scored(self, record: dict[str, Any]) -> None:
        """Event of a score's record: trackers' `log`, hook `evaluation_finished`."""
        self._call_trackers("log", copy.deepcopy(record))
        self._call_hooks("evaluation_finished", record=copy.deepcopy(record))

    def sampled(self, step: int, path: Path) -> None:
        """Event of a sample grid that was written: trackers' `samples`."""
        self._call_trackers("samples", step, path)

    def saved(self, path: Path) -> None:
        """Event of a checkpoint that was written: hook `checkpoint_saved`."""
        self._call_hooks("checkpoint_saved", path=path)

    def finished(self, error: BaseException | None) -> None:
        """Event of a run that ends, with what ended it early: trackers' `close`, hook `run_finished`."""
        self._call_trackers("close")
        self._call_hooks("run_finished", error=error)

    def failed(self, failure: PluginFailure, consequence: str) -> None:
        """Event that failed: reports the plugin that raised at it, in the progress view and in run.json."""
        if not self.run.writes:
            return
        self.view.line(f"{failure}; {consequence}")
        # If the disk is full, the run will fail at a file that it cannot do without.
        with contextlib.suppress(CannotWrite):
            self.run.write_info(plugin_failures=[*self.run.info.get("plugin_failures", []), str(failure)])

    def _call_hooks(self, hook: str, **arguments: Any) -> None:
        if not self.run.writes:
            return
        with preserve_random_state(), _current_folder_restored():
            failures = self.plugins.call_hook(hook, run=self.run, **arguments)
        for failure in failures:
            self.failed(failure, "it is not called again")

    def _call_trackers(self, method: str, *arguments: Any) -> None:
        for component, tracker in list(self._trackers):
            with preserve_random_state(), _current_folder_restored(), CatchPluginErrors() as guard:
                getattr(tracker, method)(*arguments)
            if guard.error is not None:
                self._trackers.remove((component, tracker))
                origin = component.origin
                why = f"tracker {component.name!r}, {method}: {describe_error(guard.error, origin)}"
                self.failed(PluginFailure(origin, why), "it is not called again")


@contextlib.contextmanager
def _current_folder_restored() -> Iterator[None]:
    """Restores the current folder at the end."""
    try:
        before = os.getcwd()
    except FileNotFoundError:  # it has been removed
        before = None
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)
