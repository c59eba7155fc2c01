"""Precision, recall, density and coverage: separate measures of the quality and the diversity of generated images.

In feature space each image has a ball, whose radius is the distance to its k-th nearest neighbour in its own set.
- precision: the fraction of generated images in the ball of a real one; recall: the fraction of real images in the
  ball of a generated one. Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
  Models" (arXiv:1904.06991).
- density: the number of real balls that contain a generated image, divided by k; coverage: the fraction of real images
  with a generated one in their ball. Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models"
  (arXiv:2002.09797). The large ball of an outlier affects them less; density may exceed 1.

Decisions:
- Both papers compare sets of equal size, and every value depends on the sizes; so the reference is a random subset of
  the split, of as many images as are generated. A split with fewer is refused.
- Points on a ball's boundary are inside for precision and recall and outside for density and coverage, as in the code
  of each paper's authors. So two equal sets have precision and recall 1, and without duplicates coverage and density 1;
  a ball of radius 0 contains nothing for density and coverage.
- Squared distances are compared in float64, a block of rows at a time: memory is that of the features and a few blocks.
- Distances from matrix products are fast but rounded. Where one may be equal to what it is compared with, by a bound of
  its error, it is computed again from differences. So equal images are at distance 0, and ties are ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import (
    MOST_SAMPLES,
    ComponentError,
    Dataset,
    Evaluation,
    FeaturesConfig,
    Interval,
    Metric,
    Register,
    Scores,
    Takes,
    about_features,
    about_generated,
    about_reference,
    built_features,
    component,
    generated_features,
    hookimpl,
    reference_features,
    taken_by,
)

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 2**24
"""Number of distances in memory at a time: 128 MB."""

VALUES = ("precision", "recall", "density", "coverage")


@frozen
class PrecisionRecall:
    """Precision, recall, density and coverage of generated images and as many images of a split of the data set.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images, and of random images of the split.
    split: the split that the reference is drawn from.
    features: the feature extractor.
    neighbours: the k of precision and recall.
    density_neighbours: the k of density and coverage.
    seed: of the latents and of the random subset of the split.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="inception")
    neighbours: int = field(default=3, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    density_neighbours: int = field(default=5, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features of precision and recall; refuses too many samples or neighbours."""
        built_features(self.features, evaluation)
        self._check(self.samples, evaluation.dataset(self.split))

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `precision`, `recall`, `density` and `coverage`; all are nan if a feature is not finite."""
        features = built_features(self.features, evaluation)
        dataset = evaluation.dataset(self.split)
        self._check(self.samples, dataset)
        generated = generated_features(features, evaluation, self.samples, self.seed)
        self._check(len(generated), dataset)
        reference = reference_features(features, dataset, evaluation, (len(generated), self.seed))
        found = balls(generated, reference, self.neighbours, self.density_neighbours, evaluation)
        return Scores(
            values=dict(zip(VALUES, found, strict=True)),
            better=dict.fromkeys(VALUES, "higher"),
            protocol={
                "metric": "precision_recall",
                "features": about_features(features),
                "reference": {**about_reference(dataset), "subset": len(reference), "subset_seed": self.seed},
                **about_generated(len(generated), self.seed, dataset.images),
                "neighbours": self.neighbours,
                "density_neighbours": self.density_neighbours,
            },
        )

    def _check(self, count: int, dataset: Dataset) -> None:
        if count > (there := len(dataset.images)):
            raise ComponentError(
                f"precision and recall compare sets of equal size: {dataset.name} ({dataset.split}) has {there} images "
                f"for {count} generated ones; set samples to at most {there}"
            )
        most = max(self.neighbours, self.density_neighbours)
        if most >= count:
            raise ComponentError(
                f"{count} images have fewer than {most} neighbours each; set samples to at least {most + 1}"
            )


def balls(
    generated: Tensor, reference: Tensor, neighbours: int, density_neighbours: int, evaluation: Evaluation
) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage of generated features (N, d) and reference features (M, d)."""
    import torch

    if not (generated.isfinite().all() and reference.isfinite().all()):
        return torch.nan, torch.nan, torch.nan, torch.nan
    fake, fake_counts = distinct(generated.double())
    real, real_counts = distinct(reference.double())
    real_radii, density_radii = radii(real, real_counts, (neighbours, density_neighbours), evaluation)
    (fake_radii,) = radii(fake, fake_counts, (neighbours,), evaluation)
    precise = inside = 0
    recalled = torch.zeros_like(real_radii, dtype=torch.bool)
    nearest = torch.full_like(real_radii, torch.inf)
    for rows, block, error in squared_distances(fake, real, evaluation):
        of_rows, counts = fake_radii[rows, None], fake_counts[rows]
        doubtful = (block - real_radii).abs() <= error
        for radius in (density_radii, of_rows):
            doubtful |= (block - radius).abs() <= error
        compute_exactly(block, doubtful, fake[rows], real)
        precise += int((counts * (block <= real_radii).any(1)).sum())
        inside += int((counts * ((block < density_radii) * real_counts).sum(1)).sum())
        recalled |= (block <= of_rows).any(0)
        nearest = torch.minimum(nearest, block.amin(0))
    covered = nearest < density_radii
    recall, coverage = (int((real_counts * those).sum()) / len(reference) for those in (recalled, covered))
    return precise / len(generated), recall, inside / (density_neighbours * len(generated)), coverage


def distinct(points: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones among features (N, d), and how often each occurs; those of a collapsed generator are few."""
    import torch

    found, counts = torch.unique(points, dim=0, return_counts=True)
    return found, counts


def radii(points: Tensor, counts: Tensor, neighbours: tuple[int, ...], evaluation: Evaluation) -> list[Tensor]:
    """For each k, the balls' squared radii (N,): the distance of each point (N, d) to its k-th nearest neighbour.

    Each point is there `counts` (N,) times.
    """
    import torch

    # The nearest point is the point itself, at distance 0.
    most = min(max(neighbours) + 1, len(points))
    found = []
    for rows, block, error in squared_distances(points, points, evaluation):
        farthest = (block + error).topk(most, largest=False).values[:, -1:]  # at most so far are the nearest ones
        compute_exactly(block, block - error <= farthest, points[rows], points)
        nearest, index = block.topk(most, largest=False)
        up_to = counts[index].cumsum(1)  # how many points, the point itself among them, are as near as each of these
        found.append(torch.stack([nearest.gather(1, (up_to <= k).sum(1, keepdim=True))[:, 0] for k in neighbours]))
    return list(torch.cat(found, 1))


def squared_distances(a: Tensor, b: Tensor, evaluation: Evaluation) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields rows of `a` (N, d), their squared distances (rows, M) to `b` (M, d), and bounds (rows, M) of errors."""
    import torch

    # Features that are far from 0 and near each other would lose most digits, so their common mean is subtracted.
    center = b.mean(0)
    a, b = a - center, b - center
    a_square, b_square = a.square().sum(1), b.square().sum(1)
    # The differences from the mean, three sums of d products, and the sums of exact differences that these are compared
    # with: each is off by at most (d + 2) eps / 2 of the squares (Higham 2002, section 3.1), so this is not too small.
    relative = 2 * (a.shape[1] + 6) * torch.finfo(a.dtype).eps
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        rows = slice(start, min(start + step, len(a)))
        scale = a_square[rows, None] + b_square
        yield rows, (scale - 2 * a[rows] @ b.T).clamp_min(0), scale * relative
        evaluation.progress("distances", rows.stop, len(a))


def compute_exactly(block: Tensor, doubtful: Tensor, a: Tensor, b: Tensor) -> None:
    """Replaces, in place, doubtful squared distances (n, M) of `a` (n, d) and `b` (M, d) by those from differences."""
    i, j = doubtful.nonzero(as_tuple=True)
    if 4 * len(i) > block.numel():  # all of them are then faster than pairs, whose features are copied
        block.copy_(exact_squares(a, b))
        return
    step = max(1, BLOCK // a.shape[1])
    for start in range(0, len(i), step):
        of_a, of_b = i[start : start + step], j[start : start + step]
        block[of_a, of_b] = exact_squares(a[of_a, None], b[of_b, None])[:, 0, 0]


def exact_squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (…, n, m) of features (…, n, d) and (…, m, d) from their differences; 0 for equal ones."""
    import torch

    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("precision_recall", PrecisionRecall)
