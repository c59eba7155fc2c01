"""Networks under check, built with the condition that they take: class labels, images, or none.

A network declares no form of its condition. So it is called with each form in turn, and the first is taken for which it
does not fail; labels come first, since most data sets have them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganlab.plugin.failures import CatchPluginErrors
from ganlab.testing.fixed_inputs import ConditionShape, Shape, condition_shapes, data_spec, fixed_condition, fixed_noise
from ganlab.utils.errors import ComponentError
from ganlab.utils.rng import seed_everything


def network_inputs(network: Any, shape: Shape, count: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    """Returns a network's inputs in its check: latents where it has a `latent_dim`, else images in [-1, 1]."""
    latent_dim = getattr(network, "latent_dim", None)
    if latent_dim is not None:
        return fixed_noise(count, latent_dim, seed=seed, dtype=dtype)
    return torch.tanh(fixed_noise(count, *shape, seed=seed, dtype=dtype))


def find_condition(config: Any, shape: Shape, generates: bool) -> ConditionShape:
    """Finds the condition that the networks of `config` take with images of `shape`; class labels where all fail.

    No condition is found only for a network that refuses the others by ComponentError: one that fails for labels and
    works without has a fault.
    """
    refused = True
    for condition in condition_shapes(shape):
        if condition is None and not refused:
            break
        with CatchPluginErrors() as caught, torch.no_grad():
            seed_everything(0)
            network: nn.Module = config.build(data_spec(shape, condition))
            inputs = network_inputs(network if generates else None, shape, 2, torch.float32)
            network(inputs, fixed_condition(condition, 2))
        if caught.error is None:
            return condition
        refused &= isinstance(caught.error, ComponentError)
    return ()
