"""The check of gradients by finite differences, against closed forms."""

from __future__ import annotations

import pytest
import torch

from ganlab.testing.check_result import Fault
from ganlab.testing.finite_differences import check_gradient


def test_differences_against_a_closed_form() -> None:
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)

    def right() -> torch.Tensor:
        return (x**3).sum()

    def rounded() -> torch.Tensor:
        return (x.float() ** 3).sum()

    def wrong() -> torch.Tensor:
        return (x * x.detach()).sum()

    def float32_only() -> torch.Tensor:
        return torch.nn.functional.linear(x, torch.ones(1, 2)).sum()

    assert check_gradient(right, [x], "it", "here") is None
    assert check_gradient(rounded, [x], "it", "here") is None
    with pytest.raises(Fault, match="the gradient of it is wrong"):
        check_gradient(wrong, [x], "it", "here")
    assert "the code does not support float64" in (check_gradient(float32_only, [x], "it", "here") or "")


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3)])
def test_leaves_of_any_shape(shape: tuple[int, ...]) -> None:
    """A gain is a number: a parameter without dimensions. An empty one has nothing that could be wrong."""
    gain = torch.full(shape, 0.5, dtype=torch.float64)

    def right() -> torch.Tensor:
        return (gain**3).sum()

    def wrong() -> torch.Tensor:
        return (gain * gain.detach()).sum()

    assert check_gradient(right, [gain], "it", "here") is None
    if gain.numel():
        with pytest.raises(Fault, match="the gradient of it is wrong"):
            check_gradient(wrong, [gain], "it", "here")
