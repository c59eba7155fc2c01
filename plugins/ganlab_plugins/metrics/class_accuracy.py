"""How often a conditional generator makes the class that it was asked for, by a classifier.

With Inception trained on ImageNet this is the idea of AC-GAN's figure (Odena et al. 2017, arXiv:1610.09585, section
4.2); here the classifier must know the data's own classes, as the features `classifier` do.
"""

from __future__ import annotations

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
    hookimpl,
)

NEEDED_BY = "class_accuracy"


@frozen
class ClassAccuracy:
    """The share of generated images that the classifier puts into the class they were made for.

    every: how often it is measured besides before and after training.
    samples: how many images are generated, of classes as often as they come in the data.
    features: the network whose class logits are taken; it must tell the data's own classes.
    seed: of the latents and of the classes asked for.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    features: FeaturesConfig = component("features", default="classifier")
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the classifier; refuses one that gives no class logits."""
        classifying(built_features(self.features, evaluation), NEEDED_BY)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`class_accuracy`, from 0 to 1."""
        import torch

        features = built_features(self.features, evaluation)
        logits_of = classifying(features, NEEDED_BY)
        right = []
        done = 0
        for images, condition in evaluation.conditioned(self.samples, self.seed):
            if condition is None or condition.ndim != 1:
                raise ComponentError("class_accuracy needs images that were made for a class; these were not")
            right.append(logits_of(images).argmax(1) == condition)
            done += len(images)
            evaluation.progress("classes of generated images", done, self.samples)
        if not right:
            raise ComponentError("class_accuracy needs images that were made for a class; there are none")
        told = evaluation.gather(torch.cat(right).to(torch.uint8))
        return Scores(
            values={"class_accuracy": float(told.double().mean())},
            better={"class_accuracy": "higher"},
            protocol={
                "metric": "class_accuracy",
                "features": about_features(features),
                **about_generated(len(told), self.seed),
            },
        )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("class_accuracy", ClassAccuracy)
