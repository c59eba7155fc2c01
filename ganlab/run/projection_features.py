"""Features that a projection compares besides pixels: those of the kind `features` that have gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ganlab.config.converter import InvalidTable, TableConverter
from ganlab.config.overrides import apply_override, parse_override
from ganlab.config.schema import Experiment
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.features import built_features
from ganlab.plugin.component import MissingComponent
from ganlab.plugin.loader import Plugins
from ganlab.protocols import FeaturesConfig
from ganlab.run.project import PixelFeatures
from ganlab.utils.errors import UserError
from ganlab.utils.paths import places
from ganlab.utils.progress import Progress, no_progress
from ganlab.utils.rng import preserve_random_state


class FeaturedRun(Protocol):
    """What the features of a projection need of a run that `ganlab.load_run` read."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def plugins(self) -> Plugins: ...
    @property
    def device(self) -> torch.device: ...


def compared_features(
    run: FeaturedRun,
    name: str | None,
    overrides: Sequence[str] = (),
    weight: float = 1.0,
    progress: Progress = no_progress,
) -> PixelFeatures | None:
    """The features of a projection as `features_of_run` has them, None for none; UserError for options of none."""
    if name is not None:
        return features_of_run(run, name, overrides, progress)
    check_features_asked(name, overrides, weight)
    return None


def check_features_asked(name: str | None, overrides: Sequence[str], weight: float) -> None:
    """Refuses options of a projection's features where no features are compared."""
    for option, given in (("--set", bool(overrides)), ("--feature-weight", weight != 1.0)):
        if name is None and given:
            raise UserError(f"{option}: is for features that are compared; add --features NAME")


def features_of_run(
    run: FeaturedRun, name: str, overrides: Sequence[str] = (), progress: Progress = no_progress
) -> PixelFeatures:
    """Features by name, with gradients, for a projection; those that are trained learn from the run's data set.

    `overrides` are texts such as "features.weights=FILE". Raises UserError for features without gradients.
    """
    table: dict[str, Any] = {"features": {"name": name}}
    for text in overrides:
        apply_override(table, *parse_override(text))
    if others := table.keys() - {"features"}:
        key = sorted(others)[0]
        raise UserError(f"--set {key}: is no option of the features; did you mean features.{key}?")
    try:
        config: FeaturesConfig = TableConverter(run.plugins.registry).component("features", table["features"])
    except InvalidTable as error:
        raise UserError(*(_by_option(str(problem)) for problem in error.problems)) from None
    except ValueError as error:
        raise UserError(f"--features: {error}") from None
    if isinstance(run.experiment.dataset, MissingComponent):
        raise UserError(f"--features {name}: the plugin of the data set {run.experiment.dataset.name!r} is missing")
    evaluator = Evaluator(run.experiment.dataset, None, places(), run.device, floors=False)
    with preserve_random_state():
        features = built_features(config, evaluator.evaluation(lambda count, seed: iter(()), progress))
    found: Any = getattr(features, "with_gradients", None)
    if found is None:
        raise UserError(f"--features {name}: they have no gradients (no method with_gradients), which project needs")
    differentiable: PixelFeatures = found
    return differentiable


def _by_option(problem: str) -> str:
    """A problem of a projection's features, with the option that mends it."""
    about_name = problem.removeprefix("name: ")
    return f"--features: {about_name}" if about_name != problem else f"--set features.{problem}"
