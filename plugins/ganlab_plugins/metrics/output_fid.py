"""FID of what a game makes of real images, translations or reconstructions, to the real images of the same split.

Heusel et al. 2017 (arXiv:1706.08500). VQGAN's reconstruction FID is one (Esser et al. 2021, arXiv:2012.09841, table 4).

Decisions:
- Both sets are the whole split, so the values of one data set are comparable however small it is; with fewer images
  than features the covariances are singular, and the distance is that of these very images.
- Unlike errors of pixels it compares two sets, and not each image with its target: a blurred image that is near to its
  target is far from every real image.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Evaluation,
    FeaturesConfig,
    Interval,
    Metric,
    Register,
    Scores,
    Takes,
    about_features,
    about_output,
    as_stored,
    built_features,
    cached_reference,
    component,
    features_of,
    hookimpl,
    moments_of,
    output_scores,
    taken_by,
)
from ganlab_plugins.metrics.fid import ROWS, frechet_distance, reference_moments

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class OutputFID:
    """FID of what the game makes of a split to the split's images: translations or reconstructions.

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be images of the data's shape.
    split: whose images are the reference, of which the output is made too.
    features: the feature extractor.
    """

    every: Interval = Interval()
    output: str = field(default="translation", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"
    features: FeaturesConfig = component("features", default="inception")

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Refuses a game without the output, and loads or trains the features of this FID."""
        evaluation.outputs(self.output, self.split)
        self._check(evaluation)
        built_features(self.features, evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`output_fid`; nan if a feature is not finite."""
        self._check(evaluation)
        features, dataset = built_features(self.features, evaluation), evaluation.dataset(self.split)
        measure = partial(features_of, features)
        reference = cached_reference(
            "fid", features, dataset, evaluation, lambda: reference_moments(measure, dataset, evaluation)
        )
        dtype = str(dataset.images.dtype).removeprefix("torch.")

        def of_images(made: Tensor, images: Tensor) -> Tensor:
            return features_of(features, as_stored(made, dtype))

        made = output_scores(evaluation, self.output, self.split, of_images)
        mean, root = (reference[name].to(evaluation.device) for name in ("mean", "root"))
        return Scores(
            values={"output_fid": float(frechet_distance(mean, root, *moments_of(made.split(ROWS))))},
            better={"output_fid": "lower"},
            protocol={
                "metric": "output_fid",
                "features": about_features(features),
                **about_output(self.output, dataset),
                "images": dtype if dtype == "float32" else f"{dtype}, rounded",
            },
        )

    def _check(self, evaluation: Evaluation) -> None:
        dataset = evaluation.dataset(self.split)
        if len(dataset.images) < 2:
            raise ComponentError(
                f"FID needs at least 2 images; {dataset.name} ({dataset.split}) has {len(dataset.images)}"
            )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("output_fid", OutputFID)
