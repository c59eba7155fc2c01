"""The conditions of a loaded run's samples, for each sampler of its game: of run.json, or of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganlab.config.schema import Experiment
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.load_dataset import load_dataset
from ganlab.plugin.component import MissingComponent
from ganlab.protocols import Dataset, Sampler
from ganlab.utils.errors import UserError
from ganlab.utils.paths import places


def run_conditions(
    experiment: Experiment, info: Mapping[str, Any], sampler: Sampler, name: str = ""
) -> tuple[ConditionSampler, Dataset | None]:
    """The conditions of a loaded run's samples: classes as often as run.json says, or images with their data set.

    `name` is that of a further sampler. Runs of earlier releases have no names of classes in run.json.
    """
    if sampler.source:
        data = _loaded(experiment, sampler.source)
        return ConditionSampler(data.images), data
    known = info.get("samplers", {}).get(name) if name else info.get("condition")
    if isinstance(known, str):  # in a word what they are
        data = _loaded(experiment, "dataset")
        return ConditionSampler.of(data), data
    names = info.get("classes")
    names = tuple(map(str, names)) if isinstance(names, list) else ()
    return ConditionSampler.counted(known or (), names), None


def _loaded(experiment: Experiment, source: str) -> Dataset:
    """The data set of a loaded run that is the source of conditions; UserError where its plugin is missing."""
    config = experiment.dataset if source == "dataset" else getattr(experiment.game, source)
    if isinstance(config, MissingComponent):
        raise UserError(f"[{source}]: samples are made for its images, and the plugin of {config.name!r} is missing")
    return load_dataset(config, places(), "train")
