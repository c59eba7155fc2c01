"""The hook specifications: every hook that a plugin can implement; `docs/hooks.md` has an example of each.

The `register_*` hooks are called once, before anything is built. The others are called at slow events of a run; none is
called from the training step. An implementation may omit arguments that it does not need.

Compatibility: an argument may be added to a hook at any time, since implementations name the arguments they take. A
renamed hook or argument gets an entry in `RENAMED`; its former name works, with a warning, for two releases.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from attrs import frozen
from pluggy import HookimplMarker, HookspecMarker

from ganlab import protocols

hookspec = HookspecMarker("ganlab")
hookimpl = HookimplMarker("ganlab")

Part_contra = TypeVar("Part_contra", contravariant=True)


class Register(Protocol[Part_contra]):
    """The type of a `register_*` hook's argument: called with a name and a class, it registers a component.

    With `def register_losses(register: Register[Loss]) -> None:` mypy and pyright report a class that does not match
    the `Loss` protocol at the line that registers it.
    """

    def __call__(self, name: str, cls: type[Part_contra], /) -> None: ...


@frozen
class Renamed:
    """The specification of a renamed hook or argument: its present name, and the release ("0.3") that ends the old."""

    new: str
    ends: str


RENAMED: dict[str, Renamed] = {}
"""Renamed hooks and arguments by former name: "tick_done" for a hook, "tick_finished.entry" for a hook's argument."""


@hookspec
def register_games(register: Register[protocols.GameConfig]) -> None:
    """Call `register(name, game_class)` for each game."""


@hookspec
def register_generators(register: Register[protocols.NetworkConfig]) -> None:
    """Call `register(name, config_class)` for each generator."""


@hookspec
def register_discriminators(register: Register[protocols.NetworkConfig]) -> None:
    """Call `register(name, config_class)` for each discriminator."""


@hookspec
def register_losses(register: Register[protocols.Loss]) -> None:
    """Call `register(name, loss_class)` for each loss."""


@hookspec
def register_loss_wrappers(register: Register[protocols.LossWrapper]) -> None:
    """Call `register(name, wrapper_class)` for each loss wrapper."""


@hookspec
def register_penalties(register: Register[protocols.Penalty]) -> None:
    """Call `register(name, penalty_class)` for each penalty."""


@hookspec
def register_augmentations(register: Register[protocols.Augmentation]) -> None:
    """Call `register(name, augmentation_class)` for each augmentation."""


@hookspec
def register_optimizers(register: Register[protocols.OptimizerConfig]) -> None:
    """Call `register(name, config_class)` for each optimiser."""


@hookspec
def register_schedules(register: Register[protocols.Schedule]) -> None:
    """Call `register(name, schedule_class)` for each schedule."""


@hookspec
def register_datasets(register: Register[protocols.DatasetConfig]) -> None:
    """Call `register(name, config_class)` for each data set."""


@hookspec
def register_features(register: Register[protocols.FeaturesConfig]) -> None:
    """Call `register(name, config_class)` for each feature extractor."""


@hookspec
def register_metrics(register: Register[protocols.Metric]) -> None:
    """Call `register(name, metric_class)` for each metric."""


@hookspec
def register_trackers(register: Register[protocols.TrackerConfig]) -> None:
    """Call `register(name, config_class)` for each tracker."""


@hookspec
def register_launchers(register: Register[protocols.Launcher]) -> None:
    """Call `register(name, launcher_class)` for each launcher of sweeps."""


@hookspec
def run_started(run: protocols.RunView) -> None:
    """The hook called when the run folder exists, before the first step (also on resume)."""


@hookspec
def tick_finished(run: protocols.RunView, record: Mapping[str, Any]) -> None:
    """The hook called when a record was added to `log.jsonl`."""


@hookspec
def evaluation_finished(run: protocols.RunView, record: Mapping[str, Any]) -> None:
    """The hook called when a record, one score with its protocol, was added to `metrics.jsonl`."""


@hookspec
def checkpoint_saved(run: protocols.RunView, path: Path) -> None:
    """The hook called when a checkpoint folder is complete and flushed to disk."""


@hookspec
def run_finished(run: protocols.RunView, error: BaseException | None) -> None:
    """The hook called when the run has ended; `error` is what stopped it, or None if it completed."""
