"""Initialises one network, in place, by `initialise` of its configuration: for a new run, and within other networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import attrs

from ganlab.protocols import NetworkConfig
from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor, nn


def initialise_network(config: NetworkConfig, network: nn.Module) -> None:
    """Initialises a network, in place, by its configuration, where that has a method `initialise`.

    The configuration of a network that wraps another calls it for that one. Raises ComponentError where the method
    replaces weights or buffers, or freezes weights: a checkpoint would not restore that.
    """
    method = getattr(config, "initialise", None)
    if method is None or "initialise" in attrs.fields_dict(cast("Any", type(config))):  # an option may have that name
        return
    initialise_by(method, network)


def initialise_by(method: Callable[[nn.Module], None], network: nn.Module) -> None:
    """Initialises a network, in place, by a method, with the checks of `initialise_network`."""
    import torch

    try:
        inspect.signature(method).bind(network)
    except TypeError:
        raise ComponentError("expected a method initialise(self, network)") from None
    before, trained = _tensors(network), {name: weight.requires_grad for name, weight in network.named_parameters()}
    modes = [(module, module.training) for module in network.modules()]
    with torch.no_grad():
        method(network)
    for module, mode in modes:
        module.training = mode
    after = _tensors(network)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) is not after.get(name):
            raise ComponentError(
                f"initialise has replaced {name!r} of the network; change weights in place, as load_state_dict does"
            )
    if any(weight.requires_grad is not trained[name] for name, weight in network.named_parameters()):
        raise ComponentError("initialise has frozen weights, or the reverse, which no checkpoint holds; do so in build")


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())
