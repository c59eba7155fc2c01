"""How a run ended, for run.json and the command line: its status, and the message of a failure.

A message names the plugin, the step and the checkpoint that is kept; for NaN, what caused it.
"""

from __future__ import annotations

from ganlab.plugin.failures import attribute_to_plugin
from ganlab.run import divergence
from ganlab.run.callbacks.finite_check import FiniteCheck
from ganlab.run.opened_run import OpenedRun
from ganlab.training.checkpoint import list_checkpoints
from ganlab.utils.errors import (
    CannotWrite,
    ComponentError,
    Diverged,
    GanlabError,
    Interrupted,
    OutOfMemory,
    PluginFailed,
    SamplesNotFinite,
    UserError,
    one_line,
)
from ganlab.utils.memory import is_out_of_memory


def status_of(failure: BaseException | None) -> str:
    """The status in run.json of a run that ended with this failure: finished, interrupted, diverged or failed."""
    if failure is None:
        return "finished"
    if isinstance(failure, (Interrupted, KeyboardInterrupt)):
        return "interrupted"
    return "diverged" if isinstance(failure, Diverged) else "failed"


def explain_failure(error: BaseException | None, run: OpenedRun, step: int) -> BaseException | None:
    """The failure to report for what ended a run after `step` steps: it names plugin, step and checkpoint."""
    if error is None or isinstance(error, (Interrupted, KeyboardInterrupt, UserError)):
        return error
    saved = max(list_checkpoints(run.folder.checkpoints), default=None)
    kept = "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved:,} is kept"
    after = f"after step {step:,}"
    if isinstance(error, SamplesNotFinite):
        try:
            FiniteCheck(run.training)(step)
        except Diverged as diverged:
            error = diverged
        else:  # there is nothing in the training to look for
            game = run.plugins.registry.component_of("game", run.experiment.game)
            return Diverged(f"{after}, {error} (game {game.name!r} of plugin {game.origin}); {kept}")
    if isinstance(error, Diverged):
        return Diverged(f"{_find_cause(error, run, step)}; {kept}")
    if type(error) in (CannotWrite, GanlabError):
        return type(error)(f"{error}; {kept}")
    if isinstance(error, GanlabError) and not isinstance(error, ComponentError):
        return error
    if is_out_of_memory(error):
        size = run.experiment.train.batch_size
        return OutOfMemory(
            f"memory ran out {after} on {run.training.game.device}, with train.batch_size = {size}: try a smaller "
            f"one ({one_line(error, limit=160)}); {kept}"
        )
    failure = attribute_to_plugin(error, run.plugins.registry, after)
    if isinstance(error, ComponentError):  # which says in one line what does not fit
        return UserError(f"{failure if failure is not error else f'{after}: {one_line(error)}'}; {kept}")
    return PluginFailed(f"{failure}; {kept}", failure.trace) if isinstance(failure, PluginFailed) else error


def _find_cause(error: Diverged, run: OpenedRun, step: int) -> str:
    """The cause of a divergence, in words."""

    def progress(what: str, done: int, total: int) -> None:
        run.view.progress(what, done, total)
        if run.stop.requested:
            raise Interrupted("the search was stopped")

    run.view.line(f"{error}; looking for the cause")
    device, saved = run.training.game.device, run.folder.checkpoints
    found = divergence.find_cause(str(error), run.experiment, run.plugins, device, saved, step, progress)
    run.view.progress("", 0, 0)
    return found
