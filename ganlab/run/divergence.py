"""Finds what made a training diverge: repeats its steps since the latest checkpoint with every part checked for NaN.

Decisions:
- The steps of a run check nothing, since that would cost time in all of them. A tick finds that something is no longer
  finite; what was so first is found afterwards, because a run repeats bitwise.
- The search starts from the latest checkpoint, in objects that are built again, and ends at the first value that is not
  finite: images, logits, a loss term, the gradient of that term alone, weights and optimizer state after an update, the
  EMA (finite_hooks.py).
- It is left out on several processes, which would have to end the search together, and ends after `SECONDS`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ganlab.config.load import convert_experiment, experiment_to_table
from ganlab.config.schema import Experiment
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.plugin.loader import Plugins
from ganlab.run.finite_hooks import NotFinite, add_finite_checks
from ganlab.run.init_from import InitialWeights
from ganlab.training.build import build
from ganlab.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.training.component_names import component_names
from ganlab.training.loop import Training, take_step
from ganlab.training.state import restore_training
from ganlab.utils import distributed
from ganlab.utils.paths import places
from ganlab.utils.state_tree import find_non_finite

SECONDS = 600
"""The longest time that the search for the cause of a divergence may take."""


NOT_REPEATED = (
    "taken again from step {:,}, the steps did not diverge, so they depend on something that no checkpoint holds: a "
    "component may keep a state without a state_dict, or CUDA needs train.deterministic"
)


def find_cause(
    seen: str,
    experiment: Experiment,
    plugins: Plugins,
    device: torch.device,
    checkpoints: Path,
    until: int,
    progress: Callable[[str, int, int], None],
) -> str:
    """The cause of a divergence: what became NaN or infinite first in the steps up to `until`, in one line.

    It is `seen`, the message of the tick, where the cause is not found. `progress` may raise to end the search.
    """
    if distributed.world_size() > 1:
        return seen
    with CatchPluginErrors() as guard, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the data set warns of it has warned of before
        # Components are made again, too: a loss or a penalty may have kept something of the steps that diverged.
        fresh = convert_experiment(experiment_to_table(experiment, plugins), plugins)
        begins = InitialWeights(fresh.init_from) if fresh.init_from else None
        new = not list_checkpoints(checkpoints)
        training = build(fresh, plugins.registry, places(), device, new=new, start=begins)
        try:
            start = _restore_latest_whole(training, checkpoints)
            _repeat_steps(training, component_names(fresh, plugins.registry, training.game), start, until, progress)
        finally:
            training.loader.close()
        return f"{seen}; {NOT_REPEATED.format(start)}"
    return str(guard.error) if isinstance(guard.error, NotFinite) else seen


def _restore_latest_whole(training: Training, checkpoints: Path) -> int:
    """Restores the latest undamaged checkpoint to search for a divergence from; its step, 0 where there is none."""
    for step, path in reversed(list_checkpoints(checkpoints).items()):
        try:
            state = load_checkpoint(path)
        except DamagedCheckpoint:
            continue
        restore_training(training, state)
        return step
    return 0


def _repeat_steps(
    training: Training, names: Mapping[str, str], start: int, until: int, progress: Callable[[str, int, int], None]
) -> None:
    """Repeats the steps to a divergence, with every part checked; raises NotFinite where a check fails."""
    training = add_finite_checks(training, names)
    began = time.monotonic()
    for step in range(start, until):
        progress("looking for what diverged, from the latest checkpoint on", step - start, until - start)
        try:
            take_step(training, step)
            if training.ema is not None:
                for name, average in training.ema.networks.items():
                    if where := find_non_finite(dict(average.named_parameters())):
                        raise NotFinite(f"the running average of the {name}'s weights ({where}) is not finite")
        except NotFinite as error:
            raise NotFinite(f"diverged in step {step + 1:,}: {error}") from None
        if time.monotonic() - began > SECONDS:
            raise TimeoutError
