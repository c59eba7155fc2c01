"""What an experiment file may say.

Decisions:
- The fields of `Experiment`, and those of the components' classes, are all the keys there are.
- What two keys may not say together is refused here, with the name that the file has.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, matches_re, optional

from ganlab.plugin.fields import DEFAULT, component, components
from ganlab.protocols import (
    Augmentation,
    DatasetConfig,
    Loss,
    LossWrapper,
    Metric,
    NetworkConfig,
    OptimizerConfig,
    Penalty,
    Schedule,
    TrackerConfig,
)
from ganlab.utils.interval import Interval

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a run, a sweep and a variant may be called: each becomes a folder, which must lie where it should."""


@frozen
class Train:
    """The `[train]` table. One step is one update of the generator.

    steps, epochs: how long; exactly one of them.
    batch_size: images in a batch; incomplete batches are dropped.
    discriminator_steps: updates of the discriminator before each of the generator, each on a batch of its own.
    discriminator_every: the discriminator is updated in every k-th step only, from the first on, so that the generator
        has k updates for each of its own. One of this and `discriminator_steps` is 1.
    stop_discriminator_under, stop_generator_under: an update of that player whose loss, without penalties, is under
        this bound changes neither weights nor the optimiser's state. Batch norm's statistics move all the same.
    accumulate: an update's batch passes in so many equal parts, which needs the memory of one. Gradients are added up
        and divided by the number, and `batch_size` stays that of the update. What couples images of a batch, such as
        batch norm or a relativistic average, sees a part.
    clip_norm: the most that the norm of a player's gradient, penalties and all, may be; a larger one is scaled down.
    fresh_noise: draw new latents for the generator's update. `false` reuses the discriminator's last fake images: one
        pass through the generator less.
    precision: "float32"; "tf32" (matrix products of float32 on CUDA); "bfloat16" (autocast).
    capture: on CUDA, capture each kind of step once as a graph and replay it. `false` for eager steps, as a debugger
        wants them; a plugin that cannot be captured makes them eager too.
    deterministic: repeat to the bit on CUDA too, which is slower; on the CPU runs do so anyway. An operation that torch
        has no deterministic implementation of ends the run.
    ema: decay a step of the running average of the generator's weights, which is then what is sampled and scored;
        0 for none.
    ema_half_life: the same as a half-life: so many images that the discriminator sees halve what is left of old weights
        in the average, whatever the batch size; 0 for none.
    ema_warmup: with ema_half_life, the half-life is at most this share of the images seen before, so that the first
        weights are soon forgotten (0.05 in StyleGAN2); 0 for none.
    log_every: how often the means since the last time are written to `log.jsonl`, and NaN is looked for; at least 1.
    sample_every, checkpoint_every: how often samples are drawn and a checkpoint is saved; 0 for never (but the end is
        sampled and saved all the same).
    sample_count: images in a sample grid.
    checkpoint_keep: how many of the latest checkpoints are kept, besides the best by each metric: at least 2, since one
        alone could be damaged; 0 for all.
    resident_gb: how much memory the training images may take, in 10^9 bytes of the device's. Where they need more,
        batches are read from the disk ahead of the step: the results are the same to the bit. 0 always reads.
    """

    steps: int | None = field(default=None, validator=optional([ge(1), le(10**12)]))
    epochs: int | None = field(default=None, validator=optional([ge(1), le(10**9)]))
    batch_size: int = field(default=64, validator=[ge(1), le(2**24)])
    discriminator_steps: int = field(default=1, validator=[ge(1), le(1000)])
    discriminator_every: int = field(default=1, validator=[ge(1), le(1000)])
    stop_discriminator_under: float | None = field(default=None, validator=optional([ge(-1e12), le(1e12)]))
    stop_generator_under: float | None = field(default=None, validator=optional([ge(-1e12), le(1e12)]))
    accumulate: int = field(default=1, validator=[ge(1), le(2**24)])
    clip_norm: float | None = field(default=None, validator=optional([gt(0), le(10**12)]))
    fresh_noise: bool = True
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
    resident_gb: float | None = field(
        default=None, validator=optional(ge(0)), metadata={DEFAULT: "half of what is free"}
    )

    def __attrs_post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of 'steps' and 'epochs'" + (", not both" if self.steps is not None else ""))
        if self.discriminator_steps > 1 and self.discriminator_every > 1:
            raise ValueError(
                f"discriminator_every: {self.discriminator_every} together with discriminator_steps = "
                f"{self.discriminator_steps}; one of them must be 1"
            )
        if self.ema and self.ema_half_life:
            raise ValueError("ema_half_life: give one of 'ema' and 'ema_half_life', not both")
        if self.ema_warmup and not self.ema_half_life:
            raise ValueError("ema_warmup: needs 'ema_half_life', which it shortens at first")
        if self.log_every.count == 0:
            raise ValueError("log_every: must be at least 1: NaN is looked for once a tick")
        if self.checkpoint_keep == 1:
            raise ValueError("checkpoint_keep: must be 0, for all, or at least 2: one alone could be damaged")


@frozen
class Experiment:
    """The whole file. A component is given by its name or by a table with `name` and the component's own options.

    name: of the run; its folder lies in one of that name. Letters, digits, ".", "_" and "-", at most 100.
    train: how long and how.
    dataset: the images.
    generator: the network that makes images.
    discriminator: the network that judges them.
    loss: what each of the two is trained towards.
    optimizer: of both networks.
    generator_optimizer, discriminator_optimizer: of one of them. Without a `name` such a table changes the common one.
    seed: of all that is random: first weights, latents, the order of images.
    plugins: local plugin files, relative to this file.
    floor: also score real images of the split that is not a metric's reference, once, to be seen beside its scores.
    loss_wrapper: each changes the loss before it, from the first of the list to the last.
    penalty: each is added to the loss of one of the networks.
    augmentation: what is done, in this order, to all images that the discriminator sees.
    schedule: each changes one option while the run goes on: a learning rate, a penalty's weight.
    metric: what scores the generator, before training, after it and `every` so often.
    tracker: where records and sample grids go besides the run folder.
    """

    name: str = field(validator=matches_re(NAME), metadata={DEFAULT: "the file's name without `.toml`"})
    train: Train
    dataset: DatasetConfig = component("dataset")
    generator: NetworkConfig = component("generator")
    discriminator: NetworkConfig = component("discriminator")
    loss: Loss = component("loss")
    optimizer: OptimizerConfig = component("optimizer", default="adam")
    generator_optimizer: OptimizerConfig | None = component("optimizer", default=None)
    discriminator_optimizer: OptimizerConfig | None = component("optimizer", default=None)
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
"""Options that change no bit of a run's results, so that runs may differ in them and still be the same."""

NESTED = {f"{player}_optimizer": (player, "optimizer") for player in ("generator", "discriminator")}
"""Fields of Experiment that the file writes inside another table: `[generator.optimizer]`."""
