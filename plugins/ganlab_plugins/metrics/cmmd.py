"""CMMD, the maximum mean discrepancy of CLIP features of generated and real images.

Jayasumana et al. 2024, "Rethinking FID: Towards a Better Evaluation Metric for Image Generation" (arXiv:2401.09603):
the squared maximum mean discrepancy (MMD) with a Gaussian kernel of features of unit length, times 1000. It assumes no
distribution, needs fewer images than FID, and agrees better with people.

Decisions:
- As in the authors' code the estimate is the biased one, with the kernel of each image and itself: it is never
  negative, and 0 for equal sets. It is larger for fewer images.
- Any features can be used; only those of the paper, CLIP's ViT-L/14 at 336 pixels (`clip`), give its scale.
- Sums are of the kernel minus 1, in float64: of features of unit length the kernel is between 0.98 and 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import (
    MOST_SAMPLES,
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

SCALE = 1000
"""What the paper multiplies the squared MMD by, to have readable values."""

ROWS = 1024
"""How many images are compared with all others at a time."""


@frozen
class CMMD:
    """CMMD: the maximum mean discrepancy of generated images to a split of the data set, in CLIP's features.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images; the paper uses 30,000.
    split: the reference; all its features are cached on disk.
    features: the feature extractor.
    sigma: the bandwidth of the Gaussian kernel.
    normalize: whether features are scaled to unit length.
    seed: of the latents.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="clip")
    sigma: float = field(default=10.0, validator=[validators.gt(0), validators.le(1e9)])
    normalize: bool = True
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features of CMMD, so that missing files are reported before training."""
        built_features(self.features, evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `cmmd`; nan if a feature is not finite."""
        features = built_features(self.features, evaluation)
        dataset = evaluation.dataset(self.split)
        reference = reference_features(features, dataset, evaluation)
        generated = generated_features(features, evaluation, self.samples, self.seed)
        rows = [part.double() for part in (reference, generated)]
        if self.normalize:
            rows = [part / part.norm(dim=1, keepdim=True) for part in rows]
        return Scores(
            values={"cmmd": float(SCALE * squared_mmd(rows[0], rows[1], self.sigma))},
            better={"cmmd": "lower"},
            protocol={
                "metric": "cmmd",
                "features": {**about_features(features), "unit_length": self.normalize},
                "reference": about_reference(dataset),
                **about_generated(len(generated), self.seed, dataset.images),
                "kernel": f"exp(-|x - y|^2 / (2 * {_exact(self.sigma)}^2)), biased, times {SCALE}",
            },
        )


def _exact(number: float) -> str:
    """A number as short as it can be written without another value."""
    return short if float(short := f"{number:g}") == number else repr(number)


def squared_mmd(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    """CMMD without its scale: the biased squared MMD of features (N, d) and (M, d), float64, a scalar."""
    return _mean_kernel(a, a, sigma) + _mean_kernel(b, b, sigma) - 2 * _mean_kernel(a, b, sigma)


def _mean_kernel(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    """The mean over all pairs of the Gaussian kernel minus 1, which MMD does not change by."""
    lengths = b.square().sum(1)
    total = lengths.new_zeros(())
    for part in a.split(ROWS):
        squared = part.square().sum(1, keepdim=True) + lengths - 2 * part @ b.T
        total = total + (squared / (-2 * sigma**2)).expm1().sum()
    return total / (len(a) * len(b))


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("cmmd", CMMD)
