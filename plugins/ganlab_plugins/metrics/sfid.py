"""sFID, the Frechet distance of spatial features of generated and real images: whether things are where they belong.

Nash et al. 2021, "Generating Images with Sparse Representations" (arXiv:2103.03841). FID's features are averages over
the image; these keep rows and columns, so a picture whose parts are all real but misplaced scores badly.

Decisions:
- Features are any with `spatial`. Those of Inception are the 7 channels that Dhariwal and Nichol 2021
  (arXiv:2105.05233) take, in whose files of moments they are `mu_s` and `sigma_s`.
- The distance, its bias and what is cached are those of FID.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from attrs import field, frozen, validators

from ganlab import (
    MOST_SAMPLES,
    ComponentError,
    Evaluation,
    Features,
    FeaturesConfig,
    Interval,
    Metric,
    Register,
    Scores,
    about_features,
    about_generated,
    about_reference,
    built_features,
    cached_reference,
    component,
    generated_rows,
    hookimpl,
    location,
    moments_of,
    spatial_of,
)
from ganlab_plugins.metrics._moments_file import SPATIAL_KEYS, about_moments, read_moments
from ganlab_plugins.metrics.fid import ROWS, frechet_distance, reference_moments, rooted_moments


@frozen
class SFID:
    """sFID: the Frechet distance of spatial features of generated images to those of a split of the data set.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images. If there are fewer than features, the bias is large.
    split: the reference; all its images are used.
    moments: an .npz file of moments that others publish (arrays `mu_s`, `sigma_s`), of the same features: the reference
        in place of the split.
    features: the feature extractor, which must have spatial features.
    seed: of the latents.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    moments: str | None = location(default=None, validator=validators.optional(validators.min_len(1)))
    features: FeaturesConfig = component("features", default="inception")
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads the features of sFID, and its moments, so that what is missing is reported before training."""
        features = built_features(self.features, evaluation)
        _, dim = spatial_of(features, "sfid")
        if self.moments is not None:
            read_moments(Path(os.path.expanduser(self.moments)), _named(features), dim, SPATIAL_KEYS)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `sfid`; nan if a feature is not finite."""
        features = built_features(self.features, evaluation)
        measure, dim = spatial_of(features, "sfid")
        dataset = evaluation.dataset(self.split)
        if self.moments is None:
            about = about_reference(dataset)
            reference = cached_reference(
                "sfid", features, dataset, evaluation, lambda: reference_moments(measure, dataset, evaluation)
            )
        else:
            if evaluation.whole is not None:
                raise ComponentError("sFID of single classes cannot be against moments, which are of all of them")
            path = Path(os.path.expanduser(self.moments))
            about = about_moments(path, SPATIAL_KEYS)
            reference = rooted_moments(path, _named(features), dim, evaluation, SPATIAL_KEYS)
        what = f"spatial {about_features(features)}"
        generated = generated_rows(evaluation, self.samples, self.seed, what, measure)
        if len(generated) < 2:
            raise ComponentError(f"sFID needs at least 2 generated images, got {len(generated)}")
        mean, root = (reference[name].to(evaluation.device) for name in ("mean", "root"))
        return Scores(
            values={"sfid": float(frechet_distance(mean, root, *moments_of(generated.split(ROWS))))},
            better={"sfid": "lower"},
            protocol={
                "metric": "sfid",
                "features": {**about_features(features), "spatial": dim},
                "reference": about,
                **about_generated(len(generated), self.seed),
            },
        )


def _named(features: Features) -> str:
    return f"spatial {features.name}"


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("sfid", SFID)
