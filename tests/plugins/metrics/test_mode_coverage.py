"""Mode coverage, held against scipy's entropy, rings whose missing modes are known, and data scored against itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import define
from scipy import stats
from torch import Tensor

from ganlab import ComponentError, Evaluation, ImageDataset, Places, tensors_sha256
from ganlab_plugins.datasets.gaussians import Grid, Ring
from ganlab_plugins.features.pixels import Pixels
from ganlab_plugins.metrics.mode_coverage import OF_NO_CLASS, UNDEFINED, ModeCoverage, coverage
from stubs import StubConfig, StubFeatures

NOWHERE = Places(Path("/nowhere"), Path("/nowhere"))


@define
class OfLevel(StubFeatures):
    """Tells the class of an image by its first pixel, of `classes` that there are; `unsure` replaces a logit."""

    classes: int = 4
    unsure: float = 0.0

    def logits(self, images: Tensor) -> Tensor:
        logits = torch.nn.functional.one_hot(images[:, 0, 0, 0].long() % self.classes, self.classes).float()
        logits[images[:, 0, 0, 1] == 255, 0] += self.unsure
        return logits


@define
class OrOfNone(OfLevel):
    """An image whose second pixel is less than 100 is of no class."""

    def belongs(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 1] >= 100


def pictures(classes: list[int], second: int = 200) -> Tensor:
    """An image (1, 1, 2) for each class: the class, and the second pixel."""
    return torch.tensor([[label, second] for label in classes], dtype=torch.uint8).reshape(-1, 1, 1, 2)


def labelled(labels: list[int], classes: tuple[str, ...] = ()) -> ImageDataset:
    return ImageDataset(pictures(labels), "levels", "train", torch.tensor(labels), classes)


def an_evaluation(folder: Path, dataset: ImageDataset | Callable[[str], ImageDataset], made: Tensor) -> Evaluation:
    def generated(count: int, seed: int) -> Iterator[Tensor]:
        yield from made[:count].split(64)

    return Evaluation(
        generated=generated,
        dataset=dataset if callable(dataset) else lambda split: dataset,
        device=torch.device("cpu"),
        places=Places(folder / "data", folder / "cache"),
        progress=lambda what, done, total: None,
    )


def metric(features: object, **options: object) -> ModeCoverage:
    return ModeCoverage(features=StubConfig(features), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_the_divergence_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    expected = random.dirichlet(np.ones(30))
    classes = random.integers(0, random.integers(1, 31), 200)
    modes, kl, share = coverage(torch.from_numpy(classes), torch.from_numpy(expected))
    counts = np.bincount(classes, minlength=30)
    assert modes == len(set(classes.tolist()))
    assert kl == pytest.approx(stats.entropy(counts, expected), rel=1e-12)
    assert share == 1


def test_its_extremes() -> None:
    even = torch.full((10,), 0.1, dtype=torch.float64)
    every = torch.arange(10).repeat(7)
    assert coverage(every, even) == (10, pytest.approx(0, abs=1e-12), 1)
    assert coverage(torch.full((70,), 3), even) == (1, pytest.approx(math.log(10)), 1), "one mode of ten"
    assert coverage(every[every < 5], even) == (5, pytest.approx(math.log(2)), 1), "half of the modes, evenly"
    none = torch.full((70,), OF_NO_CLASS)
    modes, kl, share = coverage(none, even)
    assert (modes, share) == (0, 0)
    assert math.isnan(kl), "there are no frequencies"
    half = coverage(torch.cat([every, none]), even)
    assert half == (10, pytest.approx(0, abs=1e-12), 0.5), "what is of no class changes no frequency"
    assert all(math.isnan(value) for value in coverage(torch.tensor([0, UNDEFINED, 1]), even))


def test_classes_are_counted_and_compared_with_those_of_the_labels(tmp_path: Path) -> None:
    dataset = labelled([0, 0, 0, 1, 1, 2, 2, 3])
    scores = metric(OfLevel()).evaluate(an_evaluation(tmp_path, dataset, pictures([0, 0, 1, 3, 3, 3])))
    assert scores.values == {"modes": 3, "mode_kl": pytest.approx(stats.entropy([2, 1, 0, 3], [3, 2, 2, 1]))}
    assert scores.better == {"modes": "higher", "mode_kl": "lower"}


def test_images_of_no_class_count_for_no_mode(tmp_path: Path) -> None:
    dataset = labelled([0, 0, 0, 1, 1, 2, 2, 3])
    made = torch.cat([pictures([0, 0, 1, 3, 3, 3]), pictures([2, 2, 1, 0], second=50)])
    scores = metric(OrOfNone()).evaluate(an_evaluation(tmp_path, dataset, made))
    assert scores.values == {
        "modes": 3,
        "mode_kl": pytest.approx(stats.entropy([2, 1, 0, 3], [3, 2, 2, 1])),
        "high_quality": 0.6,
    }
    assert scores.better["high_quality"] == "higher"
    alone = metric(OrOfNone()).evaluate(an_evaluation(tmp_path, dataset, made[6:])).values
    assert (alone["modes"], alone["high_quality"]) == (0, 0)
    assert math.isnan(alone["mode_kl"])


@pytest.mark.parametrize("config", [Ring(count=20_000), Grid(count=20_000)], ids=["ring", "grid"])
def test_fresh_points_of_the_data_reach_every_mode(config: Ring | Grid, tmp_path: Path) -> None:
    """2,500 points of the other split: the divergence of N points of K classes is (K - 1) / 2N in the mean."""
    fresh = config.build(NOWHERE, "test").images
    evaluation = an_evaluation(tmp_path, lambda split: config.build(NOWHERE, split), fresh)
    found = ModeCoverage(samples=2500, features=Pixels()).evaluate(evaluation).values
    classes = len(config.centres)
    assert found["modes"] == classes
    assert found["mode_kl"] < 4 * (classes - 1) / 5000
    assert found["high_quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.01)


@pytest.mark.parametrize("missing", [{3}, {0, 2, 4, 6}, {1, 2, 3, 4, 5, 6, 7}])
def test_a_ring_with_missing_modes(missing: set[int], tmp_path: Path) -> None:
    """Without `missing` of 8 even modes the divergence is log(8 / there), and points in the middle are not a mode."""
    train, test = (Ring().build(NOWHERE, split) for split in ("train", "test"))
    there = 8 - len(missing)
    kept = test.images[~torch.isin(test.condition, torch.tensor(sorted(missing)))][:2000]
    middle = torch.full((500, 2, 1, 1), 128, dtype=torch.uint8)
    evaluation = an_evaluation(tmp_path, train, torch.cat([kept, middle]))
    found = ModeCoverage(samples=2500, features=Pixels()).evaluate(evaluation).values
    assert found["modes"] == there
    assert found["mode_kl"] == pytest.approx(math.log(8 / there), abs=0.015)
    assert found["high_quality"] == pytest.approx(0.8 * (1 - math.exp(-4.5)), abs=0.01)


def test_points_between_modes_are_of_none(tmp_path: Path) -> None:
    """A generator that draws lines between modes has the classes' frequencies, and hardly a mode."""
    ring = Ring()
    angles = torch.linspace(0, 2 * math.pi, 2501)[:-1]
    circle = torch.stack([angles.cos(), angles.sin()], 1) / ring.scale
    made = ((circle + 1) * 127.5).round().to(torch.uint8)[:, :, None, None]
    found = ModeCoverage(samples=2500, features=Pixels()).evaluate(
        an_evaluation(tmp_path, ring.build(NOWHERE, "train"), made)
    )
    # Three standard deviations, as rounding leaves them, are 0.0309 along the circle to both sides of each mode.
    assert found.values["high_quality"] == pytest.approx(8 * 2 * 0.0309 / (2 * math.pi), abs=0.01)
    assert found.values["modes"] == 8


@pytest.mark.parametrize("unsure", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_score_nan(unsure: float, tmp_path: Path) -> None:
    made = torch.cat([pictures([0, 1, 2, 3] * 30), pictures([1], second=255)])
    values = metric(OfLevel(unsure=unsure)).evaluate(an_evaluation(tmp_path, labelled([0, 1, 2, 3]), made)).values
    assert list(values) == ["modes", "mode_kl"]
    assert all(math.isnan(value) for value in values.values())


def refusals() -> Iterator[tuple[str, ModeCoverage, ImageDataset, str]]:
    good = labelled([0, 1, 2, 3])
    plain = ImageDataset(good.images, "levels", "train")
    yield "unlabelled", metric(OfLevel()), plain, r"needs class labels, and levels \(train\) has none"
    pairs = ImageDataset(good.images, "levels", "train", good.images)
    yield "image conditions", metric(OfLevel()), pairs, r"needs class labels, and levels \(train\) has none"
    yield "no logits", metric(StubFeatures()), good, "'stub' have no class logits, which mode_coverage needs"
    yield "too few logits", metric(OfLevel(classes=3)), good, "the data's 4 classes; 'stub' have 3 classes"
    yield "too many logits", metric(OfLevel(classes=1000)), good, "the data's 4 classes; 'stub' have 1000 classes"
    gap = labelled([0, 1, 3])
    yield "a gap", metric(OfLevel()), gap, r"of the 4 classes of levels \(train\) 1 have none, such as class 2"
    named = labelled([0, 1], classes=tuple("abcd"))
    yield "named", metric(OfLevel()), named, r"of the 4 classes of levels \(train\) 2 have none, such as class 2"
    dim = ImageDataset(pictures([0, 1, 2, 3, 0], 50), "levels", "train", torch.tensor([0, 1, 2, 3, 0]))
    yield (
        "of no class",
        metric(OrOfNone()),
        dim,
        r"only 0.0% of the images of levels \(train\) itself belong to a class",
    )
    digits = torch.arange(64).reshape(8, 8).repeat(40, 1, 1)[:, None] * 3
    noisy = (digits + torch.randint(0, 60, digits.shape, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    many = ImageDataset(noisy, "pictures", "train", torch.arange(40) % 2)
    yield (
        "many pixels",
        ModeCoverage(features=Pixels()),
        many,
        "only 0.0% of the images of .* itself belong to a class by .* 'pixels'",
    )


REFUSALS = {name: rest for name, *rest in refusals()}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_counted_is_refused_before_training(name: str, tmp_path: Path) -> None:
    refused, dataset, words = REFUSALS[name]
    evaluation = an_evaluation(tmp_path, dataset, dataset.images)
    for attempt in (refused.prepare, refused.evaluate):
        with pytest.raises(ComponentError, match=words) as caught:
            attempt(evaluation)
        assert "\n" not in str(caught.value)


def test_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="there is no generated image to score"):
        metric(OfLevel()).evaluate(an_evaluation(tmp_path, labelled([0, 1, 2, 3]), pictures([])))


def test_what_belongs_must_be_a_bool_an_image(tmp_path: Path) -> None:
    class Wrong(OrOfNone):
        def belongs(self, images: Tensor) -> Tensor:
            return super().belongs(images).float()

    with pytest.raises(ComponentError, match=r"belongs of 'stub' returned torch.float32 \(1,\), wanted bool \(1,\)"):
        metric(Wrong()).prepare(an_evaluation(tmp_path, labelled([0, 1, 2, 3]), pictures([])))


def test_what_a_score_rests_on_is_recorded(tmp_path: Path) -> None:
    dataset = labelled([0, 1, 1, 2, 3])
    evaluation = an_evaluation(tmp_path, dataset, pictures([0, 1, 2, 3]))
    scored = metric(OrOfNone(), samples=3, seed=7)
    scored.prepare(evaluation)
    protocol = scored.evaluate(evaluation).protocol
    shares = torch.tensor([0.2, 0.4, 0.2, 0.2], dtype=torch.float64)
    assert protocol == {
        "metric": "mode_coverage",
        "features": {"name": "stub", "sha256": "weights-1", "preprocessing": "none"},
        "reference": {
            "dataset": "levels",
            "fingerprint": dataset.fingerprint,
            "split": "train",
            "count": 5,
            "frequencies": tensors_sha256({"": shares}),
            "high_quality": 1.0,
        },
        "generated": 3,
        "seed": 7,
        "images": "uint8, rounded",
        "classes": 4,
        "counted": "images that belong to a class",
    }
    plain = metric(OfLevel(), samples=3).evaluate(evaluation).protocol
    assert plain["counted"] == "all images"
    assert "high_quality" not in plain["reference"]
    relabelled = ImageDataset(dataset.images, "levels", "train", torch.tensor([0, 1, 2, 3, 3]))
    other = metric(OfLevel(), samples=3).evaluate(an_evaluation(tmp_path, relabelled, pictures([0, 1, 2]))).protocol
    assert other["reference"]["fingerprint"] == plain["reference"]["fingerprint"], "the pixels are the same"
    assert other["reference"]["frequencies"] != plain["reference"]["frequencies"]
