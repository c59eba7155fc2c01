"""The schema of an experiment file: the top-level keys and the `[train]` table, with their types, ranges and defaults.

Decisions:
- The fields of `Experiment` and of the components' classes are all the valid keys.
- Invalid combinations of keys raise here, with the key's name in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, le, lt, optional

from ganlab.plugin.fields import DEFAULT, NESTED, component, components, location
from ganlab.protocols import (
    Augmentation,
    DatasetConfig,
    GameConfig,
    LossWrapper,
    Metric,
    OptimizerConfig,
    Penalty,
    Schedule,
    TrackerConfig,
)
from ganlab.utils.interval import Interval

DEFAULT_GAME = "gan"
"""The game of an experiment file without the key `game`."""

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Valid names of runs, sweeps and variants. Each becomes a folder's name, so it must not contain separators."""

NAME_RULE = "a name is letters, digits, '.', '_' and '-', at most 100, the first a letter or digit"
"""`NAME` in words, for error messages."""


def _valid_name(experiment: object, option: Attribute[str], value: str) -> None:
    if not re.fullmatch(NAME, value):
        raise ValueError(f"'{option.name}' {NAME_RULE}")


CLIP_NORM: Any = [gt(0), le(10**12)]
"""The bounds of a gradient's largest norm."""


@frozen
class Train:
    """The `[train]` table. One step makes each move of the game as often as the game says.

    A game may have more options here: those of the default game are among [its own](components.md#gan).

    steps, epochs: the length of training; give exactly one of them.
    batch_size: images per batch; incomplete batches are dropped.
    accumulate: split the batch of an update into this many equal parts to save memory; their gradients are averaged,
        and `batch_size` remains that of the update. Operations over the batch, such as batch norm or a relativistic
        average, see one part.
    clip_norm: the largest norm of a player's gradient, penalties included; a larger gradient is scaled down.
    precision: "float32"; "tf32" (float32 matrix products on CUDA); "bfloat16" (autocast).
    capture: on CUDA, capture each kind of step once as a CUDA graph and replay it. `false` for eager steps, as needed
        for debugging; steps are also eager if a plugin cannot be captured.
    deterministic: bitwise reproducible runs on CUDA too, which is slower; on the CPU runs are reproducible anyway. An
        operation without a deterministic implementation in torch ends the run.
    ema: decay per step of the exponential moving average (EMA) of the weights of the sampled networks, which is then
        used for samples and scores; 0 for none.
    ema_half_life: the EMA's decay as a half-life in training images, independent of the batch size; 0 for none.
    ema_warmup: with ema_half_life, limit the half-life to this fraction of the images seen so far, so that the initial
        weights are forgotten soon (0.05 in StyleGAN2); 0 for none.
    log_every: interval at which means are written to `log.jsonl` and checked for NaN; at least 1.
    sample_every, checkpoint_every: interval between sample grids and between checkpoints; 0 for never (the end of the
        run is always sampled and saved).
    sample_count: images in a sample grid; with classes fewer, where they do not divide into equal rows.
    checkpoint_keep: number of latest checkpoints to keep, besides the best by each metric: at least 2, in case one is
        damaged; 0 for all.
    freeze: parameters that stay as they are, by the names of networks and their layers, such as
        "discriminator.layers.0-3" (FreezeD). Batch norm and spectral norm in them go on following what passes.
    resident_gb: device memory that the training images may take, in 10^9 bytes. If they need more, batches are read
        from disk ahead of the step, with bitwise identical results. 0 always reads from disk.
    """

    steps: int | None = field(default=None, validator=optional([ge(1), le(10**12)]))
    epochs: int | None = field(default=None, validator=optional([ge(1), le(10**9)]))
    batch_size: int = field(default=64, validator=[ge(1), le(2**24)])
    accumulate: int = field(default=1, validator=[ge(1), le(2**24)])
    clip_norm: float | None = field(default=None, validator=optional(CLIP_NORM))
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    capture: bool = True
    deterministic: bool = False
    ema: float = field(default=0.0, validator=[ge(0), lt(1)])
    ema_half_life: float = field(default=0.0, validator=[ge(0), le(1e15)])
    ema_warmup: float = field(default=0.0, validator=[ge(0), le(1)])
    log_every: Interval = Interval(50)
    sample_every: Interval = Interval(1000)
    checkpoint_every: Interval = Interval(1000)
    sample_count: int = field(default=64, validator=[gt(0), le(10_000)])
    checkpoint_keep: int = field(default=3, validator=[ge(0), le(10**9)])
    freeze: tuple[str, ...] | None = None
    resident_gb: float | None = field(
        default=None, validator=optional(ge(0)), metadata={DEFAULT: "half of what is free"}
    )

    def __attrs_post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of 'steps' and 'epochs'" + (", not both" if self.steps is not None else ""))
        if self.ema and self.ema_half_life:
            raise ValueError("ema_half_life: give one of 'ema' and 'ema_half_life', not both")
        if self.ema_warmup and not self.ema_half_life:
            raise ValueError("ema_warmup: needs 'ema_half_life', which it shortens at first")
        if self.log_every.count == 0:
            raise ValueError("log_every: must be at least 1: NaN is looked for once a tick")
        if self.checkpoint_keep == 1:
            raise ValueError("checkpoint_keep: must be 0, for all, or at least 2: one alone could be damaged")


@frozen
class InitFrom:
    """The `[init_from]` table: the weights that a new run begins with, of another run or of a file. It is read once.

    A layer is taken where all its tensors have the same names and shapes; the others begin anew, and are listed.

    run: the folder of another run; give this or `file`.
    file: a .safetensors file, or a .pt file of tensors (no code in it is run): the weights of one network, or those of
        several with the network's name before each, as in "generator.layers.0.weight"; also a checkpoint with several
        state_dicts, by their names.
    step: the step of the run's checkpoint; by default the latest.
    networks: the networks of the game that begin so; by default those that are trained and whose weights are there.
    ema: of the networks that the run averages, take the running average; by default where there is one.
    names: names there by names here, where they differ: "generator" = "generator_ab", or of a layer,
        "generator.layers.4" = "generator.layers.5".
    names_file: a .toml or .json file of more such names, in tables or not; those in `names` come first.
    strict: refuse the run where a layer or a tensor is left.
    """

    run: str | None = location(default=None)
    file: str | None = location(default=None)
    step: int | None = field(default=None, validator=optional(ge(0)))
    networks: tuple[str, ...] = ()
    ema: bool | None = None
    names: Mapping[str, str] = field(factory=dict)
    names_file: str | None = location(default=None)
    strict: bool = False

    def __attrs_post_init__(self) -> None:
        if (self.run is None) == (self.file is None):
            raise ValueError("give one of 'run' and 'file'" + (", not both" if self.run is not None else ""))
        for option in ("step", "ema"):
            if self.file is not None and getattr(self, option) is not None:
                raise ValueError(f"{option}: goes with 'run'; a file has one set of weights")


@frozen
class Experiment:
    """The experiment file. A component is given by its name or by a table with `name` and the component's own options.

    name: the run's name; run folders are created in a folder of that name. Letters, digits, ".", "_", "-", at most 100.
    train: the length and the options of training.
    dataset: the training images.
    game: the networks, their moves, and the loss of each move. Its networks and other components are tables of the file
        too: `[generator]`, `[discriminator]` and `[loss]` in the default game, which needs no `[game]`.
    optimizer: the optimiser of all networks.
    optimizers: the optimiser of the networks of one table, such as `[generator.optimizer]`, or of one network of the
        game, by its name. A table without `name` changes options of the common one.
    clip_norms: the largest norm of the gradient of each network of one table, or of one network, instead of
        `train.clip_norm`.
    init_from: the weights that the run begins with, of another run or of a file.
    seed: seeds everything random: initial weights, latents, the order of images.
    plugins: local plugin files, relative to this file.
    floor: also score real images of the split that is not a metric's reference, once, for comparison.
    loss_wrapper: each wraps the loss before it, in the order of the list.
    penalty: each is added to the loss of one network.
    augmentation: applied, in this order, to all images that the game's discriminators see.
    schedule: each changes one option during the run, such as a learning rate or a penalty's weight.
    metric: each scores what the game samples before training, after it and at the interval `every`.
    tracker: where records and sample grids are sent besides the run folder.
    """

    name: str = field(validator=_valid_name, metadata={DEFAULT: "the file's name without `.toml`"})
    train: Train
    dataset: DatasetConfig = component("dataset")
    game: GameConfig = component("game", default=DEFAULT_GAME)
    optimizer: OptimizerConfig = component("optimizer", default="adam")
    optimizers: Mapping[str, OptimizerConfig] = field(factory=dict, metadata={NESTED: "optimizer"})
    clip_norms: Mapping[str, float] = field(factory=dict, metadata={NESTED: "clip_norm"})
    init_from: InitFrom | None = None
    seed: int = field(default=0, validator=[ge(0), lt(2**63)])
    plugins: tuple[str, ...] = ()
    floor: bool = True
    loss_wrapper: tuple[LossWrapper, ...] = components("loss_wrapper")
    penalty: tuple[Penalty, ...] = components("penalty")
    augmentation: tuple[Augmentation, ...] = components("augmentation")
    schedule: tuple[Schedule, ...] = components("schedule")
    metric: tuple[Metric, ...] = components("metric")
    tracker: tuple[TrackerConfig, ...] = components("tracker")


NO_RESULTS = ("tracker", "train.resident_gb")
"""Options that do not change a run's results; runs that differ only in them count as the same experiment."""
