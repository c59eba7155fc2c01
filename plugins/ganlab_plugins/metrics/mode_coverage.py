"""Mode coverage: how many of the data's classes a generator covers, and how evenly, for the detection of mode collapse.

A classifier assigns a class to each generated image. `modes` is the number of classes that occur, as for the 1,000 of
Stacked MNIST in Metz et al. 2016, "Unrolled Generative Adversarial Networks" (arXiv:1611.02163). `mode_kl` is the KL
divergence of the class frequencies of generated images from those of the data. Srivastava et al. 2017, "VEEGAN"
(arXiv:1705.07761), and Lin et al. 2018, "PacGAN" (arXiv:1712.04086), report both, and for 2D points `high_quality`, the
fraction of points near any mode.

Decisions:
- An image's class is the one with the largest logit. If the features can also detect images of no class (`belongs`),
  these count for no mode: otherwise a point halfway between two modes would be as good as one at a mode.
- The data's frequencies are those of the labels of the reference split. A class without an image there is refused,
  because a generated image of it would make the divergence infinite.
- Features are refused if less than half of the reference's own images belong to a class: they are not reliable for
  generated images. That fraction is in the protocol, as the score of perfect images.
- The divergence of N images drawn from the data itself is not 0 but about (classes - 1) / 2N, so only scores of equal
  `samples` are comparable.
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
    Takes,
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
    taken_by,
    tensors_sha256,
)

if TYPE_CHECKING:
    from torch import Tensor

NEEDED_BY = "mode_coverage"

OF_NO_CLASS, UNDEFINED = -1, -2
"""Placeholders for an image's class index: the image is of no class, or its logits are not finite."""


@frozen
class ModeCoverage:
    """Mode coverage: how many of the data's classes are generated, and how their frequencies differ from the data's.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images. Published figures are for 26,000 on Stacked MNIST and 2,500 on points.
    split: the split whose class frequencies are the reference, and on which the features are tested.
    features: the classifier. For `stacked_mnist` set its `per_channel`, for `ring` and `grid` use "pixels".
    seed: of the latents.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    split: Literal["train", "test"] = "train"
    features: FeaturesConfig = component("features", default="classifier")
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the classifier of mode coverage; refuses data or features whose classes cannot be counted."""
        dataset = evaluation.dataset(self.split)
        expected = frequencies(dataset)
        features = built_features(self.features, evaluation)
        classes_of(features, len(expected), dataset.images[:1].to(evaluation.device))  # checks the number of logits
        reference_quality(features, dataset, evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `modes` and `mode_kl`, and `high_quality` if the features have `belongs`.

        All are nan if a logit is not finite; `mode_kl` is also nan if no image belongs to a class, because then there
        are no frequencies.
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
                **about_generated(len(classes), self.seed, dataset.images),
                "classes": len(expected),
                "counted": "all images" if real_quality is None else "images that belong to a class",
            },
        )


def frequencies(dataset: Dataset) -> Tensor:
    """The frequencies (classes,) of the data set's class labels, float64; refuses a class without an image."""
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
    """The class (N,) that the features assign to each image, int64, or `OF_NO_CLASS` or `UNDEFINED`."""
    logits = classifying(features, NEEDED_BY)(images)
    if logits.shape[1] != classes:
        raise ComponentError(
            f"mode_coverage needs features that classify the data's {classes} classes; {features.name!r} have "
            f"{logits.shape[1]} classes"
        )
    found = logits.argmax(1)
    if (belongs := belonging_by(features)) is not None:
        found = found.where(belongs(images), OF_NO_CLASS)
    return found.where(logits.isfinite().all(1), UNDEFINED)


def belonging_by(features: Features) -> Callable[[Tensor], Tensor] | None:
    """The features' function `belongs`, which images (N,) are of a class, or None if they have none."""
    import torch

    found: Any = getattr(features, "belongs", None)
    if found is None:
        return None

    def belongs(images: Tensor) -> Tensor:
        result: Tensor = found(images)
        if result.shape != (len(images),) or result.dtype != torch.bool:
            raise ComponentError(
                f"belongs of {features.name!r} returned {result.dtype} {tuple(result.shape)}, "
                f"wanted bool {(len(images),)}"
            )
        return result

    return belongs


def reference_quality(features: Features, dataset: Dataset, evaluation: Evaluation) -> float | None:
    """The fraction of real images that belong to a class, or None if the features have no `belongs`."""
    import torch

    belongs = belonging_by(features)
    if belongs is None:
        return None

    def compute() -> dict[str, Tensor]:
        return {"belongs": torch.cat(list(reference_rows(evaluation, dataset.images, belongs)))}

    share = float(cached_reference("belongs", features, dataset, evaluation, compute)["belongs"].double().mean())
    if share < 0.5:
        raise ComponentError(
            f"only {share:.1%} of the images of {dataset.name} ({dataset.split}) itself belong to a class by the "
            f"features {features.name!r}, so these cannot be used for generated images"
        )
    return share


def coverage(classes: Tensor, expected: Tensor) -> tuple[float, float, float]:
    """Mode coverage: the number of classes that occur, the KL divergence from `expected`, and the fraction in a class.

    `classes` (N,) are the images' classes by `classes_of`, and the frequencies `expected` (classes,) sum to 1.
    """
    import torch

    if (classes == UNDEFINED).any():
        return torch.nan, torch.nan, torch.nan
    counted = classes[classes != OF_NO_CLASS]
    counts = torch.bincount(counted, minlength=len(expected)).double()
    # 0/0 = nan if no image is counted.
    generated = counts / counts.sum()
    kl = torch.xlogy(generated, generated / expected).sum()
    return float((counts > 0).sum()), float(kl), len(counted) / len(classes)


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("mode_coverage", ModeCoverage)
