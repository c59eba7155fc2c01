"""The L2 norm of the generator's parameters as a term of its loss."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Penalty, Register, Step, hookimpl


@frozen
class L2Generator:
    """`weight` times the L2 norm of all generator parameters as one vector, or times its square.

    weight: the factor.
    squared: use the squared norm, which is weight decay as a loss term; the gradient of the norm has constant length.
    every: add the term on every k-th update, times k.
    player: the name of the network whose loss it is added to, or of a table; "generator" unless given.
    """

    weight: float = field(default=1e-5, validator=ge(0))
    squared: bool = False
    every: int = field(default=1, validator=[ge(1), le(10**12)])
    _player: str | None = None

    @property
    def player(self) -> str:
        return self._player or "generator"

    def penalty(self, step: Step) -> Tensor:
        norms = torch.stack([torch.linalg.vector_norm(p) for p in step.trained.parameters()])
        total = norms.square().sum() if self.squared else torch.linalg.vector_norm(norms)
        return self.weight * total


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("l2_generator", L2Generator)
