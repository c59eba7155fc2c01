"""The protocol of a game: which networks there are, which of them move together, and what each move's loss is made of.

@frozen
class Pair:
    generator: NetworkConfig = component("generator")       # the table [generator] of the experiment file
    discriminator: NetworkConfig = component("discriminator")
    weight: float = 1.0                                     # an option in the table [game]

    def build(self, data: DataSpec) -> Rules: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from attrs import field, frozen
from attrs.validators import ge

from ganlab.protocols.image_spec import ImageSpec
from ganlab.protocols.loss import Loss
from ganlab.protocols.network import NetworkConfig
from ganlab.protocols.turn import Turn
from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Levers = Callable[[Mapping[str, "nn.Module"]], Mapping[str, Any]]
"""What a move of a game does depending on the networks that changes the last bits."""

Output = Callable[[Mapping[str, "nn.Module"], "Tensor", Any], "Tensor"]
"""What a game makes of real images and their conditions by its networks, by name: a tensor with a row for each."""

Terms = Mapping[str, Any]
"""A move's terms: scalar tensors by name, which are added. Any stands for `Tensor`."""


@frozen
class DataSpec:
    """A game's protocol, what it is built for: the shape of the images of `[dataset]`, and of its other data sets.

    `streams` are the data sets of the game's own component fields, by the field's name.
    """

    images: ImageSpec
    streams: Mapping[str, ImageSpec] = field(factory=dict)


@frozen
class Network:
    """A game's protocol, one of its networks: what builds it, and which options are its own.

    config: a network's configuration, or a function that returns the network.
    given: names of networks listed before it, with which the function is called, such as a generator whose latents an
        encoder returns.
    images: the shape that the configuration builds it for; None for that of `[dataset]`.
    table: the component field of the game whose `optimizer` table it has; by default the field of the network's name.
    frozen: it is never trained, and stays in eval mode.
    initialise: called once, where a run begins, after a configuration's own: changes weights and buffers in place, as a
        warm start does (`ganlab.load_weights`).
    """

    config: NetworkConfig | Callable[..., nn.Module]
    images: ImageSpec | None = None
    table: str = ""
    frozen: bool = False
    given: tuple[str, ...] = ()
    initialise: Callable[[nn.Module], None] | None = None


@frozen
class Move:
    """A game's protocol, one of its moves: an update of one or several players on one objective.

    name: the move's name; its loss is logged as "loss_NAME".
    players: the names of the networks that it trains, all in one update. All other networks are frozen in it.
    terms: returns the objective's terms of a turn, a scalar or scalars by name, which are added and logged.
    repeats: updates in a step. every: the move is made in every k-th step only. start: the first step that has it.
    new_batch: each update takes the next batch of data; otherwise that of the move before. The first move always does.
    stop_under: an update whose loss is under this bound is undone (None for no bound).
    unfrozen: names of networks that the move does not train, and that keep their gradients, since a later move uses
        what they made (`Turn.kept`).
    """

    name: str
    players: tuple[str, ...]
    terms: Callable[[Turn], Tensor | Terms]
    repeats: int = 1
    every: int = 1
    start: int = 0
    new_batch: bool = False
    stop_under: float | None = None
    unfrozen: tuple[str, ...] = ()


@frozen
class Sampler:
    """A game's protocol, what is sampled and scored: images of a few of its networks.

    networks: their names. The running average (`train.ema`) is of these.
    images: returns images (n, C, H, W) in [-1, 1] of these networks, by name, latents and conditions or None; other
        data in their own shape, and float32 data with their own values.
    latents: returns latents (count, …) on the CPU. It is called as `latents(networks, count, generator, truncation)`
        with a random generator and the truncation that the user asked for, or None. The networks are in eval mode, and
        no gradient is recorded.
    source: the game's data set whose images are the conditions of samples, by its field, or "dataset" for the images of
        `[dataset]`, as for reconstructions; empty for the conditions of `[dataset]`.
    makes: the game's data set whose images it makes, by its field, for a further sampler; empty for `[dataset]`.
    period: how many consecutive latents belong together, such as those with each value of a code in turn; latents are
        drawn in whole groups.
    styles: whether latents are styles (count, layers, dim), those of two samples to be mixed (`ganlab sample --mix`).
    options: what a user may choose when sampling, by name, with default values (`ganlab sample --option`); `images` is
        given them by name. They are in the protocol of each score.
    """

    networks: tuple[str, ...]
    images: Callable[..., Tensor]
    latents: Callable[[Mapping[str, nn.Module], int, torch.Generator, float | None], Tensor]
    source: str = ""
    options: Mapping[str, float | int | bool | str] = field(factory=dict)
    makes: str = ""
    styles: bool = False
    period: int = field(default=1, validator=ge(1))


def _or_none_of_them(levers: Levers | None) -> Levers:
    return (lambda networks: {}) if levers is None else levers


@frozen
class Rules:
    """A game's protocol, what it builds: its networks, its moves in their order in a step, and its sampler.

    networks: by name, in the order in which they are built. A configuration alone stands for `Network(configuration)`.
    sampler: what is sampled and scored; None where the game has `outputs` alone, as a classifier's training has. The
        running average is then of all networks that moves train.
    samplers: further samplers by name, such as that of the other direction (`ganlab sample --sampler`). They are
        averaged and drawn in the run's sample grids; scores are of `sampler`.
    judge: returns logits of images by the networks and the conditions, for the plot of D(real) and D(fake), or None.
    loss: the loss that says how far D(real) and D(fake), which the game logs as "d_real" and "d_fake", lie apart once
        the discriminator has won, for the alarm; None for no such alarm.
    state: what the game itself keeps from step to step, by name, each with `state_dict` and `load_state_dict`.
    outputs: by name, what the game makes of real images (n, C, H, W) in [-1, 1] and their conditions, for metrics
        (`Evaluation.outputs`): functions of the networks, averaged where they are sampled, in eval mode; they return a
        tensor of n rows. "translation" is what a translator makes of the condition, "reconstruction" what an
        autoencoder makes of the image, "class_logits" (n, classes) what a classifier says of it. Where the conditions
        of samples are images, the sampler gives the first (conditions of `[dataset]`) or second (`source="dataset"`).
    levers: returns what a move does depending on the networks that changes the last bits, for run.json.
    """

    networks: Mapping[str, Network | NetworkConfig]
    moves: Sequence[Move]
    sampler: Sampler | None = None
    judge: Callable[[Mapping[str, nn.Module], Tensor, Any], Tensor] | None = None
    loss: Loss | None = None
    state: Mapping[str, Any] = field(factory=dict)
    levers: Levers = field(default=None, converter=_or_none_of_them)
    outputs: Mapping[str, Output] = field(factory=dict)
    samplers: Mapping[str, Sampler] = field(factory=dict)

    @property
    def sampled(self) -> tuple[str, ...]:
        """A game's protocol: the names of the networks that any sampler uses, those of `main_sampler` first."""
        samplers = (self.main_sampler, *self.samplers.values())
        return tuple(dict.fromkeys(name for sampler in samplers for name in sampler.networks))

    @property
    def all_samplers(self) -> dict[str, Sampler]:
        """A game's protocol: its samplers by name, `sampler` first, whose name is empty; none where it makes none."""
        return {} if self.sampler is None else {"": self.sampler, **self.samplers}

    @property
    def main_sampler(self) -> Sampler:
        """A game's protocol: `sampler`; without one, that of all networks that moves train, which refuses to sample."""
        if self.sampler is not None:
            return self.sampler
        trained = tuple(name for name in self.networks if not self.network(name).frozen)
        return Sampler(trained, images=self._refuse_to_sample, latents=self._refuse_to_sample)

    def _refuse_to_sample(self, *given: Any, **named: Any) -> NoReturn:
        raise ComponentError(self.why_no_samples)

    @property
    def why_no_samples(self) -> str:
        """A game's protocol: why it cannot be sampled; empty where it can."""
        outputs = ", ".join(map(str, self.outputs))
        return "" if self.sampler else f"the game makes no samples; what it makes of real images is: {outputs}"

    def network(self, name: str) -> Network:
        """A game's protocol: returns one of its networks by name, as a `Network`."""
        found = self.networks[name]
        return found if isinstance(found, Network) else Network(found)


@runtime_checkable
class GameConfig(Protocol):
    """A game's protocol: its components and options, and `build`.

    Its component fields are top-level tables of the experiment file; its other fields are options in `[game]`.
    """

    def build(self, data: DataSpec, /) -> Rules:
        """A game's protocol: returns its rules for data of this shape; `ComponentError` for data that do not fit."""
        ...
