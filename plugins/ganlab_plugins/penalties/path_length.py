"""Path length regularisation of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).

A step of fixed length in latent space should change the generated image by the same amount everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import field, frozen
from attrs.validators import ge, le, lt
from torch import Tensor

from ganlab import ComponentError, Penalty, Register, Step, hookimpl, latent_dim_of


@frozen
class PathLength:
    """Path length: `weight` times the mean of (|J^T y| - a)^2, where a is the running mean of |J^T y| so far.

    J is the Jacobian of the generated image with respect to its latent, y is noise of the image's shape with standard
    deviation 1 / sqrt(height * width). New latents are drawn, standard normal ones in every game. In the paper they are
    the outputs of StyleGAN's mapping network, here the generator's input. As in the paper, a starts at 0; it is the
    mean before this update, where the authors' code has the one after it. The forward pass is in training mode: with
    batch norm an image depends on the other latents too, and the gradient of the sum over the batch is taken, as usual.

    weight: the factor (2 in the paper's code).
    decay: the decay of the running mean a per update.
    batch_shrink: divide the batch size by this, as the paper does to save memory; at least two images are used.
    every: add the term on every k-th update, times k.
    player: the name of the network whose loss it is added to, or of a table; "generator" unless given.
    """

    weight: float = field(default=2.0, validator=[ge(0), le(1e9)])
    decay: float = field(default=0.99, validator=[ge(0), lt(1)])
    batch_shrink: int = field(default=2, validator=[ge(1), le(10**6)])
    every: int = field(default=4, validator=[ge(1), le(10**12)])
    _player: str | None = None
    _state: dict[str, Tensor] = field(init=False, eq=False, repr=False, factory=lambda: {"a": torch.zeros(())})

    @property
    def player(self) -> str:
        return self._player or "generator"

    def penalty(self, step: Step) -> Tensor:
        lengths = self._lengths(step)
        # In the first step it moves to the images' device; afterwards it remains the same tensor.
        a = self._state["a"] = self._state["a"].to(lengths.device)
        term = self.weight * (lengths - a).square().mean()
        a.lerp_(step.mean_of_all(lengths.mean()).to(a.dtype), 1 - self.decay)
        return term

    def _lengths(self, step: Step) -> Tensor:
        # Batch norm needs at least two images.
        count = min(len(step.fake), max(2, len(step.fake) // self.batch_shrink))
        latent_dim = latent_dim_of(step.networks[step.generated_by])
        if not latent_dim:
            raise ComponentError(f"path_length: {step.generated_by} has no latents (latent_dim = 0)")
        z = torch.randn(count, latent_dim, device=step.fake.device, dtype=step.fake.dtype).requires_grad_()
        # Autocast would also apply to the backward pass, which is computed here.
        with torch.autocast(z.device.type, enabled=False):
            images = step.generate(z)
            noise = torch.randn_like(images) / math.sqrt(math.prod(images.shape[2:]))
            (gradient,) = torch.autograd.grad((images * noise).sum(), z, create_graph=True)
        lengths: Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return lengths

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._state["a"].copy_(state["a"])


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("path_length", PathLength)
