"""The Frechet Inception Distance: how far apart two sets of images lie in the features of a network.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium"
(arXiv:1706.08500). Both sets of features are taken as Gaussians; the score is their squared Frechet distance
|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), and lower is better.

Decisions:
- torchmetrics gathers the sums, in float64 (float32 errs by up to 0.04), from uint8 images that were rounded, not
  truncated. The network is whatever `features` builds; only Inception's scores can stand beside published ones.
- The distance is our own arithmetic: the reference's covariance has its square root R taken once and cached, and the
  trace is that of (R S R)^(1/2), whose symmetric eigenvalues are real. It is the same number as torchmetrics', in a
  third of the time at 2048 features.
- The reference is the whole split. Its moments are cached under all that they depend on, for a cache keyed by less
  gives wrong scores that look right.
- The score is biased upwards by about c/N, with c different for each generator: compare scores of equal `samples`, and
  expect real training against real test images to score above 0 too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Evaluation,
    FeaturesConfig,
    Interval,
    Metric,
    Scores,
    cached_tensors,
    component,
    hookimpl,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics.image.fid import FrechetInceptionDistance

    from ganlab import Dataset, Features

REFERENCE_FORMAT = 1
"""Raise it when what is cached, or how it is computed, changes."""

REFERENCE_BATCH = 256


@frozen
class FID:
    """Frechet Inception Distance of generated images from a split of the data set.

    every: how often it is measured besides before and after training.
    samples: how many images are generated. Fewer than there are features make a singular covariance: the distance is
        still right for those samples, but its bias is large.
    split: the reference, whole.
    features: the network whose features are compared.
    seed: of the latents.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=validators.ge(2))
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="inception")
    seed: int = field(default=0, validator=validators.ge(0))

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features, so that what is missing is told before training and not after."""
        self.features.build(evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """One value, `fid`. It is nan where a feature is not finite."""
        import torchmetrics

        features = self.features.build(evaluation)
        dataset = evaluation.dataset(self.split)
        about_features = {
            "name": features.name,
            "sha256": features.fingerprint,
            "preprocessing": features.preprocessing,
        }
        about_reference = {
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint,
            "split": dataset.split,
            "count": len(dataset.images),
        }
        reference = cached_tensors(
            evaluation.places.cache / "reference",
            "fid",
            {"format": REFERENCE_FORMAT, "features": about_features, "reference": about_reference},
            lambda: reference_moments(features, dataset, evaluation),
        )
        mean, cov, count = generated_moments(features, evaluation, self.samples, self.seed)
        value = frechet_distance(reference["mean"].to(mean.device), reference["root"].to(mean.device), mean, cov)
        return Scores(
            values={"fid": float(value)},
            better={"fid": "lower"},
            protocol={
                "metric": "fid",
                "features": about_features,
                "reference": about_reference,
                "generated": count,
                "seed": self.seed,
                "images": "uint8, rounded",
                "torchmetrics": torchmetrics.__version__,
            },
        )


def frechet_distance(mean_a: Tensor, root_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """The squared Frechet distance of two Gaussians; a float64 scalar.

    `mean_a` and `mean_b` are (d,), `root_a` is the symmetric square root (d, d) of the first's covariance and `cov_b`
    the second's covariance (d, d), all float64. Either may be singular. nan where anything is not finite: LAPACK
    would raise, or not end.
    """
    import torch

    middle = root_a @ cov_b @ root_a
    squared = (mean_a - mean_b).square().sum() + root_a.square().sum() + cov_b.trace()
    if not (squared.isfinite() and middle.isfinite().all()):
        return torch.full_like(squared, torch.nan)
    # The product is symmetric but for rounding, and eigvalsh reads one triangle only. Rounding also makes an
    # eigenvalue that should be 0 a little negative, so they are clipped.
    cross = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp_min(0).sqrt().sum()
    distance: Tensor = squared - 2 * cross
    return distance


def symmetric_root(cov: Tensor) -> Tensor:
    """The symmetric square root (d, d) of a covariance (d, d); all nan where the covariance is not finite."""
    import torch

    if not cov.isfinite().all():
        return torch.full_like(cov, torch.nan)
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def reference_moments(features: Features, dataset: Dataset, evaluation: Evaluation) -> dict[str, Tensor]:
    """Of all the data set's images: `mean` (d,), `cov` and its `root` (d, d), float64, and their `count`."""
    import torch

    total = len(dataset.images)
    if total < 2:
        raise ComponentError(f"FID needs at least 2 reference images; {dataset.name} ({dataset.split}) has {total}")
    metric = gatherer(features, evaluation)
    done = 0
    for batch in torch.split(dataset.images, REFERENCE_BATCH):
        metric.update(batch.to(evaluation.device), real=True)
        done += len(batch)
        evaluation.progress("features of the reference", done, total)
    mean, cov = moments(metric.real_features_sum, metric.real_features_cov_sum, total)
    return {"mean": mean, "cov": cov, "root": symmetric_root(cov), "count": torch.tensor(total)}


def generated_moments(
    features: Features, evaluation: Evaluation, samples: int, seed: int
) -> tuple[Tensor, Tensor, int]:
    """The mean (d,) and covariance (d, d) of generated images, float64, and how many there were."""
    metric = gatherer(features, evaluation)
    done = 0
    for batch in evaluation.generated(samples, seed):
        metric.update(batch.to(evaluation.device), real=False)
        done += len(batch)
        evaluation.progress("generated images", done, samples)
    if done < 2:
        raise ComponentError(f"FID needs at least 2 generated images, got {done}")
    return *moments(metric.fake_features_sum, metric.fake_features_cov_sum, done), done


def moments(total: Tensor, products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) from the sum of features (d,) and of their outer products (d, d)."""
    mean = total / count
    return mean, (products - count * mean.outer(mean)) / (count - 1)


def gatherer(features: Features, evaluation: Evaluation) -> FrechetInceptionDistance:
    """torchmetrics' FID, with `features` in place of its network, on the evaluation's device."""
    from torch import nn
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Network(nn.Module):
        num_features = features.dim

        def forward(self, images: Tensor) -> Tensor:
            found: Any = features(images)
            if found.shape != (len(images), features.dim):
                wanted = f"{(len(images), features.dim)}"
                raise ComponentError(f"the features {features.name!r} gave {tuple(found.shape)}, wanted {wanted}")
            # In double here, so that no sum, nor torchmetrics' own result, is rounded to the features' precision.
            doubled: Tensor = found.double()
            return doubled

    metric = FrechetInceptionDistance(Network(), antialias=False, normalize=False)
    return metric.to(evaluation.device)


@hookimpl
def register_metrics(register: Callable[[str, Callable[..., Metric]], None]) -> None:
    register("fid", FID)
