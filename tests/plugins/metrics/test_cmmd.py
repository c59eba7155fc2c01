"""CMMD held against the formula of its paper and its authors' code, over all pairs, with scikit-learn's kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from ganlab_plugins.metrics import cmmd
from stubs import StubConfig, StubFeatures, an_evaluation, images


def as_published(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
    """The biased estimate (equation 5 of Gretton et al. 2012), which has the kernel of an image and itself."""
    gamma = 1 / (2 * sigma**2)
    return 1000 * (rbf_kernel(a, a, gamma).mean() + rbf_kernel(b, b, gamma).mean() - 2 * rbf_kernel(a, b, gamma).mean())


def test_the_protocol_tells_any_two_bandwidths_apart() -> None:
    written = {10.0: "10", 0.5: "0.5", 1234567.0: "1234567.0", 1.0000001: "1.0000001"}
    assert {sigma: cmmd._exact(sigma) for sigma in written} == written


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("sigma", [10.0, 0.5])
def test_the_score_is_the_papers_formula(
    normalize: bool, sigma: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cmmd, "ROWS", 64)  # several blocks of pairs, the last one smaller
    real, fake = images(150, 1), images(100, 2) // 2
    metric = cmmd.CMMD(samples=100, features=StubConfig(StubFeatures()), sigma=sigma, normalize=normalize)
    scores = metric.evaluate(an_evaluation(tmp_path, real, fake))
    rows = [StubFeatures()(part).double().numpy() for part in (real, fake)]
    if normalize:
        rows = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rows]
    wanted = as_published(*rows, sigma)
    assert wanted > 0.1
    assert scores.values["cmmd"] == pytest.approx(wanted, rel=1e-5)
    assert scores.protocol["features"]["unit_length"] is normalize
    assert f"{sigma:g}^2" in scores.protocol["kernel"]


def test_equal_sets_have_no_distance() -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(cmmd.squared_mmd(rows, rows.flip(0), 10.0)) == pytest.approx(0, abs=1e-15)
