"""sFID held against pytorch-fid's Frechet distance of the same spatial features, and against files of moments."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import define
from pytorch_fid import fid_score
from torch import Tensor

from data_files import QUARTERS
from ganlab import ComponentError, Places
from ganlab_plugins.datasets.digits import Digits
from ganlab_plugins.metrics.sfid import SFID
from stubs import StubConfig, StubFeatures, an_evaluation, images


@define
class Located(StubFeatures):
    """Stub features with spatial ones: the upper half of an image."""

    spatial_dim: int = 8

    def spatial(self, images: Tensor) -> Tensor:
        return images[:, 0, :2].flatten(1).float() / 255


def test_the_score_is_the_frechet_distance_of_spatial_features(tmp_path: Path) -> None:
    features, real, fake = Located(), images(150, 1), images(120, 2) // 2
    metric = SFID(samples=120, features=StubConfig(features))
    evaluation = an_evaluation(tmp_path, real, fake)
    metric.prepare(evaluation)
    scores = metric.evaluate(evaluation)
    rows = [features.spatial(part).double().numpy() for part in (real, fake)]
    moments = [(part.mean(0), np.cov(part, rowvar=False)) for part in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        wanted = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
    assert scores.values["sfid"] == pytest.approx(wanted, rel=1e-5)
    assert scores.protocol["features"]["spatial"] == 8
    assert features.calls == 0
    mu, sigma = moments[0]
    np.savez(tmp_path / "ref.npz", mu=np.zeros(3), sigma=np.eye(3), mu_s=mu, sigma_s=sigma)
    published = SFID(samples=120, features=StubConfig(features), moments=str(tmp_path / "ref.npz"))
    published.prepare(evaluation)
    found = published.evaluate(evaluation)
    assert found.values["sfid"] == pytest.approx(wanted, rel=1e-5)
    assert found.protocol["reference"]["moments"]["keys"] == ["mu_s", "sigma_s"]


def test_what_has_no_spatial_features_is_refused(tmp_path: Path) -> None:
    evaluation = an_evaluation(tmp_path, images(20, 2), images(20, 1))
    with pytest.raises(ComponentError, match="'stub' have no spatial features, which sfid needs"):
        SFID(features=StubConfig(StubFeatures())).prepare(evaluation)
    np.savez(tmp_path / "ref.npz", mu=np.zeros(12), sigma=np.eye(12))
    metric = SFID(features=StubConfig(Located()), moments=str(tmp_path / "ref.npz"))
    with pytest.raises(ComponentError, match="has no array 'mu_s'; it has mu, sigma"):
        metric.prepare(evaluation)
    np.savez(tmp_path / "ref.npz", mu_s=np.zeros(9), sigma_s=np.eye(9))
    with pytest.raises(ComponentError, match="is of 9 features, and spatial stub has 8"):
        metric.prepare(evaluation)


def test_the_command_writes_moments_of_spatial_features(ganlab: Callable[..., Any], tmp_path: Path) -> None:
    Path("quarters.py").write_text(QUARTERS)
    given = ("moments", "digits", "--spatial", "--out", "ref.npz")
    code, _, err = ganlab(*given, "--features", "quarters", "--plugin", "quarters.py")
    assert code == 0, err
    pixels = Digits().build(Places(tmp_path, tmp_path), "train").images.double().numpy()
    quarters = pixels.reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, 4)
    with np.load("ref.npz") as found:
        assert set(found) == {"mu", "sigma", "mu_s", "sigma_s"}
        assert np.allclose(found["mu_s"], quarters.mean(0))
        assert np.allclose(found["sigma_s"], np.cov(quarters, rowvar=False))
    code, _, err = ganlab(*given, "--features", "pixels")
    assert code == 2
    assert "the features 'pixels' have no spatial features, which --spatial needs" in err
