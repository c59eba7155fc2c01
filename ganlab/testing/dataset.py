"""What data sets, networks of features and metrics are checked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.dataset import image_spec
from ganlab.protocols import Dataset
from ganlab.testing.inspection import Fault, Inspection, draws
from ganlab.testing.tiny_components import CLASSES
from ganlab.testing.tiny_training import TinyGame
from ganlab.utils.errors import ComponentError
from ganlab.utils.paths import places
from ganlab.utils.rng import seed_everything

CHANNELS = (1, 3)
CONDITIONS = ConditionSampler.counted([1] * CLASSES)
MANY = 2000
"""Images of each split of the data that features and metrics are given, and the most that a metric is asked to make."""


# ---------------------------------------------------------------------------------------------------------------------
# Data sets
# ---------------------------------------------------------------------------------------------------------------------


def check_dataset(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    splits: dict[str, Dataset] = {}
    loaded, _ = (
        look(
            f"{split} split: uint8 images (N, C, H, W), a condition an image, a name",
            partial(_split, inspection, split, splits),
        )
        for split in ("train", "test")
    )
    look(
        "splits: the test split is another one, and a split that is not there is refused",
        lambda: _splits(inspection, splits),
        loaded,
    )
    again = look("again: loaded again it has the same fingerprint", lambda: _loads_again(inspection, splits), loaded)
    look("randomness: no global random state is changed", lambda: _loads_still(inspection), loaded)
    trains = look("trains: a tiny game takes steps on it", lambda: _data_trains(splits, game), again)
    look("resumes: stopped and gone on with, a training is equal to the bit", game.resumes, trains)
    look("cost of a step", game.cost, trains)


def _split(inspection: Inspection, split: str, splits: dict[str, Dataset]) -> str:
    at = inspection.line_of("build")
    dataset: Any = inspection.fresh().build(places(), split)
    for name in ("images", "condition", "name", "split", "fingerprint"):
        if not hasattr(dataset, name):
            raise Fault(f"build gives {type(dataset).__name__}, which lacks {name!r}; ganlab.ImageDataset has all", at)
    images, condition = dataset.images, dataset.condition
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise Fault(f"its images are {got}, wanted uint8 (N, C, H, W) and at least one", at)
    if images.device.type != "cpu":
        raise Fault(f"its images lie on {images.device}, wanted the CPU", at)
    if condition is not None and len(condition) != len(images):
        raise Fault(f"{len(images):,} images have {len(condition):,} conditions", at)
    if condition is not None and condition.ndim == 1 and (condition.dtype != torch.int64 or int(condition.min()) < 0):
        raise Fault(f"class labels are {condition.dtype} from {condition.min()}, wanted int64 from 0", at)
    if not isinstance(dataset.name, str) or dataset.split != split:
        raise Fault(f"its name is {dataset.name!r} and its split {dataset.split!r}, wanted a text and {split!r}", at)
    splits[split] = dataset
    classes = image_spec(dataset).classes
    labels = f", {classes} classes" if classes is not None else ""
    return f"{len(images):,} images of {'x'.join(map(str, images.shape[1:]))}{labels}"


def _splits(inspection: Inspection, splits: dict[str, Dataset]) -> None:
    at = inspection.line_of("build")
    if "test" in splits and splits["train"].fingerprint == splits["test"].fingerprint:
        raise Fault("the test split has the images of the training split", at)
    try:
        inspection.fresh().build(places(), "no such split")
    except ComponentError:
        return
    raise Fault("a split named 'no such split' is given, wanted a ganlab.ComponentError", at)


def _loads_again(inspection: Inspection, splits: dict[str, Dataset]) -> None:
    seed_everything(7)
    one, other = splits["train"].fingerprint, inspection.fresh().build(places(), "train").fingerprint
    if not isinstance(one, str) or not one:
        raise Fault(f"its fingerprint is {one!r}, wanted a sha256 of the pixels", inspection.line_of("build"))
    if one != other:
        raise Fault("loaded again it has another fingerprint: its images are not the same", inspection.line_of("build"))


def _loads_still(inspection: Inspection) -> None:
    if whose := draws(lambda: inspection.fresh().build(places(), "train")):
        raise Fault(f"build draws {whose} global random numbers", inspection.line_of("build"))


def _data_trains(splits: dict[str, Dataset], game: TinyGame) -> str | None:
    game.shape = tuple(splits["train"].images.shape[1:])  # type: ignore[assignment]
    return game.trains()


# ---------------------------------------------------------------------------------------------------------------------
# Features
# ---------------------------------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------------------------------
