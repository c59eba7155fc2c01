"""The protocol of an optimiser's configuration: what `[optimizer]` builds for each player."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn


@runtime_checkable
class OptimizerConfig(Protocol):
    """An optimizer's protocol, its configuration: its options in the experiment file, and `build`."""

    def build(self, parameters: Iterable[nn.Parameter], /) -> torch.optim.Optimizer:
        """An optimizer's protocol: returns the one of one player's parameters."""
        ...


class NamedOptimizerConfig(Protocol):
    """An optimizer's protocol, its configuration, where `build` is given names too: `named_parameters` is True."""

    named_parameters: ClassVar[bool]

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]], /) -> torch.optim.Optimizer:
        """An optimizer's protocol: returns the one of a player's parameters, each with its name.

        A name begins with the player's: "encoder.layers.0.bias". torch's optimisers take such pairs as they are.
        """
        ...


def build_optimizer(config: Any, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """An optimizer's protocol: has the configuration build it, with names if it declares `named_parameters`."""
    with_names = getattr(config, "named_parameters", False)
    optimizer: torch.optim.Optimizer = config.build(named if with_names else (parameter for _, parameter in named))
    return optimizer


def parameters_of(player: str, network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """An optimizer's protocol: yields a player's parameters, each with its name, which begins with the player's.

    Frozen ones are left out.
    """
    return ((f"{player}.{name}", weight) for name, weight in network.named_parameters() if weight.requires_grad)
