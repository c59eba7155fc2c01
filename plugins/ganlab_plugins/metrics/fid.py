"""FID, the Frechet Inception Distance between generated and real images, and FID-infinity.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium"
(arXiv:1706.08500). Each set of features is modelled by a Gaussian; the score is the squared Frechet distance
|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), and lower is better.

Decisions:
- Sums are in float64 (float32 is off by up to 0.04), of uint8 images that were rounded, not truncated. Any `features`
  can be used; only scores with Inception are comparable with published ones.
- The implementation is our own and tested against torchmetrics, which takes two seconds to import, before the first
  step of every run. Here the square root R of the reference's covariance is computed once and cached, and the trace is
  that of (R S R)^(1/2), a symmetric matrix with real eigenvalues: the same value, in a third of the time at 2048
  features.
- The reference is the whole split. Its moments are cached under everything they depend on. Or it is a file of moments,
  which the protocol then names by its hash.
- The score is biased upwards by about c/N, with a c that depends on the generator: only scores of equal `samples` are
  comparable, and real training against real test images score above 0 too.
- FID-infinity (Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score and where to find them",
  arXiv:1911.07023) removes that bias: the FIDs of random subsets of 15 sizes N lie nearly on a straight line in 1/N,
  whose value at 1/N = 0 is the score. As in the authors' code the sizes are evenly spaced in N, the largest is all
  images and the smallest a tenth of them; here it is at least two images per feature, below which the FIDs deviate from
  the line. The reference's own bias remains.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import (
    MOST_SAMPLES,
    ComponentError,
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
    cached_reference,
    cached_tensors,
    component,
    features_of,
    generated_features,
    hookimpl,
    location,
    moments_of,
    random_state,
    reference_rows,
    taken_by,
)
from ganlab_plugins.metrics._moments_file import KEYS, Keys, about_moments, read_moments

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab import Dataset, Features

SIZES = 15
"""Number of subset sizes through which FID-infinity's line is fitted."""

ROWS = 1024
"""Rows of features that are summed at a time, in float64."""


@frozen
class FID:
    """FID: the Frechet Inception Distance of generated images to a split of the data set.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images. If there are fewer than features, the covariance is singular: the distance of
        these samples is still exact, but its bias is large.
    split: the reference; all its images are used.
    moments: an .npz file of moments that others publish (arrays `mu`, `sigma`), of the same features: the reference in
        place of the split.
    features: the feature extractor.
    seed: of the latents, and of the subsets for `infinity`.
    infinity: also compute `fid_infinity`, the score extrapolated to infinitely many generated images. It needs at least
        four times as many `samples` as features.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    moments: str | None = location(default=None, validator=validators.optional(validators.min_len(1)))
    features: FeaturesConfig = component("features", default="inception")
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])
    infinity: bool = False

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features of FID, so that missing files are reported before training."""
        features = built_features(self.features, evaluation)
        if self.moments is not None:
            read_moments(Path(os.path.expanduser(self.moments)), features.name, features.dim)
        if self.infinity:
            subset_sizes(self.samples, features)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `fid`, and `fid_infinity` if it is enabled. They are nan if a feature is not finite."""
        features = built_features(self.features, evaluation)
        dataset = evaluation.dataset(self.split)
        measure = partial(features_of, features)
        if self.moments is None:
            about = about_reference(dataset)
            reference = cached_reference(
                "fid", features, dataset, evaluation, lambda: reference_moments(measure, dataset, evaluation)
            )
        else:
            if evaluation.whole is not None:
                raise ComponentError("FID of single classes cannot be against moments, which are of all of them")
            path = Path(os.path.expanduser(self.moments))
            about = about_moments(path)
            reference = rooted_moments(path, features.name, features.dim, evaluation)
        distance = partial(
            frechet_distance, reference["mean"].to(evaluation.device), reference["root"].to(evaluation.device)
        )
        generated = generated_features(features, evaluation, self.samples, self.seed)
        count = len(generated)
        if count < 2:
            raise ComponentError(f"FID needs at least 2 generated images, got {count}")
        values = {"fid": float(distance(*moments_of(generated.split(ROWS))))}
        details = {}
        # Of a small test split there is a floor of FID alone.
        if self.infinity and (count >= self.samples or count >= fewest_for_infinity(features)):
            sizes = subset_sizes(count, features)
            values["fid_infinity"] = extrapolated(distance, generated, sizes, self.seed, evaluation)
            line = {"sizes": sizes, "subsets": "random", "line": "least squares in 1/N, at 1/N = 0"}
            details["fid_infinity"] = {"infinity": line}
        return Scores(
            values=values,
            better=dict.fromkeys(values, "lower"),
            protocol={
                "metric": "fid",
                "features": about_features(features),
                "reference": about,
                **about_generated(count, self.seed, dataset.images),
            },
            details=details,
        )


def frechet_distance(mean_a: Tensor, root_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """The squared Frechet distance of two Gaussians, a float64 scalar.

    `mean_a` and `mean_b` are (d,), `root_a` is the symmetric square root (d, d) of the first covariance and `cov_b` the
    second covariance (d, d), all float64. Either may be singular. The result is nan if any input is not finite, with
    which LAPACK would raise or not terminate.
    """
    import torch

    middle = root_a @ cov_b @ root_a
    squared = (mean_a - mean_b).square().sum() + root_a.square().sum() + cov_b.trace()
    if not (squared.isfinite() and middle.isfinite().all()):
        return torch.full_like(squared, torch.nan)
    # The product is symmetric up to rounding, and eigvalsh reads only one triangle.
    values = torch.linalg.eigvalsh((middle + middle.T) / 2)
    if values[0] > len(values) * torch.finfo(values.dtype).eps * values[-1]:
        cross = values.sqrt().sum()
    else:
        # Rounding makes zero eigenvalues nonzero, and the error of their square roots is a million times larger. The
        # trace is also the sum of the singular values of the product of the roots, which needs no square root of them.
        cross = torch.linalg.svdvals(root_a @ symmetric_root(cov_b)).sum()
    distance: Tensor = squared - 2 * cross
    return distance


def symmetric_root(cov: Tensor) -> Tensor:
    """For FID: the symmetric square root (d, d) of a covariance (d, d); all nan if the covariance is not finite."""
    import torch

    if not cov.isfinite().all():
        return torch.full_like(cov, torch.nan)
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def reference_moments(
    measure: Callable[[Tensor], Tensor], dataset: Dataset, evaluation: Evaluation
) -> dict[str, Tensor]:
    """FID's moments of the reference, float64: the `mean` (d,) of what `measure` gives, and the `root` (d, d) of its
    covariance.
    """
    total = len(dataset.images)
    if total < 2:
        raise ComponentError(f"FID needs at least 2 reference images; {dataset.name} ({dataset.split}) has {total}")
    rows = reference_rows(evaluation, dataset.images, measure)
    mean, cov = moments_of(rows)
    return {"mean": mean, "root": symmetric_root(cov)}


def rooted_moments(path: Path, of: str, dim: int, evaluation: Evaluation, keys: Keys = KEYS) -> dict[str, Tensor]:
    """For FID: the `mean` (d,) of a file of moments and the `root` (d, d) of its covariance, perhaps cached."""

    def compute() -> dict[str, Tensor]:
        mean, cov = read_moments(path, of, dim, keys)
        return {"mean": mean, "root": symmetric_root(cov)}

    key = {**about_moments(path, keys), "dim": dim}
    return cached_tensors(evaluation.places.cache / "reference", "moments", key, compute, evaluation.progress)


def fewest_for_infinity(features: Features) -> int:
    """How many images FID-infinity needs at least."""
    return 4 * features.dim


def subset_sizes(count: int, features: Features) -> list[int]:
    """The subset sizes, from few to all images, through which FID-infinity's line is fitted."""
    smallest = max(count // 10, 2 * features.dim)
    if count < fewest_for_infinity(features):
        raise ComponentError(
            f"{count} images are too few for fid_infinity with {features.dim} features: set samples to at least "
            f"{fewest_for_infinity(features)}, or infinity = false"
        )
    return [smallest + round(step * (count - smallest) / (SIZES - 1)) for step in range(SIZES)]


def extrapolated(
    distance: Callable[[Tensor, Tensor], Tensor], features: Tensor, sizes: list[int], seed: int, evaluation: Evaluation
) -> float:
    """FID-infinity: the value at 1/N = 0 of the least-squares line in 1/N through the FIDs of random subsets."""
    import torch

    random = random_state(seed)
    found = []
    for size in sizes:
        chosen = features[torch.from_numpy(random.permutation(len(features))[:size]).to(features.device)]
        found.append(float(distance(*moments_of(chosen.split(ROWS)))))
        evaluation.progress("FID of subsets", len(found), len(sizes))
    x, y = torch.tensor(sizes, dtype=torch.float64).reciprocal(), torch.tensor(found, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() - slope * x.mean())


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("fid", FID)
