"""How many generated images look real, and how much of the real images is generated: quality and variety apart.

Both sets are balls in the space of features: around each image, as far as its k-th nearest neighbour in its own set.
- precision: the share of generated images in a ball of a real one; recall: the share of real images in a ball of a
  generated one. Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"
  (arXiv:1904.06991).
- density: in how many real balls a generated image lies, divided by k; coverage: the share of real images with a
  generated one in their ball. Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models"
  (arXiv:2002.09797). One outlier's large ball moves them less; density may exceed 1.

Decisions:
- Both papers compare equal counts, and every value depends on the counts; so the reference is a random subset of the
  split, as many as are generated. A split with fewer is refused.
- What lies just on a ball's edge is in it for precision and recall and not in it for density and coverage, as in the
  code of each paper's authors. So two equal sets have precision, recall and coverage 1, and density 1 but for
  rounding.
- Squared distances are compared, in float64, a block of rows at a time: memory is the features' and a block's.
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
"""How many distances are held at a time: 128 MB."""

VALUES = ("precision", "recall", "density", "coverage")


@frozen
class PrecisionRecall:
    """Precision, recall, density and coverage of generated images against as many of a split of the data set.

    every: how often it is measured besides before and after training.
    samples: how many images are generated, and how many random ones of the split they are compared with.
    split: what the reference is taken from.
    features: the network whose features are compared.
    neighbours: the k of precision and recall.
    density_neighbours: the k of density and coverage.
    seed: of the latents and of the choice from the split.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="inception")
    neighbours: int = field(default=3, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    density_neighbours: int = field(default=5, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features, and refuses counts that the data set or the neighbours do not allow."""
        built_features(self.features, evaluation)
        self._check(self.samples, evaluation.dataset(self.split))

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`precision`, `recall`, `density` and `coverage`; all nan where a feature is not finite."""
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
                f"precision and recall compare equal counts: {dataset.name} ({dataset.split}) has {there} images for "
                f"{count} generated ones; set samples to at most {there}"
            )
        most = max(self.neighbours, self.density_neighbours)
        if most >= count:
            raise ComponentError(f"{count} images have no {most} neighbours each; set samples to at least {most + 1}")


def balls(
    generated: Tensor, reference: Tensor, neighbours: int, density_neighbours: int, evaluation: Evaluation
) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage of features (N, d) against a reference's (M, d)."""
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
    """For each k, the squared distance (N,) from each point (N, d) to its k-th nearest other point."""
    import torch

    # The nearest point of all is the point itself, at distance 0, so the k-th other one is at index k.
    most = max(neighbours) + 1
    blocks = squared_distances(points, points, evaluation)
    nearest = torch.cat([block.topk(most, largest=False).values for _, block in blocks])
    return [nearest[:, k] for k in neighbours]


def squared_distances(a: Tensor, b: Tensor, evaluation: Evaluation) -> Iterator[tuple[slice, Tensor]]:
    """Which rows of `a`, and their squared distances (rows, M) to all of `b` (M, d), a block at a time."""
    a_square, b_square = a.square().sum(1), b.square().sum(1)
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        rows = slice(start, min(start + step, len(a)))
        yield rows, (a_square[rows, None] + b_square - 2 * a[rows] @ b.T).clamp_min(0)
        evaluation.progress("distances", rows.stop, len(a))


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("precision_recall", PrecisionRecall)
