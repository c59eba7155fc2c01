"""Scheduled options of optimisers, such as the learning rate: finding and setting them in `param_groups`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ganlab.protocols import OptimizerConfig
from ganlab.training import cuda_graphs


def has_option(optimizer: torch.optim.Optimizer, name: str, index: int | None, value: float) -> bool:
    """Whether an optimiser has this option with that value in all its `param_groups`; `index` is one in betas."""
    for group in optimizer.param_groups:
        found = group.get(name)
        if index is not None:
            found = found[index] if isinstance(found, tuple | list) and index < len(found) else None
        if found != value:
            return False
    return True


def option_setter(
    optimizers: Sequence[torch.optim.Optimizer], name: str, index: int | None, tensor: Tensor | None
) -> Callable[[float], None]:
    """Optimiser options: returns a setter of one in `param_groups`; with `tensor`, the option is that tensor."""

    def set_option(value: float) -> None:
        if tensor is not None:
            tensor.fill_(value)
        # Each time, because `load_state_dict` replaces these groups.
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            if index is None:
                group[name] = value if tensor is None else tensor
            else:
                group[name] = (*group[name][:index], value, *group[name][index + 1 :])

    return set_option


def learning_rate_tensor(device: torch.device) -> Tensor:
    """Returns a tensor for an optimiser's option `lr`: float32 on CUDA, where torch's fused optimisers need it."""
    return torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)


def accepts_tensor(config: OptimizerConfig, device: torch.device) -> bool:
    """Optimiser options: whether `lr` may be a tensor: an update with it must equal that with the number."""
    after = []
    for lr in (learning_rate_tensor(device).fill_(0.5), 0.5):
        weight = nn.Parameter(torch.ones(2, device=device))
        optimizer = config.build([weight])
        if device.type == "cuda":
            cuda_graphs.make_capturable(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = lr
        weight.grad = torch.ones_like(weight)
        try:
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):
            return False
        after.append(weight.detach())
    return torch.allclose(after[0], after[1])
