"""Which of the data's modes a generator reaches: how many classes it makes images of, and how evenly.

A classifier says of which class each generated image is. `modes` counts the classes that are met at all, as for Stacked
MNIST's 1,000 in Metz et al. 2016, "Unrolled Generative Adversarial Networks" (arXiv:1611.02163). `mode_kl` is the KL
divergence of the classes' frequencies among generated images from those in the data. Srivastava et al. 2017, "VEEGAN"
(arXiv:1705.07761), and Lin et al. 2018, "PacGAN" (arXiv:1712.04086), report both, and for points in the plane
`high_quality`, the share of points that lie at a mode at all.

Decisions:
- A class is the one with the greatest logit. Where the features can also tell that an image is of no class (`belongs`),
  such images count for no mode: else a point halfway between two modes would be as good as one at either.
- The data's frequencies are those of the labels of the reference split. A class without an image there is refused,
  because an image of it would make the divergence infinite.
- Features by which less than half of the reference's own images belong to a class are refused: they cannot judge
  others. What share does is in the protocol, as the score of perfect images.
- The divergence of N images drawn from the data itself is not 0 but about (classes - 1) / 2N, so only scores of equal
  `samples` can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen, validators

from ganlab import (
    MOST_SAMPLES,
    ComponentError,
    Dataset,
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
    class_count,
    class_labels_of,
    classifying,
    component,
    generated_rows,
    hookimpl,
    reference_rows,
    tensors_sha256,
)

if TYPE_CHECKING:
    from torch import Tensor

NEEDED_BY = "mode_coverage"

OF_NO_CLASS, UNDEFINED = -1, -2
"""What stands where the number of an image's class would: it is of none, or its logits are not finite."""


@frozen
class ModeCoverage:
    """How many of the data's classes are generated, and how far their frequencies are from the data's.

    every: how often it is measured besides before and after training.
    samples: how many images are generated. Published figures are for 26,000 on Stacked MNIST and 2,500 on points.
    split: whose frequencies of classes are the reference, and what the features are tried on.
    features: what classifies. For `stacked_mnist` set its `per_channel`, for `ring` and `grid` take "pixels".
    seed: of the latents.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="classifier")
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features, and refuses data and features whose classes cannot be counted."""
        dataset = evaluation.dataset(self.split)
        expected = frequencies(dataset)
        features = built_features(self.features, evaluation)
        classes_of(features, len(expected), dataset.images[:1].to(evaluation.device))  # are there as many logits?
        reference_quality(features, dataset, evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`modes` and `mode_kl`, and `high_quality` where the features have `belongs`.

        All are nan where a logit is not finite; `mode_kl` is nan too where no image belongs to a class, because there
        are no frequencies then.
        """
        dataset = evaluation.dataset(self.split)
        expected = frequencies(dataset)
        features = built_features(self.features, evaluation)
        real_quality = reference_quality(features, dataset, evaluation)
        what = f"classes by {about_features(features)}"
        measure = partial(classes_of, features, len(expected))
        classes = generated_rows(evaluation, self.samples, self.seed, what, measure).cpu()
        modes, kl, quality = coverage(classes, expected)
        of_reference: dict[str, Any] = {**about_reference(dataset), "frequencies": tensors_sha256({"": expected})}
        values = {"modes": modes, "mode_kl": kl}
        better: dict[str, Literal["lower", "higher"]] = {"modes": "higher", "mode_kl": "lower"}
        if real_quality is not None:
            values["high_quality"], better["high_quality"] = quality, "higher"
            of_reference["high_quality"] = real_quality
        return Scores(
            values=values,
            better=better,
            protocol={
                "metric": "mode_coverage",
                "features": about_features(features),
                "reference": of_reference,
                **about_generated(len(classes), self.seed),
                "classes": len(expected),
                "counted": "all images" if real_quality is None else "images that belong to a class",
            },
        )


def frequencies(dataset: Dataset) -> Tensor:
    """The share of each class (classes,) among the data set's labels, float64; refuses a class without an image."""
    import torch

    labels = class_labels_of(dataset)
    if labels is None:
        raise ComponentError(f"mode_coverage needs class labels, and {dataset.name} ({dataset.split}) has none")
    counts = torch.bincount(labels, minlength=class_count(dataset, labels))
    if missing := (counts == 0).nonzero()[:, 0].tolist():
        raise ComponentError(
            f"mode_coverage needs an image of every class; of the {len(counts)} classes of {dataset.name} "
            f"({dataset.split}) {len(missing)} have none, such as class {missing[0]}"
        )
    return counts.double() / len(labels)


def classes_of(features: Features, classes: int, images: Tensor) -> Tensor:
    """The class (N,) of each image, int64, or `OF_NO_CLASS` or `UNDEFINED`."""
    logits = classifying(features, NEEDED_BY)(images)
    if logits.shape[1] != classes:
        raise ComponentError(
            f"mode_coverage needs features that classify the data's {classes} classes; {features.name!r} tells "
            f"{logits.shape[1]} apart"
        )
    found = logits.argmax(1)
    if (belongs := belonging_by(features)) is not None:
        found = found.where(belongs(images), OF_NO_CLASS)
    return found.where(logits.isfinite().all(1), UNDEFINED)


def belonging_by(features: Features) -> Callable[[Tensor], Tensor] | None:
    """The features' rule which images (N,) are of a class, or None where they have none."""
    import torch

    found: Any = getattr(features, "belongs", None)
    if found is None:
        return None

    def belongs(images: Tensor) -> Tensor:
        given: Tensor = found(images)
        if given.shape != (len(images),) or given.dtype != torch.bool:
            raise ComponentError(
                f"what belongs by {features.name!r} is {given.dtype} {tuple(given.shape)}, wanted bool {(len(images),)}"
            )
        return given

    return belongs


def reference_quality(features: Features, dataset: Dataset, evaluation: Evaluation) -> float | None:
    """The share of the reference's own images that belong to a class, or None where the features have no such rule."""
    import torch

    belongs = belonging_by(features)
    if belongs is None:
        return None

    def compute() -> dict[str, Tensor]:
        return {"belongs": torch.cat(list(reference_rows(evaluation, dataset.images, belongs)))}

    share = float(cached_reference("belongs", features, dataset, evaluation, compute)["belongs"].double().mean())
    if share < 0.5:
        raise ComponentError(
            f"of the images of {dataset.name} ({dataset.split}) themselves only {share:.1%} belong to a class by the "
            f"features {features.name!r}; they cannot tell which generated ones do"
        )
    return share


def coverage(classes: Tensor, expected: Tensor) -> tuple[float, float, float]:
    """How many classes are met, the KL divergence of their frequencies from `expected`, and the share of a class.

    `classes` (N,) are those of the images, as `classes_of` gives them, and `expected` (classes,) sums to 1.
    """
    import torch

    if (classes == UNDEFINED).any():
        return torch.nan, torch.nan, torch.nan
    counted = classes[classes != OF_NO_CLASS]
    counts = torch.bincount(counted, minlength=len(expected)).double()
    # Without a counted image this is 0/0, and so nan.
    generated = counts / counts.sum()
    kl = torch.xlogy(generated, generated / expected).sum()
    return float((counts > 0).sum()), float(kl), len(counted) / len(classes)


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("mode_coverage", ModeCoverage)
