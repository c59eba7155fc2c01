"""Transfer of weights into a network by the names of its tensors: what fits is taken, layer by layer.

Decisions:
- A layer, a module with the tensors that it holds itself, is taken whole or not at all: a bias belongs to its weights,
  batch norm's statistics to its gain, and spectral norm's estimate to the matrix that it is of.
- A tensor fits if name and shape are equal, and if both are floating or neither is; other floating types are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from ganlab.utils.errors import ComponentError, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn

PARAMETRIZED = ".parametrizations."
"""In the name of a tensor, what follows its layer's where torch computes the layer's weight from others."""


@frozen
class Transferred:
    """What a transfer of weights has done: the layers that were taken, and why others begin anew, by name.

    The layer "" is the network itself.
    """

    taken: tuple[str, ...]
    left: Mapping[str, str]


def renamed(name: str, names: Mapping[str, str]) -> str:
    """The name that a tensor has where its weights are transferred from: its longest beginning in `names` is replaced.

    A beginning ends with a part: "a.1" is none of "a.10.weight". The replacement "" leaves the rest alone.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        beginning = ".".join(parts[:length])
        if beginning in names:
            return ".".join(filter(None, (names[beginning], *parts[length:])))
    return name


def transfer_weights(network: nn.Module, given: Mapping[str, Tensor]) -> Transferred:
    """Transfers given tensors into a network, in place, where a whole layer of it fits; all others stay as they are.

    `given` has the network's own names. Raises ComponentError for values that are not finite.
    """
    state = network.state_dict()
    layers: dict[str, list[str]] = {}
    for name in state:
        layers.setdefault(_layer_of(name), []).append(name)
    reasons = {
        layer: next(filter(None, (_misfit(name, state, given) for name in names)), "")
        for layer, names in layers.items()
    }
    taken = tuple(layer for layer, reason in reasons.items() if not reason)
    parameters = dict(network.named_parameters())
    for name in (name for layer in taken for name in layers[layer]):
        # A buffer may be a mask, which is infinite.
        if given[name].isnan().any() or (name in parameters and given[name].isinf().any()):
            raise ComponentError(f"{name}: its weights are not finite")
        state[name] = given[name]
    try:
        network.load_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:  # of a module's own way to load
        raise ComponentError(f"the weights cannot be loaded: {one_line(error)}") from error
    return Transferred(taken, {layer: reason for layer, reason in reasons.items() if reason})


def _layer_of(name: str) -> str:
    """The layer to transfer that a tensor belongs to, by its name."""
    head, mark, _ = name.partition(PARAMETRIZED)
    return head if mark else name.rpartition(".")[0]


def _misfit(name: str, state: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Why a tensor cannot be transferred, or nothing."""
    import torch

    own, short = state[name], name.removeprefix(f"{_layer_of(name)}.")
    if not isinstance(own, torch.Tensor):
        return f"{short} is no tensor"
    if name not in given:
        return f"there is no {short}"
    other = given[name]
    if own.shape != other.shape:
        return f"{short} is {_shape(own)} here and {_shape(other)} there"
    if own.is_floating_point() != other.is_floating_point():
        return f"{short} is {own.dtype} here and {other.dtype} there".replace("torch.", "")
    return ""


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
