"""The comparison of states, of equal ones and of ones that differ in one entry."""

from __future__ import annotations

import torch

from ganlab.testing.state_comparison import first_difference


def test_where_states_differ() -> None:
    one = {"a": [torch.zeros(2), 1], "b": "text"}
    assert first_difference(one, {"a": [torch.zeros(2), 1], "b": "text"}) is None
    assert first_difference(one, {"a": [torch.ones(2), 1], "b": "text"}) == "a[0]"
    assert first_difference(one, {"a": [torch.zeros(2), 1.0], "b": "text"}) == "a[1]"
    assert first_difference(torch.tensor(torch.nan), torch.tensor(torch.nan)) is None
    assert first_difference(torch.zeros(2), torch.zeros(2, 1)) is not None
    assert first_difference(torch.tensor(torch.nan), torch.zeros(())) is not None
