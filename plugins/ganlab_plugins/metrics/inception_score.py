"""The Inception Score: how confidently a classifier classifies each image, and how evenly the classes occur.

Salimans et al. 2016, "Improved Techniques for Training GANs" (arXiv:1606.03498): exp of the mean KL divergence of
p(class | image) from p(class), from 1 to the number of classes; higher is better. It does not use real images: one
good image of each class is enough for the best score, so it does not measure diversity within a class.

Decisions:
- The images are shuffled by RandomState(seed) and divided into `splits` parts; the score is the mean over parts. Order
  and parts are torch-fidelity's. The order does not matter for images from random latents, but it does for images that
  are sorted by class.
- Inception's logits are without the bias of its last layer, as in published scores.
- The score of a small part is biased downwards, so only scores of equal `samples` and `splits` are comparable.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
    about_features,
    about_generated,
    built_features,
    classifying,
    component,
    generated_rows,
    hookimpl,
    random_state,
)

if TYPE_CHECKING:
    from torch import Tensor

NEEDED_BY = "the inception score"


@frozen
class InceptionScore:
    """Inception Score of generated images.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images.
    features: the network whose class logits are used; it must be a classifier.
    splits: number of parts that the images are divided into; the score is the mean over them.
    seed: of the latents and of the images' order.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(2), validators.le(MOST_SAMPLES)])
    features: FeaturesConfig = component("features", default="inception")
    splits: int = field(default=10, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the features of the Inception Score; refuses ones without logits, and too many splits."""
        classifying(built_features(self.features, evaluation), NEEDED_BY)
        self._check(self.samples)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """Computes `inception_score`, and with several splits its standard deviation; nan if a logit is not finite."""
        features = built_features(self.features, evaluation)
        what, measure = f"logits of {about_features(features)}", classifying(features, NEEDED_BY)
        logits = generated_rows(evaluation, self.samples, self.seed, what, measure)
        self._check(len(logits))
        mean, std = score(logits, self.splits, self.seed)
        values = {"inception_score": mean}
        if self.splits > 1:
            values["inception_score_std"] = std
        return Scores(
            values=values,
            better={"inception_score": "higher"},
            protocol={
                "metric": "inception_score",
                "features": about_features(features),
                "classes": logits.shape[1],
                **about_generated(len(logits), self.seed),
                "splits": self.splits,
                "order": "shuffled by the seed",
            },
        )

    def _check(self, count: int) -> None:
        if self.splits > count:
            raise ComponentError(f"splits = {self.splits} are more than the {count} generated images")


def score(logits: Tensor, splits: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the Inception Score over random parts of the logits (N, classes)."""
    import torch

    if not logits.isfinite().all():
        return torch.nan, torch.nan
    count = len(logits)
    order = torch.from_numpy(random_state(seed).permutation(count)).to(logits.device)
    found = []
    for part in range(splits):
        log_p = logits[order[part * count // splits : (part + 1) * count // splits]].double().log_softmax(1)
        # In log space, so that a class with no image does not cause log 0.
        log_mean = log_p.logsumexp(0) - math.log(len(log_p))
        found.append((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())
    scores = torch.stack(found)
    return float(scores.mean()), float(scores.std(correction=0))


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("inception_score", InceptionScore)
