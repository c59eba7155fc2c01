"""Quick dropout, against what dropout is: a binomial, its closed-form gradient, and torch's own for extreme shares."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from ganlab.nn.dropout import QuickDropout, use_quick_dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_values_are_kept_independently_with_probability_1_minus_p(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 999, requires_grad=True)
    out = QuickDropout(p)(x)
    kept = out != 0
    count = int(kept.sum())
    assert stats.binomtest(count, x.numel(), 1 - p).pvalue > 1e-3
    torch.testing.assert_close(out[kept], torch.full((count,), 1 / (1 - p)), rtol=1e-4, atol=0)
    # Four values share a draw of 64 bits: each of the sixteen ways in which they fall must be as frequent as it should.
    ways = (kept.flatten()[: 4 * (x.numel() // 4)].view(-1, 4).int() * torch.tensor([1, 2, 4, 8])).sum(1)
    share = [(1 - p) ** bin(way).count("1") * p ** (4 - bin(way).count("1")) for way in range(16)]
    wanted = torch.tensor(share, dtype=torch.float64) * len(ways)
    assert stats.chisquare(torch.bincount(ways, minlength=16), wanted / wanted.sum() * len(ways)).pvalue > 1e-3
    # The gradient of a value is what it was multiplied by.
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out.detach())


def test_the_mean_is_kept_for_probabilities_that_16_bits_cannot_hold() -> None:
    torch.manual_seed(0)
    p = 1 - 1.45 / 2**16
    out = QuickDropout(p)(torch.ones(2**24))
    assert float(out.mean()) == pytest.approx(1, abs=4 * (2**16 / 2**24) ** 0.5)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-7])
def test_at_the_edges_it_is_torchs(p: float) -> None:
    x = torch.randn(64, 3)
    torch.manual_seed(1)
    ours = QuickDropout(p)(x)
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout(p)(x))
    assert torch.equal(QuickDropout(0.5).eval()(x), x)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7, 2)])
def test_any_shape_and_dtype(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        out = QuickDropout(0.5)(torch.ones(shape, dtype=dtype))
        assert (out.shape, out.dtype) == (shape, dtype)
        assert set(out.flatten().tolist()) <= {0.0, 2.0}
    x = torch.ones(8, 8)
    assert QuickDropout(0.5, inplace=True)(x) is x
    assert 0 < int((x == 0).sum()) < 64


def test_a_network_keeps_its_state_and_its_other_layers() -> None:
    class Mine(nn.Dropout):
        """A plugin's own dropout is left alone."""

    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1, True), Mine(0.2)))
    names = list(network.state_dict())
    use_quick_dropout(network, torch.device("cpu"))
    drops = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [(type(d).__name__, d.p, d.inplace) for d in drops] == [
        ("QuickDropout", 0.3, False),
        ("QuickDropout", 0.1, True),
        ("Mine", 0.2, False),
    ]
    assert list(network.state_dict()) == names
    other = nn.Sequential(nn.Dropout(0.3))
    use_quick_dropout(other, torch.device("cuda"))
    assert type(other[0]) is nn.Dropout
