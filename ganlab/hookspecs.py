"""Every hook a plugin can implement: a signature and one sentence each; `docs/hooks.md` has an example of each.

The `register_*` hooks are called once, before anything is built. The others are told of slow events during a run;
none is called from the step. A hook may leave out arguments that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker, HookspecMarker

from ganlab import protocols

if TYPE_CHECKING:
    from ganlab.runfolder import RunFolder

hookspec = HookspecMarker("ganlab")
hookimpl = HookimplMarker("ganlab")


@hookspec
def register_generators(register: Callable[[str, Callable[..., protocols.NetworkConfig]], None]) -> None:
    """Call `register(name, config_class)` for each generator."""


@hookspec
def register_discriminators(register: Callable[[str, Callable[..., protocols.NetworkConfig]], None]) -> None:
    """Call `register(name, config_class)` for each discriminator."""


@hookspec
def register_losses(register: Callable[[str, Callable[..., protocols.Loss]], None]) -> None:
    """Call `register(name, loss_class)` for each loss."""


@hookspec
def register_loss_wrappers(register: Callable[[str, Callable[..., protocols.LossWrapper]], None]) -> None:
    """Call `register(name, wrapper_class)` for each loss wrapper."""


@hookspec
def register_penalties(register: Callable[[str, Callable[..., protocols.Penalty]], None]) -> None:
    """Call `register(name, penalty_class)` for each penalty."""


@hookspec
def register_augmentations(register: Callable[[str, Callable[..., protocols.Augmentation]], None]) -> None:
    """Call `register(name, augmentation_class)` for each augmentation."""


@hookspec
def register_optimizers(register: Callable[[str, Callable[..., protocols.OptimizerConfig]], None]) -> None:
    """Call `register(name, config_class)` for each optimiser."""


@hookspec
def register_datasets(register: Callable[[str, Callable[..., protocols.DatasetConfig]], None]) -> None:
    """Call `register(name, config_class)` for each data set."""


@hookspec
def register_features(register: Callable[[str, Callable[..., protocols.FeaturesConfig]], None]) -> None:
    """Call `register(name, config_class)` for each feature extractor."""


@hookspec
def register_metrics(register: Callable[[str, Callable[..., protocols.Metric]], None]) -> None:
    """Call `register(name, metric_class)` for each metric."""


@hookspec
def register_trackers(register: Callable[[str, Callable[..., protocols.TrackerConfig]], None]) -> None:
    """Call `register(name, config_class)` for each tracker."""


@hookspec
def register_launchers(register: Callable[[str, Callable[..., protocols.Launcher]], None]) -> None:
    """Call `register(name, launcher_class)` for each launcher of sweeps."""


@hookspec
def run_started(run: RunFolder) -> None:
    """The run folder is there and the first step is about to be taken (again, on resume)."""


@hookspec
def tick_finished(run: RunFolder, record: Mapping[str, Any]) -> None:
    """A record was added to `log.jsonl`."""


@hookspec
def evaluation_finished(run: RunFolder, record: Mapping[str, Any]) -> None:
    """A record, one value with its protocol, was added to `metrics.jsonl`."""


@hookspec
def checkpoint_saved(run: RunFolder, path: Path) -> None:
    """A checkpoint folder is whole and on the disk."""


@hookspec
def run_finished(run: RunFolder, error: BaseException | None) -> None:
    """The run has ended: `error` is None when it ran to its end, else what stopped it."""
