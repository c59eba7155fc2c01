"""A check of a game's sampler before a run: what it draws, and the images that it makes of that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.nn.modes import eval_mode
from ganlab.protocols import ImageSpec, map_condition
from ganlab.utils.errors import InvalidRules


def check_sampled_images(sampler: NetworkSampler, images: ImageSpec, device: torch.device, condition: Any) -> None:
    """Checks that a sampler draws latents, and makes finite images of the data set's shape; raises InvalidRules."""
    count = 2
    with eval_mode(sampler):
        z: Any = draw_latents(sampler, count, torch.Generator().manual_seed(0))
        if not isinstance(z, Tensor) or z.shape[:1] != (count,):
            raise InvalidRules(
                f"game: its sampler's latents are {_words(z)} for a count of {count}; expected {count} rows"
            )
        made = sampler(z.to(device), map_condition(lambda part: part[:count], condition))
    wanted = (count, *images.shape)
    if not isinstance(made, Tensor) or tuple(made.shape) != wanted:
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InvalidRules(f"game: samples images of shape {shape}; the data set's are {wanted}")
    if not made.isfinite().all():
        raise InvalidRules("game: samples images that are not finite, before the first update; they cannot be scored")


def _words(z: Any) -> str:
    return f"of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
