"""The Wasserstein loss, against SciPy's distance where the critic is optimal, and a run that logs the estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import wasserstein_distance

from ganlab.run.records import read_records
from ganlab_plugins.losses.wasserstein import Wasserstein


def test_an_optimal_critic_on_the_line_gives_the_distance() -> None:
    """Of numbers that all lie under those of the other set, x -> x is an optimal 1-Lipschitz critic."""
    generator = torch.Generator().manual_seed(0)
    fake, real = torch.rand(50, generator=generator).double(), 1 + torch.rand(50, generator=generator).double()
    distance = wasserstein_distance(real.numpy(), fake.numpy())
    assert -Wasserstein().discriminator(real, fake).item() == pytest.approx(distance, rel=1e-12)
    assert Wasserstein().measures(real, fake)["wasserstein_distance"].item() == pytest.approx(distance, rel=1e-12)
    assert Wasserstein().generator(real, fake).item() == pytest.approx(-fake.mean().item())


def test_the_drift() -> None:
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([0.0, 2.0])
    assert Wasserstein(drift=0.001).discriminator(real, fake).item() == pytest.approx(1.0 - 1.0 + 0.001 * 5)


def test_the_distance_is_logged(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    table["loss"] = "wasserstein"
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    for record in read_records(Path("r/log.jsonl")):
        assert record["wasserstein_distance"] == pytest.approx(-record["loss_discriminator"], rel=1e-5)
