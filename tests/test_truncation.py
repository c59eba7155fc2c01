"""Latents cut off at a distance from 0, held against scipy's truncated normal; what is drawn and scored with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from ganlab import UserError, load_run
from ganlab.evaluation import sampling
from ganlab.evaluation.latents import latents
from ganlab.run.records import read_records
from ganlab.run.sample_images import latent_walk
from stubs import CPU
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


def drawn(truncation: float | None, count: int = 20_000) -> Tensor:
    return latents(count, 1, torch.Generator().manual_seed(0), truncation)[:, 0]


@pytest.mark.parametrize("truncation", [1e-30, 0.04, 0.5, 1.0, 2.0, 9.0, 1e300])
def test_latents_are_of_the_truncated_normal(truncation: float) -> None:
    values = drawn(truncation).double().numpy()
    assert values.dtype == np.float64
    assert np.abs(values).max() <= truncation * (1 + 1e-7)
    # Beyond 9 nothing is cut off that could be drawn; and scipy computes nothing of tiny intervals, which are uniform.
    edge = min(truncation, 9.0)
    known = scipy.stats.uniform(-edge, 2 * edge) if edge < 1e-6 else scipy.stats.truncnorm(-edge, edge)
    assert scipy.stats.kstest(values, known.cdf).pvalue > 0.01
    assert values.std() == pytest.approx(known.std(), rel=0.02)


def test_a_smaller_truncation_is_the_same_latents_nearer_to_0() -> None:
    widths = [drawn(truncation) for truncation in (0.1, 0.5, 1.0, 3.0)]
    for nearer, farther in itertools.pairwise(widths):
        assert (nearer.abs() <= farther.abs()).all()
        assert (nearer.sign() == farther.sign()).all()
        assert nearer.std() < farther.std()


class Shows(nn.Module):
    """Images whose pixels are the latents, 0 in the middle."""

    latent_dim = 3

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        return (z / 4).clamp(-1, 1)[:, :, None, None]


@pytest.mark.parametrize("share", [None, (0, 200), (37, 150)])
def test_an_image_does_not_depend_on_how_many_are_drawn(share: tuple[int, int] | None) -> None:
    whole = torch.cat([images for images, _ in sampling.sample(Shows(), 300, 3, CPU, truncation=0.7)])
    first, end = share or (0, 5)
    part = torch.cat([i for i, _ in sampling.sample(Shows(), end, 3, CPU, share=share, truncation=0.7)])
    assert torch.equal(part, whole[first:end])
    assert (whole.float() / 127.5 - 1).abs().max() <= 0.7 / 4 + 1 / 127.5


@pytest.fixture
def run(table: dict, write: Write, ganlab: Command) -> Path:
    table["metric"] = [{"name": "fid", "samples": 100, "features": "pixels"}]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    return Path("r")


def test_samples_of_a_run_with_truncation(run: Path, ganlab: Command) -> None:
    loaded = load_run(run)
    spread = [loaded.sample(64, truncation=t).double().std(0).mean() for t in (0.01, 0.3, 1.0)]
    assert spread == sorted(spread)
    assert spread[0] < 1 < spread[-1]
    assert torch.equal(loaded.sample(64), loaded.sample(64, truncation=None))
    assert ganlab("sample", run, "--count", "9", "--seed", "4", "--truncation", "0.5", "--out", "s.npz")[0] == 0
    with np.load("s.npz") as arrays:
        assert np.array_equal(arrays["images"].transpose(0, 3, 1, 2), loaded.sample(9, seed=4, truncation=0.5).numpy())
    walk = [latent_walk(loaded, 16, 1, truncation=t)[0].double() for t in (1e-4, 1e-5, None)]
    assert torch.equal(walk[0], walk[1].expand_as(walk[0])), "so near to 0 all are the image of 0"
    assert walk[2].std(0).mean() > 0
    assert ganlab("sample", run, "--interpolate", "--truncation", "0.5", "--out", "walk.png")[0] == 0


@pytest.mark.parametrize("truncation", spread(3, ["0", "-0.5", "nan", "inf"]))
@pytest.mark.parametrize("command", ["sample", "eval"])
def test_what_nothing_can_be_cut_off_at_is_refused(run: Path, ganlab: Command, command: str, truncation: str) -> None:
    code, out, err = ganlab(command, run, f"--truncation={truncation}")
    assert (code, out) == (2, "")
    assert err.strip() == f"--truncation {truncation}: expected a finite number above 0, such as 0.5"
    with pytest.raises(UserError, match="expected a finite number above 0"):
        load_run(run).sample(1, truncation=float(truncation))


def test_a_truncated_score_says_so_and_no_other_does(run: Path, ganlab: Command) -> None:
    before = read_records(run / "metrics.jsonl")[-1]
    for arguments in ((), ("--truncation", "0.5")):
        assert ganlab("eval", run, *arguments)[0] == 0
    plain, cut = read_records(run / "metrics.jsonl")[-2:]
    assert (plain["value"], plain["protocol"]) == (before["value"], before["protocol"])
    assert "truncation" not in plain["protocol"]
    assert cut["protocol"] == plain["protocol"] | {"truncation": 0.5}
    assert cut["value"] != plain["value"]
    assert cut["floor"] == plain["floor"], "real images are not cut off"
