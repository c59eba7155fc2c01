"""How a run ended, in words: its status, and of a failure which plugin, which step, and what there is to go on from."""

from __future__ import annotations

from ganlab.plugin.failures import blamed
from ganlab.run import divergence
from ganlab.run.callbacks import Beside
from ganlab.training.checkpoint import list_checkpoints
from ganlab.utils.errors import (
    CannotWrite,
    ComponentError,
    Diverged,
    GanlabError,
    Interrupted,
    OutOfMemory,
    PluginFailed,
    UserError,
    one_line,
)
from ganlab.utils.memory import is_out_of_memory


def status_of(failure: BaseException | None) -> str:
    """What run.json calls the way a run ended."""
    if failure is None:
        return "finished"
    if isinstance(failure, (Interrupted, KeyboardInterrupt)):
        return "interrupted"
    return "diverged" if isinstance(failure, Diverged) else "failed"


def explained(error: BaseException | None, beside: Beside) -> BaseException | None:
    """What ended a run in words of what to do: which plugin, which step, which checkpoint there is."""
    if error is None or isinstance(error, (Interrupted, KeyboardInterrupt, UserError)):
        return error
    saved = max(list_checkpoints(beside.run.checkpoints), default=None)
    kept = "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved:,} is kept"
    after = f"after step {beside.step:,}"
    if isinstance(error, Diverged):
        return Diverged(f"{_diagnosed(error, beside)}; {kept}")
    if type(error) in (CannotWrite, GanlabError):
        return type(error)(f"{error}; {kept}")
    if isinstance(error, GanlabError) and not isinstance(error, ComponentError):
        return error
    if is_out_of_memory(error):
        size = beside.experiment.train.batch_size
        return OutOfMemory(
            f"memory ran out {after} on {beside.training.game.device}, with train.batch_size = {size}: try a smaller "
            f"one ({one_line(error, limit=160)}); {kept}"
        )
    failure = blamed(error, beside.plugins.registry, after)
    return PluginFailed(f"{failure}; {kept}", failure.trace) if isinstance(failure, PluginFailed) else error


def _diagnosed(error: Diverged, beside: Beside) -> str:
    """Which step, term and plugin it was, found by taking the steps since the latest checkpoint again."""

    def progress(what: str, done: int, total: int) -> None:
        beside.view.progress(what, done, total)
        if beside.stop.requested:
            raise Interrupted("the search was stopped")

    beside.view.line(f"{error}; looking for the cause")
    device, saved = beside.training.game.device, beside.run.checkpoints
    found = divergence.cause(str(error), beside.experiment, beside.plugins, device, saved, beside.step, progress)
    beside.view.progress("", 0, 0)
    return found
