"""Feature extraction for metrics: features of generated images, cached features of the reference, random subsets.

Decisions:
- Cached reference features are keyed by everything they depend on: the weights' hash, the data set's fingerprint, the
  split, the count, and the chosen images. A cache with a smaller key gives wrong scores that look right.
- Random subsets use numpy.random.RandomState: its streams never change, and torch-fidelity uses it too, so that equal
  seeds choose equal subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ganlab.evaluation.score_protocol import about_features, about_reference
from ganlab.protocols import Dataset, Evaluation, Features, FeaturesConfig, taken_by
from ganlab.utils.cache import cached_tensors
from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

REFERENCE_FORMAT = 1
"""The cache format of reference features; increase it when their content or computation changes."""

REFERENCE_BATCH = 256

MOST_SAMPLES = 10_000_000
"""The most images of a score; more would never finish."""


def random_state(seed: int) -> np.random.RandomState:
    """A metric's own random numbers."""
    import numpy as np

    return np.random.RandomState(seed % 2**32)


def random_subset(count: int, size: int, seed: int) -> Tensor:
    """Draws the random subset to extract features of: `size` indices below `count`, int64, without replacement."""
    import torch

    return torch.from_numpy(random_state(seed).permutation(count)[:size])


def features_of(features: Features, images: Tensor) -> Tensor:
    """Extracts a metric's features (N, dim) of images; raises `ComponentError` if the network returns another shape.

    The images are uint8 (N, C, H, W) unless the features take any data: pixels of another type, whose range is unknown,
    are refused with the same error.
    """
    if taken_by(features) == "uint8 images" and str(images.dtype) != "torch.uint8":  # without importing torch here
        raise ComponentError(f"features are of uint8 images, 0 to 255; got {images.dtype} {tuple(images.shape)}")
    found = features(images)
    if found.shape != (len(images), features.dim):
        wanted = f"{(len(images), features.dim)}"
        raise ComponentError(f"the features {features.name!r} gave {tuple(found.shape)}, wanted {wanted}")
    return found


def reference_rows(
    evaluation: Evaluation, images: Tensor, measure: Callable[[Tensor], Tensor], chosen: Tensor | None = None
) -> Iterator[Tensor]:
    """Extracts features, by `measure`, of the reference's images, or of those at the indices `chosen`, int64 (n,)."""
    done, total = 0, len(images if chosen is None else chosen)
    # Chosen images are gathered one batch at a time: all of them might not fit in memory.
    batches = images.split(REFERENCE_BATCH) if chosen is None else chosen.split(REFERENCE_BATCH)
    for batch in batches:
        yield measure((batch if chosen is None else images[batch]).to(evaluation.device))
        done += len(batch)
        evaluation.progress("features of the reference", done, total)


def built_features(config: FeaturesConfig, evaluation: Evaluation) -> Features:
    """Builds features once for all metrics of an evaluation (and all classes) with the same config."""
    whole = evaluation.whole or evaluation
    features: Features = whole.keep(("features", config), lambda: config.build(whole))
    return features


def generated_features(features: Features, evaluation: Evaluation, samples: int, seed: int) -> Tensor:
    """Extracts a metric's features (N, dim) of generated images, gathered from all ranks, on its device."""
    what = f"features {about_features(features)}"
    return generated_rows(evaluation, samples, seed, what, partial(features_of, features))


def generated_rows(
    evaluation: Evaluation, samples: int, seed: int, what: str, measure: Callable[[Tensor], Tensor]
) -> Tensor:
    """Features, by `measure`, of generated images: a row each, gathered from all ranks in the images' order.

    `what` names what is measured. Metrics of one evaluation that ask for the same share the result.
    """

    def compute() -> Tensor:
        import torch

        rows = []
        done = 0
        for batch in evaluation.generated(samples, seed):
            rows.append(measure(batch.to(evaluation.device)))
            done += len(batch)
            evaluation.progress("generated images", done, samples)
        if done == 0:
            raise ComponentError(f"there is no generated image to score ({samples} asked for); each process needs one")
        return evaluation.gather(torch.cat(rows))

    found: Tensor = evaluation.keep((what, samples, seed), compute)
    return found


def reference_features(
    features: Features, dataset: Dataset, evaluation: Evaluation, subset: tuple[int, int] | None = None
) -> Tensor:
    """Extracts a metric's features (N, dim) of a reference split, or finds them in the disk cache; on the device.

    `subset` is a size and a seed: a random subset of the split.
    """
    import torch

    def compute() -> dict[str, Tensor]:
        chosen = None if subset is None else random_subset(len(dataset.images), *subset)
        rows = reference_rows(evaluation, dataset.images, partial(features_of, features), chosen)
        return {"features": torch.cat(list(rows))}

    named = {} if subset is None else {"subset": list(subset)}
    found = cached_reference("features", features, dataset, evaluation, compute, **named)
    return found["features"].to(evaluation.device)


def cached_reference(
    kind: str,
    features: Features,
    dataset: Dataset,
    evaluation: Evaluation,
    compute: Callable[[], dict[str, Tensor]],
    **also: Any,
) -> dict[str, Tensor]:
    """Features of a reference split, or what `compute()` returns for it and a feature network, from the disk cache.

    `also` is what else the result depends on.
    """
    key = {"format": REFERENCE_FORMAT, "features": about_features(features), "reference": about_reference(dataset)}
    return cached_tensors(evaluation.places.cache / "reference", kind, {**key, **also}, compute, evaluation.progress)


def classifying(features: Features, needed_by: str) -> Callable[[Tensor], Tensor]:
    """Extracts class logits (N, classes) as features: the function that does; `ComponentError` if there is none."""
    found: Any = getattr(features, "logits", None)
    if found is None:
        raise ComponentError(f"the features {features.name!r} have no class logits, which {needed_by} needs")

    def logits(images: Tensor) -> Tensor:
        given: Tensor = found(images)
        if given.ndim != 2 or len(given) != len(images):
            wanted = f"({len(images)}, classes)"
            raise ComponentError(f"the logits of {features.name!r} are {tuple(given.shape)}, wanted {wanted}")
        return given

    return logits


def spatial_of(features: Features, needed_by: str) -> tuple[Callable[[Tensor], Tensor], int]:
    """Extracts spatial features (N, d): the function that does, and d; `ComponentError` if there are none."""
    found: Any = getattr(features, "spatial", None)
    dim: Any = getattr(features, "spatial_dim", None)
    if found is None or dim is None:
        raise ComponentError(f"the features {features.name!r} have no spatial features, which {needed_by} needs")

    def spatial(images: Tensor) -> Tensor:
        given: Tensor = found(images)
        if given.shape != (len(images), dim):
            wanted = f"{(len(images), dim)}"
            raise ComponentError(f"the spatial features of {features.name!r} are {tuple(given.shape)}, wanted {wanted}")
        return given

    return spatial, dim
