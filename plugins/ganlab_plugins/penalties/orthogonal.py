"""Orthogonal regularisation of weights (Brock et al. 2017, arXiv:1609.07093; relaxed in BigGAN, arXiv:1809.11096)."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import Penalty, Register, Step, hookimpl


@frozen
class Orthogonal:
    """Orthogonal regularisation: `weight` times the sum over layers of the squared Frobenius norm of W W^T - I.

    W has a row for each output of a linear or convolutional layer. Embeddings and vectors are not included.

    weight: the factor (beta in the papers).
    player: the name of the network, or of a table, whose layers: "generator" as in BigGAN, "discriminator", another.
    diagonal: include the diagonal, which pulls the rows' norms to 1, as in the first paper, which however sums absolute
        values (the squares are BigGAN's); otherwise only the off-diagonal elements are penalised, as in BigGAN.
    every: add the term on every k-th update, times k.
    """

    weight: float = field(default=1e-4, validator=[ge(0), le(1e9)])
    player: str = "generator"
    diagonal: bool = False
    every: int = field(default=1, validator=[ge(1), le(10**12)])

    def penalty(self, step: Step) -> Tensor:
        return self.weight * torch.stack([self._of(weight) for weight in _matrices(step.trained)]).sum()

    def _of(self, weight: Tensor) -> Tensor:
        gram = weight @ weight.T
        identity = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        return (gram - (identity if self.diagonal else gram * identity)).square().sum()


def _matrices(network: nn.Module) -> list[Tensor]:
    """Each layer's weight as a matrix with a row an output; a transposed convolution has its outputs in dimension 1."""
    found = []
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            found.append(module.weight.transpose(0, 1).flatten(1))
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            found.append(module.weight.flatten(1))
    return found or [next(network.parameters()).new_zeros(1, 1)]


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("orthogonal", Orthogonal)
