"""Scores and samples of a run that is sampled otherwise than it was: their protocol says how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganlab import UserError, load_run, to_uint8
from ganlab.data.npz import read_npz
from ganlab.run.records import read_records
from ganlab.run.sample_images import SampleRequest, write_samples
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

DIMMED = """
import ganlab
from attrs import frozen
from torch import nn

class Network(nn.Module):
    def __init__(self, latent_dim, psi, images):
        super().__init__()
        self.latent_dim, self.psi, self.images = latent_dim, psi, images
        self.layer = nn.Linear(latent_dim, images.channels * images.height * images.width)
    def forward(self, z, condition=None):
        i = self.images
        return self.psi * self.layer(z).tanh().unflatten(1, (i.channels, i.height, i.width))

@frozen
class Dimmed:
    latent_dim: int = 4
    psi: float = 1.0
    def build(self, images): return Network(self.latent_dim, self.psi, images)

@ganlab.hookimpl
def register_generators(register): register("dimmed", Dimmed)
"""


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> Path:
    (tmp_path / "dimmed.py").write_text(DIMMED)
    metric = {"name": "fid", "samples": 100, "features": "pixels"}
    table |= {"plugins": ["dimmed.py"], "generator": {"name": "dimmed"}, "metric": [metric]}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    return Path("r")


def rescored(ganlab: Command, run: Path, *arguments: str) -> dict[str, Any]:
    assert ganlab("eval", run, "--out", "scores.json", *arguments)[0] == 0
    (record,) = json.loads(Path("scores.json").read_text())
    return record


def test_an_override_of_what_is_sampled_is_in_the_protocol(run: Path, ganlab: Command) -> None:
    own = read_records(run / "metrics.jsonl")[-1]
    again = rescored(ganlab, run)
    assert (again["value"], again["protocol"]) == (own["value"], own["protocol"])
    other = rescored(ganlab, run, "--set", "generator.psi=0.5")
    assert other["value"] != own["value"]
    assert other["protocol"] == {**own["protocol"], "overrides": {"generator.psi": 0.5}}


@pytest.mark.parametrize(
    "override",
    spread(1, ["generator.psi=1.0", "generator.optimizer.lr=0.1", "train.batch_size=7", "loss.name=wasserstein"]),
)
def test_an_override_that_changes_no_image_leaves_the_protocol(run: Path, ganlab: Command, override: str) -> None:
    own = read_records(run / "metrics.jsonl")[-1]
    again = rescored(ganlab, run, "--set", override)
    assert (again["value"], again["protocol"]) == (own["value"], own["protocol"])


def test_scores_of_overrides_are_kept_apart(run: Path, table: dict[str, Any], write: Write, ganlab: Command) -> None:
    """Also from those of another run of the same experiment, where only `ganlab eval` has scored."""
    for name in ("plain", "dimmed"):
        assert ganlab("run", write(table), "--out", name, "--set", f"name={name}", "--set", "metric=[]")[0] == 0
    metric = ("--set", "metric=[{name='fid', samples=100, features='pixels'}]")
    assert ganlab("eval", "plain", *metric)[0] == 0
    assert ganlab("eval", "dimmed", *metric, "--set", "generator.psi=0.5")[0] == 0
    code, _, err = ganlab("compare", "plain", "dimmed")
    assert code == 2
    assert "fid: protocol.overrides differs: None (plain) against {'generator.psi': 0.5} (dimmed)" in err
    assert ganlab("compare", "plain", "dimmed", "--split")[0] == 0


def test_scores_per_class_have_the_overrides(run: Path, table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table |= {"discriminator": {"name": "mlp", "hidden": [16], "head": "projection"}}
    assert ganlab("run", write(table), "--out", "c")[0] == 0
    arguments = ("eval", "c", "--per-class", "--set", "generator.psi=0.5", "--out", "c.json")
    assert ganlab(*arguments, "--set", "metric.0.samples=20")[0] == 0
    for record in json.loads(Path("c.json").read_text()):
        assert record["protocol"]["overrides"] == {"generator.psi": 0.5}


def test_code_that_is_not_that_of_the_run_is_in_the_protocol(run: Path, ganlab: Command, tmp_path: Path) -> None:
    """The original and its copy are gone, and another file has the component's name."""
    own = read_records(run / "metrics.jsonl")[-1]
    (tmp_path / "dimmed.py").unlink()
    (copy,) = (run / "plugins").glob("*/dimmed.py")
    copy.unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dimmed.py").write_text(DIMMED.replace("self.psi *", "self.psi / 2 *"))
    other = rescored(ganlab, run, "--plugin", "other/dimmed.py")
    assert other["value"] != own["value"]
    assert other["protocol"].keys() - own["protocol"].keys() == {"code"}
    assert other["protocol"]["code"].keys() == {"generator.dimmed"}


def test_a_folder_of_samples_is_not_continued_with_other_options(run: Path) -> None:
    plain, other = load_run(run), load_run(run, overrides=["generator.psi=0.5"])
    assert not torch.equal(plain.sample(4), other.sample(4))
    write_samples(plain, SampleRequest(4, 0), Path("samples"))
    with pytest.raises(UserError, match=r"samples: holds other samples: changes was .*generator.psi"):
        write_samples(other, SampleRequest(4, 0), Path("samples"))
    write_samples(plain, SampleRequest(4, 0), Path("samples"))


PAIRS = """
import ganlab, torch
from attrs import frozen

@frozen
class Pairs:
    shade: int = 0
    def build(self, places, split):
        random = torch.Generator().manual_seed(len(split))
        images = torch.randint(0, 256, (40, 1, 8, 8), generator=random, dtype=torch.uint8)
        return ganlab.ImageDataset(images, "pairs", split, images // 2 + self.shade)

@ganlab.hookimpl
def register_datasets(register): register("pairs", Pairs)
"""


@pytest.fixture
def paired(table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> Path:
    """A run whose generator is given images."""
    (tmp_path / "pairs.py").write_text(PAIRS)
    (tmp_path / "dimmed.py").write_text(DIMMED.replace("return self.psi *", "return condition / 2 + 0.5 *"))
    table |= {"plugins": ["dimmed.py", "pairs.py"], "dataset": {"name": "pairs"}, "generator": {"name": "dimmed"}}
    table["metric"] = [{"name": "fid", "samples": 30, "features": "pixels"}]
    code, _, err = ganlab("run", write(table), "--out", "p")
    assert code == 0, err
    return Path("p")


def test_other_condition_images_are_in_the_protocol(paired: Path, ganlab: Command) -> None:
    own = read_records(paired / "metrics.jsonl")[-1]
    assert rescored(ganlab, paired)["protocol"] == own["protocol"]
    other = rescored(ganlab, paired, "--set", "dataset.shade=100")
    assert other["value"] != own["value"]
    assert other["protocol"].keys() - own["protocol"].keys() == {"conditions"}


def test_an_archive_of_samples_has_the_condition_images(paired: Path, ganlab: Command) -> None:
    """Of more than one batch; they are those of the data, and those that the samples were made for."""
    assert ganlab("sample", paired, "--count", 200, "--seed", 3, "--out", "p.npz")[0] == 0
    images, condition = load_run(paired).sample_with_condition(200, seed=3)
    assert condition is not None
    with np.load("p.npz") as arrays:
        assert list(arrays) == ["images", "condition"]
        assert arrays["condition"].dtype == np.uint8
        assert np.array_equal(arrays["images"], images.permute(0, 2, 3, 1).numpy())
        assert np.array_equal(arrays["condition"], to_uint8(condition).permute(0, 2, 3, 1).numpy())
        known = load_run(paired).conditions.known
        assert known is not None
        shown = {picture.tobytes() for picture in known.permute(0, 2, 3, 1).contiguous().numpy()}
        assert {picture.tobytes() for picture in arrays["condition"]} <= shown
    read = read_npz(Path("p.npz"))
    assert torch.equal(read[0], images)
    assert read[1] is not None
    assert torch.equal(read[1], to_uint8(condition))
    assert ganlab("sample", paired, "--interpolate", "--count", 24, "--out", "walk.npz")[0] == 0
    with np.load("walk.npz") as arrays:
        assert all((row == row[0]).all() for row in arrays["condition"].reshape(3, 8, -1))
    code, _, err = ganlab("score", "p.npz", "--against", "pairs", "--plugin", "pairs.py", "--features", "pixels")
    assert code == 0, err
