"""FID against files of moments: read, written and scored as pytorch-fid reads, writes and scores them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
from pytorch_fid import fid_score

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.digits import Digits
from ganlab_plugins.metrics import fid
from stubs import StubConfig, StubFeatures, an_evaluation, images

Command = Callable[..., tuple[int, str, str]]


def moments(seed: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(seed).normal(size=(200, dim))
    return rows.mean(0), np.cov(rows, rowvar=False)


def pytorch_fid(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of an argument that scipy no longer wants
        return float(fid_score.calculate_frechet_distance(*one, *other))


@pytest.fixture
def features() -> StubFeatures:
    return StubFeatures()


@pytest.mark.parametrize("also", [{}, {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3))}])
def test_a_score_against_published_moments_is_that_of_pytorch_fid(
    also: dict[str, np.ndarray], features: StubFeatures, tmp_path: Path
) -> None:
    """`also`: what ADM's files have besides."""
    mu, sigma = moments(1, features.dim)
    np.savez_compressed(tmp_path / "ref.npz", mu=mu.astype(np.float32), sigma=sigma, **also)
    evaluation = an_evaluation(tmp_path, images(40, 2), images(120, 1))
    metric = fid.FID(samples=120, moments=str(tmp_path / "ref.npz"), features=StubConfig(features))
    metric.prepare(evaluation)
    for _ in range(2):  # computed, and from the cache
        scores = metric.evaluate(evaluation)
        made = features(images(120, 1)).double().numpy()
        expected = pytorch_fid((mu.astype(np.float32), sigma), (made.mean(0), np.cov(made, rowvar=False)))
        assert scores.values["fid"] == pytest.approx(expected, rel=1e-6)
    digest = hashlib.sha256((tmp_path / "ref.npz").read_bytes()).hexdigest()
    assert scores.protocol["reference"] == {"moments": {"sha256": digest, "keys": ["mu", "sigma"]}}


def test_a_split_scores_as_its_own_moments(features: StubFeatures, tmp_path: Path) -> None:
    real = images(90, 3)
    rows = features(real).double().numpy()
    np.savez(tmp_path / "ref.npz", mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    evaluation = an_evaluation(tmp_path, real, images(100, 1))
    options = {"samples": 100, "features": StubConfig(features)}
    split = fid.FID(**options).evaluate(evaluation).values["fid"]
    file = fid.FID(**options, moments=str(tmp_path / "ref.npz")).evaluate(evaluation).values["fid"]
    assert file == pytest.approx(split, rel=1e-9)


def test_a_class_is_not_scored_against_the_moments_of_all(features: StubFeatures, tmp_path: Path) -> None:
    mu, sigma = moments(1, features.dim)
    np.savez(tmp_path / "ref.npz", mu=mu, sigma=sigma)
    evaluation = an_evaluation(tmp_path, images(20, 2), images(20, 1))
    of_a_class = attrs.evolve(evaluation, whole=evaluation)
    with pytest.raises(ComponentError, match="FID of single classes cannot be against moments"):
        fid.FID(moments=str(tmp_path / "ref.npz"), features=StubConfig(features)).evaluate(of_a_class)


def test_what_is_no_file_of_moments_is_refused(features: StubFeatures, tmp_path: Path) -> None:
    dim, file = features.dim, tmp_path / "ref.npz"
    mu, sigma = moments(1, dim)
    lopsided = sigma.copy()
    lopsided[0, 1] += 1
    cases = [
        ({"mean": mu, "cov": sigma}, r"has no array 'mu'; it has mean, cov"),
        ({"mu": np.zeros(dim + 1), "sigma": np.eye(dim + 1)}, rf"is of {dim + 1} features, and .* has {dim}: it is of"),
        ({"mu": mu, "sigma": sigma[:2]}, r"has mu \(\d+,\) and sigma \(2, \d+\); wanted \(d,\) and \(d, d\)"),
        ({"mu": mu, "sigma": sigma * np.nan}, "NaN or infinite"),
        ({"mu": mu, "sigma": lopsided}, "sigma is not symmetric"),
    ]
    evaluation = an_evaluation(tmp_path, images(20, 2), images(20, 1))
    metric = fid.FID(samples=20, moments=str(file), features=StubConfig(features))
    for arrays, expected in cases:
        np.savez(file, **arrays)
        with pytest.raises(ComponentError, match=expected):
            metric.prepare(evaluation)
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(ComponentError, match=r"ref\.npz: is no \.npz file"):
        metric.prepare(evaluation)
    file.unlink()
    with pytest.raises(ComponentError, match=r"ref\.npz: cannot be read as an \.npz file \(.*No such file"):
        metric.prepare(evaluation)


def test_the_command_writes_what_pytorch_fid_reads(ganlab: Command, tmp_path: Path) -> None:
    code, out, err = ganlab("moments", "digits", "--features", "pixels", "--out", "digits.npz")
    assert code == 0, err
    assert out == "moments of 64 features of 1,500 images: digits.npz\n"
    mu, sigma = fid_score.compute_statistics_of_path(str(tmp_path / "digits.npz"), None, 1, 64, "cpu")
    assert mu.shape == (64,)
    pixels = Digits().build(Places(tmp_path, tmp_path), "train").images.double().flatten(1).numpy() / 127.5 - 1
    assert np.abs(mu - pixels.mean(0)).max() < 1e-5
    assert np.abs(sigma - np.cov(pixels, rowvar=False)).max() < 1e-5
    for arguments, expected in (
        (("digits", "--out", "digits.csv"), "--out digits.csv: expected FILE.npz"),
        (("digts", "--out", "x.npz"), "digts: neither a data set nor a folder; did you mean 'digits'"),
    ):
        code, _, err = ganlab("moments", *arguments)
        assert code == 2
        assert expected in err
