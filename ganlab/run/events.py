"""Those who are told of a run's events: hooks of plugins, and the trackers that the experiment names.

Decisions:
- They look on. One that raises is named, in what is printed and in run.json (`plugin_failures`), and told of nothing
  more; the training goes on.
- What they draw from the global random generators is put back, they are given copies of records, and another current
  folder is left again: a run that is watched is the same as one that is not.
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
from ganlab.plugin.failures import Failure, Guard, cause
from ganlab.plugin.loader import Plugins
from ganlab.protocols import Tracker, TrackerConfig
from ganlab.run.run_folder import RunFolder
from ganlab.utils.errors import CannotWrite, ComponentError, UserError
from ganlab.utils.rng import preserve_random_state
from ganlab.viz.progress import View


@define
class EventDispatcher:
    """Tells plugins and trackers of events. In a process that does not write nobody is told."""

    plugins: Plugins
    run: RunFolder
    view: View
    _trackers: list[tuple[Component, Tracker]] = field(factory=list, init=False)

    def started(self, trackers: tuple[TrackerConfig, ...]) -> None:
        """Opens the trackers, before anything is trained that they might miss; raises UserError where one cannot be."""
        if not self.run.writes:
            return
        with preserve_random_state():
            for index, config in enumerate(trackers):
                component = self.plugins.registry.component_of("tracker", config)
                with Guard() as guard:
                    self._trackers.append((component, config.build(self.run)))
                if isinstance(guard.error, ComponentError):
                    raise UserError(f"tracker[{index}]: {guard.error}")
                if guard.error is not None:
                    origin = component.origin
                    failure = Failure(origin, f"tracker {component.name!r}, build: {cause(guard.error, origin)}")
                    raise UserError(f"tracker[{index}]: {failure}") from guard.error
        self._tell("run_started")

    def tick(self, record: dict[str, Any]) -> None:
        self._tell_trackers("log", copy.deepcopy(record))
        self._tell("tick_finished", record=copy.deepcopy(record))

    def scored(self, record: dict[str, Any]) -> None:
        self._tell_trackers("log", copy.deepcopy(record))
        self._tell("evaluation_finished", record=copy.deepcopy(record))

    def sampled(self, step: int, path: Path) -> None:
        self._tell_trackers("samples", step, path)

    def saved(self, path: Path) -> None:
        self._tell("checkpoint_saved", path=path)

    def finished(self, error: BaseException | None) -> None:
        self._tell_trackers("close")
        self._tell("run_finished", error=error)

    def failed(self, failure: Failure, what: str) -> None:
        """Names a plugin that raised, and what follows from it."""
        if not self.run.writes:
            return
        self.view.line(f"{failure}; {what}")
        # A disk without room for this note will be told of by what the run cannot do without.
        with contextlib.suppress(CannotWrite):
            self.run.write_info(plugin_failures=[*self.run.info.get("plugin_failures", []), str(failure)])

    def _tell(self, hook: str, **what: Any) -> None:
        if not self.run.writes:
            return
        with preserve_random_state(), _here():
            failures = self.plugins.tell(hook, run=self.run, **what)
        for failure in failures:
            self.failed(failure, "it is told of nothing more")

    def _tell_trackers(self, method: str, *what: Any) -> None:
        for component, tracker in list(self._trackers):
            with preserve_random_state(), _here(), Guard() as guard:
                getattr(tracker, method)(*what)
            if guard.error is not None:
                self._trackers.remove((component, tracker))
                origin = component.origin
                why = f"tracker {component.name!r}, {method}: {cause(guard.error, origin)}"
                self.failed(Failure(origin, why), "it is told of nothing more")


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """The current folder after the body is what it was before."""
    try:
        before = os.getcwd()
    except FileNotFoundError:  # it has been removed
        before = None
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)
