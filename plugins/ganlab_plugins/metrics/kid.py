"""KID, the Kernel Inception Distance: an unbiased distance of two sets of features.

Bińkowski et al. 2018, "Demystifying MMD GANs" (arXiv:1801.01401): the unbiased estimate of the squared maximum mean
discrepancy (MMD) with the kernel k(x, y) = (x.y / d + 1)^3, averaged over random subsets. It does not assume Gaussians
and is unbiased for few images too; it is about 0, as often negative as positive, for sets of the same distribution.

Decisions:
- The subsets are torch-fidelity's: for each, RandomState(seed) draws first generated and then reference images. With
  equal features and seed the score is the same, up to the rounding of its float32 sums; ours are float64.
- `kid_std` is the standard deviation over subsets, which overlap: it is the noise of one subset, not a confidence
  interval. It is not ranked, and there is none of one subset.
"""

from __future__ import annotations

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
    component,
    generated_features,
    hookimpl,
    random_state,
    reference_features,
    taken_by,
)

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class KID:
    """KID: the Kernel Inception Distance of generated images to a split of the data set.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images.
    split: the reference; all its features are cached on disk (400 MB for 50,000 images and Inception).
    features: the feature extractor.
    subsets: number of random subsets that the score is averaged over.
    subset_size: images of each set in a subset; neither set may have fewer.
    seed: of the latents and of the subsets.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="inception")
    subsets: int = field(default=100, validator=[validators.ge(1), validators.le(100_000)])
    subset_size: int = field(default=1000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features of KID; refuses subsets that are larger than the sets they are drawn from."""
        built_features(self.features, evaluation)
        self._check(self.samples, len(evaluation.dataset(self.split).images))

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `kid`, the mean over subsets, and of several `kid_std`. Both are nan if a feature is not finite."""
        features = built_features(self.features, evaluation)
        dataset = evaluation.dataset(self.split)
        self._check(self.samples, len(dataset.images))
        reference = reference_features(features, dataset, evaluation)
        generated = generated_features(features, evaluation, self.samples, self.seed)
        self._check(len(generated), len(reference))
        mean, std = kernel_distance(generated, reference, self.subsets, self.subset_size, self.seed, evaluation)
        values = {"kid": mean}
        if self.subsets > 1:
            values["kid_std"] = std
        return Scores(
            values=values,
            better={"kid": "lower"},
            protocol={
                "metric": "kid",
                "features": about_features(features),
                "reference": about_reference(dataset),
                **about_generated(len(generated), self.seed, dataset.images),
                "subsets": self.subsets,
                "subset_size": self.subset_size,
                "kernel": "(x.y / d + 1)^3, unbiased",
            },
        )

    def _check(self, generated: int, reference: int) -> None:
        for count, what in (generated, "generated"), (reference, "reference"):
            if self.subset_size > count:
                raise ComponentError(f"subset_size = {self.subset_size} is larger than the {count} {what} images")


MOST_ROWS = 2**17
"""How many rows of subsets are drawn at a time, 2 MiB of their numbers."""


def kernel_distance(
    generated: Tensor, reference: Tensor, subsets: int, size: int, seed: int, evaluation: Evaluation
) -> tuple[float, float]:
    """KID: mean and standard deviation, over random subsets, of the squared MMD of features (N, d) and (M, d)."""
    import torch

    if not (generated.isfinite().all() and reference.isfinite().all()):
        # Not every subset would contain the affected image.
        return torch.nan, torch.nan
    random = random_state(seed)

    def rows(features: Tensor) -> Tensor:
        return torch.from_numpy(random.choice(len(features), size, replace=False))

    found: list[Tensor] = []
    while len(found) < subsets:
        # The rows of some subsets at a time: the host waits for each copy to the device.
        count = min(subsets - len(found), max(1, MOST_ROWS // size))
        drawn = torch.stack([rows(features) for _ in range(count) for features in (generated, reference)])
        for one, other in drawn.to(generated.device).view(count, 2, size):
            found.append(squared_mmd(generated[one].double(), reference[other].double()))
            evaluation.progress("KID of subsets", len(found), subsets)
    values = torch.stack(found)
    return float(values.mean()), float(values.std(correction=0))


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """The unbiased squared MMD of two equally large sets of features (n, d): a scalar, which may be negative."""
    n = len(a)
    within = sum(kernel.sum() - kernel.trace() for kernel in (cubic(a, a), cubic(b, b)))
    distance: Tensor = within / (n * (n - 1)) - 2 * cubic(a, b).mean()
    return distance


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """KID's cubic kernel (n, m) of features (n, d) and (m, d)."""
    kernel: Tensor = (a @ b.T / a.shape[1] + 1) ** 3
    return kernel


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("kid", KID)
