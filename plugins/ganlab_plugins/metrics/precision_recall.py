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
  of each paper's authors. So two equal sets have precision, recall and coverage 1, and density 1 up to rounding.
- Squared distances are compared, in float64, a block of rows at a time: memory is that of the features and one block.
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
    about_features,
    about_generated,
    about_reference,
    built_features,
    component,
    generated_features,
    hookimpl,
    reference_features,
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
                **about_generated(len(generated), self.seed),
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
    generated, reference = generated.double(), reference.double()
    real, real_density = radii(reference, (neighbours, density_neighbours), evaluation)
    (fake,) = radii(generated, (neighbours,), evaluation)
    precise = inside = 0
    recalled = torch.zeros_like(real, dtype=torch.bool)
    nearest = torch.full_like(real, torch.inf)
    for rows, block in squared_distances(generated, reference, evaluation):
        precise += int((block <= real).any(1).sum())
        inside += int((block < real_density).sum())
        recalled |= (block <= fake[rows, None]).any(0)
        nearest = torch.minimum(nearest, block.amin(0))
    covered = nearest < real_density
    density = inside / (density_neighbours * len(generated))
    return precise / len(generated), float(recalled.double().mean()), density, float(covered.double().mean())


def radii(points: Tensor, neighbours: tuple[int, ...], evaluation: Evaluation) -> list[Tensor]:
    """For each k, the balls' squared radii (N,): the distance of each point (N, d) to its k-th nearest neighbour."""
    import torch

    # The nearest point is the point itself, at distance 0, so its k-th neighbour is at index k.
    most = max(neighbours) + 1
    blocks = squared_distances(points, points, evaluation)
    nearest = torch.cat([block.topk(most, largest=False).values for _, block in blocks])
    return [nearest[:, k] for k in neighbours]


def squared_distances(a: Tensor, b: Tensor, evaluation: Evaluation) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of rows of `a` (N, d), and their squared distances (rows, M) to all of `b` (M, d)."""
    a_square, b_square = a.square().sum(1), b.square().sum(1)
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        rows = slice(start, min(start + step, len(a)))
        yield rows, (a_square[rows, None] + b_square - 2 * a[rows] @ b.T).clamp_min(0)
        evaluation.progress("distances", rows.stop, len(a))


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("precision_recall", PrecisionRecall)
