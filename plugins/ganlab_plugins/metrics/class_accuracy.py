"""Class accuracy: how often a classifier assigns the images of a conditional generator to the requested class.

AC-GAN reports it for ImageNet with Inception (Odena et al. 2017, arXiv:1610.09585, section 4.1); here the classifier
must know the data's own classes, as the features `classifier` do.
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
    Takes,
    about_features,
    about_generated,
    built_features,
    classifying,
    component,
    hookimpl,
    labels_in,
    taken_by,
)

NEEDED_BY = "class_accuracy"


@frozen
class ClassAccuracy:
    """Class accuracy: the fraction of generated images that a classifier assigns to the class they were generated for.

    every: how often it is computed in training, in addition to before and after it.
    samples: number of generated images, with the class frequencies of the data.
    features: the network whose class logits are used; it must classify the data's own classes.
    seed: of the latents and of the requested classes.
    """

    every: Interval = Interval()
    samples: int = field(default=10_000, validator=[validators.ge(1), validators.le(MOST_SAMPLES)])
    features: FeaturesConfig = component("features", default="classifier")
    seed: int = field(default=0, validator=[validators.ge(0), validators.lt(2**63)])

    @property
    def takes(self) -> Takes:
        """What the features take."""
        return taken_by(self.features)

    def prepare(self, evaluation: Evaluation) -> None:
        """Loads or trains the classifier of `class_accuracy`; refuses features without class logits."""
        classifying(built_features(self.features, evaluation), NEEDED_BY)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`class_accuracy`, from 0 to 1; nan if a logit is not finite."""
        import torch

        features = built_features(self.features, evaluation)
        logits_of = classifying(features, NEEDED_BY)
        right = [torch.empty(0, dtype=torch.float64, device=evaluation.device)]
        done = 0
        images = None
        for images, condition in evaluation.conditioned(self.samples, self.seed):
            labels = labels_in(condition)
            if labels is None:
                raise ComponentError("class_accuracy needs images that were generated for a class; these were not")
            logits = logits_of(images)
            if len(labels) and int(labels.max()) >= logits.shape[1]:
                raise ComponentError(
                    f"the features {features.name!r} know {logits.shape[1]} classes; the data have class "
                    f"{int(labels.max())} too"
                )
            is_right = (logits.argmax(1) == labels).double()
            right.append(torch.where(logits.isfinite().all(1), is_right, torch.nan))
            done += len(images)
            evaluation.progress("classes of generated images", done, self.samples)
        correct = evaluation.gather(torch.cat(right))
        if not len(correct):
            raise ComponentError("class_accuracy needs images that were generated for a class; there are none")
        return Scores(
            values={"class_accuracy": float(correct.mean())},
            better={"class_accuracy": "higher"},
            protocol={
                "metric": "class_accuracy",
                "features": about_features(features),
                **about_generated(len(correct), self.seed, images),
            },
        )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("class_accuracy", ClassAccuracy)
