"""The kinds of components: for each its table in the experiment file, its `register_*` hook and its protocol."""

from __future__ import annotations

from attrs import frozen

from ganlab import protocols


@frozen
class Kind:
    """A kind of component: its table in the experiment file, its hook, and the members that its protocol requires.

    `flags` are optional class attributes that hold True or False and are not options.
    """

    table: str
    hook: str
    protocol: type
    members: tuple[str, ...]
    flags: tuple[str, ...] = ()


KINDS = {
    kind.table: kind
    for kind in (
        Kind("generator", "register_generators", protocols.NetworkConfig, ("build",)),
        Kind("discriminator", "register_discriminators", protocols.NetworkConfig, ("build",)),
        Kind("game", "register_games", protocols.GameConfig, ("build",)),
        Kind("loss", "register_losses", protocols.Loss, ("discriminator", "generator"), ("generator_uses_real",)),
        Kind("loss_wrapper", "register_loss_wrappers", protocols.LossWrapper, ("__call__",)),
        Kind("penalty", "register_penalties", protocols.Penalty, ("player", "every", "penalty")),
        Kind("augmentation", "register_augmentations", protocols.Augmentation, ("augment",)),
        Kind("optimizer", "register_optimizers", protocols.OptimizerConfig, ("build",), ("named_parameters",)),
        Kind("schedule", "register_schedules", protocols.Schedule, ("key", "value")),
        Kind("dataset", "register_datasets", protocols.DatasetConfig, ("build",)),
        Kind("features", "register_features", protocols.FeaturesConfig, ("build",)),
        Kind("metric", "register_metrics", protocols.Metric, ("every", "evaluate")),
        Kind("tracker", "register_trackers", protocols.TrackerConfig, ("build",)),
        Kind("launcher", "register_launchers", protocols.Launcher, ("launch",)),
    )
}

NETWORK_KINDS = tuple(kind.table for kind in KINDS.values() if kind.protocol is protocols.NetworkConfig)
"""The kinds of components that are configurations of networks."""
