"""Latents and conditions between two others: what images change smoothly by from one sample to another.

Decisions:
- Between normal latents it is spherical interpolation, and linear between all others, such as styles and codes: normal
  latents lie near a sphere, which a straight line leaves (White 2016, arXiv:1609.04468).
- Between two classes it is what networks make of labels first, their embedding or one-hot vector, that is blended. No
  network has to know of it. One that uses labels otherwise is found out by a trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, one_hot
from torch.overrides import TorchFunctionMode

from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.nn.modes import eval_mode
from ganlab.protocols.condition import Condition

FIRST, SECOND, ALONG = "first label", "second label", "along"
"""The names of what a `BlendingSampler` is given as conditions."""


def has_normal_latents(network: nn.Module) -> bool:
    """Whether a sampler's latents are standard normal, as drawn: between them interpolation is spherical."""
    drawn = draw_latents(network, 2, torch.Generator().manual_seed(0))
    return torch.equal(drawn, torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0)))


def latents_between(first: Tensor, second: Tensor, along: Tensor, spherical: bool) -> Tensor:
    """Latents (n, …) between others (n, …), at shares `along` (n,) of the way from the first, 0, to the second, 1.

    Between equal and between opposite latents, which no single arc joins, it is linear.
    """
    one, other = first.flatten(1), second.flatten(1)
    share = along.to(one.dtype)[:, None]
    straight = one.lerp(other, share)
    if not spherical:
        return straight.view(first.shape)
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=-1).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine)
    arc = (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * other) / torch.sin(angle)
    return torch.where(torch.sin(angle) > 1e-3, arc, straight).view(first.shape)


class BlendedLabels(TorchFunctionMode):
    """While it is active, what is looked up for the labels `first` (n,) is between that and what `second` has.

    `along` (n,) are the shares of the way, 0 to 1. What is looked up are embeddings and one-hot vectors.
    """

    def __init__(self, first: Tensor, second: Tensor, along: Tensor) -> None:
        super().__init__()
        self.first, self.second, self.along = first, second, along

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in (embedding, one_hot) or not args or not self._are_labels(args[0]):
            return made
        other = func(self.second.to(args[0].dtype), *args[1:], **(kwargs or {}))
        share = self.along.to(made.device).view(-1, *[1] * (made.ndim - 1))
        return made.lerp(other, share.to(made.dtype)) if made.is_floating_point() else made + share * (other - made)

    def _are_labels(self, given: Any) -> bool:
        return isinstance(given, Tensor) and given.shape == self.first.shape and bool((given == self.first).all())


class BlendingSampler(NetworkSampler):
    """A sampler whose class labels may be between two classes: a mapping of `FIRST`, `SECOND` and `ALONG`, (n,) each.

    Other conditions are as those of any sampler.
    """

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        if not (isinstance(condition, Mapping) and {*condition} == {FIRST, SECOND, ALONG}):
            return super().forward(z, condition)
        with BlendedLabels(condition[FIRST], condition[SECOND], condition[ALONG]):
            return super().forward(z, condition[FIRST])

    @classmethod
    def of(cls, sampler: NetworkSampler) -> BlendingSampler:
        """Returns a sampler of the same networks that takes labels between two classes."""
        networks: Any = sampler.networks
        return cls(sampler.sampler, networks, sampler.dtype, sampler.options)

    def blends(self, z: Tensor, first: Tensor, second: Tensor) -> bool:
        """Whether labels can be blended: at the end of the way from `first` (n,) images are those of `second` (n,)."""
        with eval_mode(self):
            made = self(z, {FIRST: first, SECOND: second, ALONG: torch.ones_like(z.flatten(1)[:, 0])})
            return torch.allclose(made, self(z, second), atol=1e-4, rtol=1e-3)
