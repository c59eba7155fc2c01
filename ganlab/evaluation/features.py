"""What metrics and features share, bundled ones and yours.

Gathering features, caching the reference's, saying what a score rests on, counting classes.

Decisions:
- What is cached is keyed by all that it depends on: the weights' hash, the data set's fingerprint, the split, the
  count, and which images were chosen. A cache keyed by less gives wrong scores that look right.
- Random choices are numpy.random.RandomState's: its streams are frozen for good, and they are torch-fidelity's, so
  that equal seeds choose equal subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ganlab.evaluation.score_protocol import about_features, about_reference
from ganlab.protocols import Dataset, Evaluation, Features, FeaturesConfig
from ganlab.utils.cache import cached_tensors
from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

REFERENCE_FORMAT = 1
"""Raise it when what is cached, or how it is computed, changes."""

REFERENCE_BATCH = 256

MOST_SAMPLES = 10_000_000
"""How many images a score may be asked of; more is a slip of the pen that would never end."""


def random_state(seed: int) -> np.random.RandomState:
    """A metric's own random numbers."""
    import numpy as np

    return np.random.RandomState(seed % 2**32)


def random_subset(count: int, size: int, seed: int) -> Tensor:
    """`size` of the numbers below `count`, int64, none of them twice."""
    import torch

    return torch.from_numpy(random_state(seed).permutation(count)[:size])


def features_of(features: Features, images: Tensor) -> Tensor:
    """The features (N, dim) of images, or a `ComponentError` where the network gives anything else."""
    found = features(images)
    if found.shape != (len(images), features.dim):
        wanted = f"{(len(images), features.dim)}"
        raise ComponentError(f"the features {features.name!r} gave {tuple(found.shape)}, wanted {wanted}")
    return found


def reference_rows(
    evaluation: Evaluation, images: Tensor, measure: Callable[[Tensor], Tensor], chosen: Tensor | None = None
) -> Iterator[Tensor]:
    """What `measure` says of each batch of a reference's images, or of those `chosen`, int64 (n,)."""
    done, total = 0, len(images if chosen is None else chosen)
    # Chosen images are gathered a batch at a time: all of them together might not fit in memory.
    batches = images.split(REFERENCE_BATCH) if chosen is None else chosen.split(REFERENCE_BATCH)
    for batch in batches:
        yield measure((batch if chosen is None else images[batch]).to(evaluation.device))
        done += len(batch)
        evaluation.progress("features of the reference", done, total)


def built_features(config: FeaturesConfig, evaluation: Evaluation) -> Features:
    """The features, loaded or trained once for all metrics of one scoring that ask for the same (and all classes)."""
    whole = evaluation.whole or evaluation
    features: Features = whole.keep(("features", config), lambda: config.build(whole))
    return features


def generated_features(features: Features, evaluation: Evaluation, samples: int, seed: int) -> Tensor:
    """The features (N, dim) of generated images, of all processes, on the evaluation's device."""
    what = f"features {about_features(features)}"
    return generated_rows(evaluation, samples, seed, what, partial(features_of, features))


def generated_rows(
    evaluation: Evaluation, samples: int, seed: int, what: str, measure: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `measure` says of generated images: a row an image, of all processes, in the images' order.

    `what` names what is measured. Metrics of one scoring that ask for the same share it.
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
    """The features (N, dim) of a split, on the evaluation's device, kept on disk for the next time.

    `subset` is a size and a seed: only so many random images of the split.
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
    """What `compute` gives for a split and a network, from disk where it is there.

    `also` is what else the result depends on.
    """
    key = {"format": REFERENCE_FORMAT, "features": about_features(features), "reference": about_reference(dataset)}
    return cached_tensors(evaluation.places.cache / "reference", kind, {**key, **also}, compute)


def classifying(features: Features, needed_by: str) -> Callable[[Tensor], Tensor]:
    """The features' class logits (N, classes), or a `ComponentError` where they have none."""
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
