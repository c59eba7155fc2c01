"""`Codebook`: discrete codes for networks, each vector replaced by the nearest code (van den Oord et al. 2017, VQ-VAE).

arXiv:1711.00937. Gradients pass straight through to the encoder. The codes follow the vectors by gradient, as in
equation 3, and a commitment keeps the vectors near their codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


class Codebook(nn.Module):
    """A codebook of `codes` vectors of size `dim`, which start uniform in [-1 / codes, 1 / codes]."""

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(codes, dim).uniform_(-1 / codes, 1 / codes))

    def forward(self, vectors: Tensor, commitment: float | Tensor = 0.25) -> tuple[Tensor, Tensor]:
        """Replaces vectors (N, dim, …) by their nearest codes; returns these and the codebook's loss, a scalar.

        The loss is the mean squared distance, by which the codes move, and `commitment` times the same, by which the
        vectors do.
        """
        flat = vectors.movedim(1, -1)
        nearest = embedding(self.nearest(vectors), self.codes)
        loss = (nearest - flat.detach()).square().mean() + commitment * (nearest.detach() - flat).square().mean()
        return (flat + (nearest - flat).detach()).movedim(-1, 1), loss

    def nearest(self, vectors: Tensor) -> Tensor:
        """The indices of the codebook's codes nearest to vectors (N, dim, …): int64 (N, …)."""
        flat = vectors.detach().movedim(1, -1)
        # Of the squared distance without the vector's own square, which is the same for all codes.
        return (self.codes.square().sum(1) - 2 * flat @ self.codes.T).argmin(-1)
