"""Moments of features, the mean and covariance that FID compares; plugins import this, so it does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def moments_of(rows: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Computes the moments of batches of features (n, d): mean (d,) and unbiased covariance (d, d), float64."""
    import torch

    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for row in rows:
        features = row.double()
        count += len(features)
        total = total.to(features) + features.sum(0)
        products = products.to(features) + features.T @ features
    mean = total / count
    return mean, (products - count * mean.outer(mean)) / (count - 1)
