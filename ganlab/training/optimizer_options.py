"""Scheduled options of optimisers, such as the learning rate: finding and setting them in `param_groups`.

An optimiser with several groups is built again with other values of the option, to see which groups it reaches: one may
have the option itself, one a multiple of it, one an option of its own that only happens to have the same value.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.schedule_targets import ScheduleTarget, with_option
from ganlab.protocols import OptimizerConfig, build_optimizer, parameters_of
from ganlab.training.update import Player
from ganlab.utils.capturable import make_capturable
from ganlab.utils.device import counts_updates


@frozen
class GroupOption:
    """An option of an optimiser in one of its `param_groups`: `factor` times the option's value; `index` in betas."""

    optimizer: torch.optim.Optimizer
    group: int
    name: str
    index: int | None = None
    factor: float = 1.0

    def set(self, value: float | Tensor) -> None:
        # Not on a group that was looked up before, because `load_state_dict` replaces these groups.
        group = self.optimizer.param_groups[self.group]
        if self.index is None:
            group[self.name] = value
        else:
            group[self.name] = (*group[self.name][: self.index], value, *group[self.name][self.index + 1 :])


def find_in_groups(
    target: ScheduleTarget,
    config: OptimizerConfig,
    path: Sequence[str],
    player: Player,
    others: Sequence[float],
) -> list[GroupOption]:
    """Finds the groups that a scheduled option of an optimiser reaches; none where it has no such option.

    `config`, which has the option at `path`, built the player's optimiser; `others` are other values that the option
    will have.
    Raises ValueError where a group's value is no multiple of the option's.
    """
    name, optimizer = path[0], player.optimizer
    index = int(path[1]) if len(path) > 1 else None
    found = [_option(group, name, index) for group in optimizer.param_groups]
    if found == [target.first]:
        return [GroupOption(optimizer, 0, name, index)]
    by_value = {target.first: found}
    for value in {*others} - {target.first}:
        again = build_optimizer(
            with_option(config, path, value), parameters_of(player.name, copy.deepcopy(player.network))
        )
        by_value[value] = [_option(group, name, index) for group in again.param_groups]
        if len(by_value[value]) != len(found):
            raise ValueError("the number of its param_groups depends on it")
    if len(by_value) == 1:  # the schedule changes nothing
        return [GroupOption(optimizer, n, name, index) for n, value in enumerate(found) if value == target.first]
    options = []
    for number in range(len(found)):
        values = {value: groups[number] for value, groups in by_value.items()}
        if len(set(values.values())) > 1:
            options.append(GroupOption(optimizer, number, name, index, _factor(values, number)))
    return options


def _option(group: dict[str, Any], name: str, index: int | None) -> Any:
    found = group.get(name)
    if index is None:
        return found
    return found[index] if isinstance(found, tuple | list) and index < len(found) else None


def _factor(values: dict[float, Any], number: int) -> float:
    """The factor of an option in one of an optimiser's groups, from the group's value for each of the option's."""
    value = max(values, key=abs)
    if all(isinstance(of_group, int | float) for of_group in values.values()):
        ratio = values[value] / value
        for factor in (float(f"{ratio:.12g}"), ratio):  # 0.1 gives the bits of the author's own product
            if all(abs(factor * one - of_group) <= 1e-9 * abs(of_group) for one, of_group in values.items()):
                return factor
    raise ValueError(f"the value in param_groups[{number}] is no multiple of it")


def option_setter(options: Sequence[GroupOption], tensor: Callable[[], Tensor] | None) -> Callable[[float], None]:
    """Optimiser options: returns a setter of one in its groups; with `tensor`, which makes one, they are tensors."""
    tensors = {option.factor: tensor() for option in options} if tensor is not None else {}

    def set_option(value: float) -> None:
        for factor, held in tensors.items():
            held.fill_(factor * value)
        for option in options:
            option.set(tensors[option.factor] if tensors else option.factor * value)

    return set_option


def learning_rate_tensor(device: torch.device) -> Tensor:
    """Returns a tensor for an optimiser's option `lr`: float32 on CUDA, where torch's fused optimisers need it."""
    return torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)


def accepts_tensor(config: OptimizerConfig, device: torch.device) -> bool:
    """Optimiser options: whether `lr` may be a tensor: an update with it must equal that with the number."""
    after = []
    for lr in (learning_rate_tensor(device).fill_(0.5), 0.5):
        weight = nn.Parameter(torch.ones(2, device=device))
        optimizer = build_optimizer(config, [("weight", weight)])
        if counts_updates(device):
            make_capturable(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = lr
        weight.grad = torch.ones_like(weight)
        try:
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):
            return False
        after.append(weight.detach())
    return torch.allclose(after[0], after[1])
