"""Every score that torch-fidelity has too, held against it: the same images, the same file of (random) weights.

`pytest tests/plugins/metrics/test_parity.py --log-cli-level=INFO` prints the figures that stand in docs/metrics.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_fidelity
from attrs import define
from torch import Tensor

from ganlab.viz.image_grid import encode_png
from ganlab_plugins.features.inception import Inception, InceptionFeatures
from ganlab_plugins.metrics.fid import FID
from ganlab_plugins.metrics.inception_score import InceptionScore
from ganlab_plugins.metrics.kid import KID
from ganlab_plugins.metrics.precision_recall import PrecisionRecall
from stubs import StubConfig, an_evaluation, photos
from support import computed_once

COUNT, SEED, SUBSETS, SUBSET_SIZE, SPLITS = 16, 2020, 10, 12, 3
REAL = photos(COUNT, 1)
# Part of the generated images lie near real ones, so that precision and recall are neither 0 nor 1.
FAKE = torch.cat([REAL[:8] // 8 * 8, photos(COUNT - 8, 2) // 4])

METRICS = {
    "fid": (FID, {}),
    "kid": (KID, {"subsets": SUBSETS, "subset_size": SUBSET_SIZE}),
    "inception_score": (InceptionScore, {"splits": SPLITS}),
    "precision_recall": (PrecisionRecall, {}),
}
pytestmark = [pytest.mark.extended, pytest.mark.large, pytest.mark.xdist_group("parity")]

PAIRS = {
    "fid": ("fid", "frechet_inception_distance"),
    "kid": ("kid", "kernel_inception_distance_mean"),
    "kid_std": ("kid", "kernel_inception_distance_std"),
    "inception_score": ("inception_score", "inception_score_mean"),
    "inception_score_std": ("inception_score", "inception_score_std"),
    "precision": ("precision_recall", "precision"),
    "recall": ("precision_recall", "recall"),
}


@define
class Images(torch.utils.data.Dataset):
    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


@pytest.fixture(scope="module")
def theirs(weights: Path, shared_folder: Path) -> Mapping[str, float]:
    return computed_once(shared_folder / "torch_fidelity.json", lambda: of_torch_fidelity(weights))


def of_torch_fidelity(weights: Path) -> Mapping[str, float]:
    return torch_fidelity.calculate_metrics(
        input1=Images(FAKE),
        input2=Images(REAL),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        feature_extractor="inception-v3-compat",  # for precision and recall its default is VGG-16
        feature_extractor_weights_path=str(weights),
        kid_subsets=SUBSETS,
        kid_subset_size=SUBSET_SIZE,
        isc_splits=SPLITS,
        rng_seed=SEED,
        cuda=False,
        cache=False,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
    )


class Remembering:
    """Inception's features, computed once for each batch, because four metrics ask for the same ones."""

    def __init__(self, features: InceptionFeatures) -> None:
        self.features = features
        self.known: dict[bytes, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.features, name)

    def __call__(self, images: Tensor, /) -> Tensor:
        key = images.numpy().tobytes()
        if key not in self.known:
            self.known[key] = self.features(images)
        return self.known[key]


@pytest.fixture(scope="module")
def ours(
    weights: Path, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Mapping[str, float]]:
    places = tmp_path_factory.mktemp("places")
    return computed_once(shared_folder / "scores.json", lambda: of_ganlab(weights, places))


def of_ganlab(weights: Path, places: Path) -> Mapping[str, Mapping[str, float]]:
    evaluation = an_evaluation(places, REAL, FAKE)
    features = StubConfig(Remembering(Inception(str(weights)).build(evaluation)))
    return {
        name: metric(samples=COUNT, seed=SEED, features=features, **options).evaluate(evaluation).values
        for name, (metric, options) in METRICS.items()
    }


@pytest.mark.parametrize("value", PAIRS)
def test_the_score_is_torch_fidelitys(value, ours, theirs):
    metric, name = PAIRS[value]
    got, wanted = ours[metric][value], theirs[name]
    logging.info("%s: ganlab %.8g, torch-fidelity %.8g, difference %.1e", value, got, wanted, abs(got / wanted - 1))
    assert got == pytest.approx(wanted, rel=1e-4)


def test_the_command_scores_folders_as_torch_fidelity_does(weights, theirs, tmp_path, ganlab):
    for name, pictures in (("made", FAKE), ("real", REAL)):
        (tmp_path / name).mkdir()
        for index, picture in enumerate(pictures):
            (tmp_path / name / f"{index:02}.png").write_bytes(encode_png(picture))
    options = {0: {}, 1: METRICS["kid"][1], 2: METRICS["inception_score"][1], 3: {}}
    sets = [f"metric.{place}.{key}={value}" for place in options for key, value in options[place].items()]
    sets += [f"metric.{place}.seed={SEED}" for place in options] + [f"features.weights={weights}"]
    metrics = [argument for name in METRICS for argument in ("--metric", name)]
    code, out, err = ganlab(
        "score", "made", "--against", "real", *metrics, *(a for s in sets for a in ("--set", s)), "--json"
    )
    assert code == 0, err
    found = {record["name"]: record["value"] for record in json.loads(out)}
    for value, (_, name) in PAIRS.items():
        assert found[value] == pytest.approx(theirs[name], rel=1e-4)


def test_the_figures_are_such_that_a_wrong_score_would_show(theirs):
    assert theirs["frechet_inception_distance"] > 0.1
    assert theirs["kernel_inception_distance_mean"] > 0.01
    assert theirs["kernel_inception_distance_std"] > 1e-3
    assert theirs["inception_score_mean"] > 1.02
    assert theirs["inception_score_std"] > 1e-3
    assert 0 < theirs["precision"] != theirs["recall"] > 0
    assert max(theirs["precision"], theirs["recall"]) < 1
