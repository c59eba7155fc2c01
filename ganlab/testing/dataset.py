"""The conformance checks of a data set: its splits, its images, signals or rows, their conditions, its fingerprint."""

from __future__ import annotations

from functools import partial
from typing import Any

from ganlab.data.dataset import image_spec
from ganlab.data.load_dataset import condition_problems, data_problem, not_finite
from ganlab.protocols import Dataset, named_conditions
from ganlab.testing.check_result import Fault
from ganlab.testing.global_randomness import global_generators_used
from ganlab.testing.inspection import Inspection
from ganlab.testing.state_comparison import first_difference
from ganlab.testing.tensor_checks import describe_value
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import RESUMES, check_resumes, check_trains, measure_step_cost
from ganlab.utils.errors import ComponentError
from ganlab.utils.paths import places


def check_dataset(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a data set."""
    run_check = inspection.run_check
    splits: dict[str, Dataset] = {}
    whose: list[str] = []
    loaded, _ = (
        run_check(
            f"{split} split: images of a supported type, one condition per image, a name",
            partial(_check_split, inspection, split, splits),
        )
        for split in ("train", "test")
    )
    run_check(
        "splits: the test split differs from the training split, and an unknown split is refused",
        lambda: _check_splits_differ(inspection, splits),
        loaded,
    )
    again = run_check(
        "again: loaded a second time, it has the same fingerprint",
        lambda: _check_again(inspection, splits, whose),
        loaded,
    )
    run_check("randomness: no global random state is changed", lambda: _check_randomness(inspection, whose), loaded)
    trains = run_check("trains: a tiny training takes steps on it", lambda: _check_trains(splits, tiny), again)
    run_check(RESUMES, lambda: check_resumes(tiny), trains)
    run_check("cost of a step", lambda: measure_step_cost(tiny), trains)


def _check_split(inspection: Inspection, split: str, splits: dict[str, Dataset]) -> str:
    """Checks the images, conditions and names of one split of a data set, and adds it to `splits`."""
    at = inspection.line_of("build")
    dataset: Any = inspection.fresh().build(places(), split)
    for name in ("images", "condition", "name", "split", "fingerprint"):
        if not hasattr(dataset, name):
            raise Fault(
                f"build returns {type(dataset).__name__}, which lacks {name!r}; ganlab.ImageDataset has all", at
            )
    images, condition = dataset.images, dataset.condition
    if problem := data_problem(images):
        raise Fault(f"its {problem}", at)
    if not len(images):
        raise Fault(f"its images are {describe_value(images)}, expected at least one", at)
    if images.device.type != "cpu":
        raise Fault(f"its images are on {images.device}, expected the CPU", at)
    for problem in condition_problems(condition, len(images)):
        raise Fault(f"its {problem}", at)
    for name, part in {"images": images, **named_conditions(condition)}.items():
        if problem := not_finite(part):
            raise Fault(f"its {name}: {problem}", at)
    if not isinstance(dataset.name, str) or dataset.split != split:
        raise Fault(f"its name is {dataset.name!r} and its split {dataset.split!r}, expected a text and {split!r}", at)
    splits[split] = dataset
    data = image_spec(dataset)
    labels = f", {data.classes} classes" if data.classes is not None else ""
    if data.conditions:
        labels = f", conditions {', '.join(data.conditions)}"
    if data.is_image and data.dtype == "uint8":
        return f"{len(images):,} images of {'x'.join(map(str, images.shape[1:]))}{labels}"
    return f"{len(images):,}: {data.in_words}{labels}"


def _check_splits_differ(inspection: Inspection, splits: dict[str, Dataset]) -> None:
    """Checks that a data set's test split is not its training split, and that an unknown split is refused.

    Nor may it be the training split in another order, or have images or conditions of another form.
    """
    at = inspection.line_of("build")
    if "test" in splits:
        train, test = splits["train"], splits["test"]
        if train.fingerprint == test.fingerprint:
            raise Fault("the test split has the images of the training split", at)
        if problem := _other_form(train, test):
            raise Fault(f"the test split has {problem}", at)
        if len(train.images) == len(test.images) and _image_hashes(train) == _image_hashes(test):
            raise Fault("the test split has the images of the training split, in another order", at)
    try:
        inspection.fresh().build(places(), "no such split")
    except ComponentError:
        return
    raise Fault("build accepts a split named 'no such split', expected a ganlab.ComponentError", at)


def _other_form(train: Dataset, test: Dataset) -> str:
    """What of the images or conditions of a data set's test split has another form than in its training split."""
    one, other = image_spec(train), image_spec(test)
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{other.dtype} {other.shape} for an image, and the training split {one.dtype} {one.shape}"
    conditions = [
        {name: (of.dtype, of.shape[1:]) for name, of in named_conditions(split.condition).items()}
        for split in (train, test)
    ]
    if conditions[0] != conditions[1]:
        return "conditions of another form than the training split"
    if one.classes is not None and other.classes is not None and other.classes > one.classes:
        return f"{other.classes} classes, and the training split {one.classes}"
    return ""


def _image_hashes(dataset: Dataset) -> list[int]:
    """A hash of each of a data set's images, sorted: in any order of the images they are the same."""
    images = range(0, len(dataset.images), 1024)
    return sorted(hash(row.tobytes()) for start in images for row in dataset.images[start : start + 1024].numpy())


def _check_again(inspection: Inspection, splits: dict[str, Dataset], whose: list[str]) -> None:
    """Checks that a data set that is loaded a second time has the same fingerprint, and the same conditions.

    Adds to `whose` the global random number generators that loading advances.
    """
    at = inspection.line_of("build")
    for split, dataset in splits.items():
        again: list[Dataset] = []
        load = partial(inspection.fresh().build, places(), split)
        if drawn := global_generators_used(lambda load=load, again=again: again.append(load())):  # type: ignore[misc]
            whose.append(drawn)
        one, other, of = dataset.fingerprint, again[0].fingerprint, "" if split == "train" else ", of its test split"
        if not isinstance(one, str) or not one:
            raise Fault(f"its fingerprint is {one!r}, expected a sha256 of the pixels", at)
        if one != other:
            raise Fault(f"loaded a second time it has another fingerprint{of}: its images are not the same", at)
        if first_difference(named_conditions(dataset.condition), named_conditions(again[0].condition)) is not None:
            raise Fault(f"loaded a second time it has other conditions{of}", at)


def _check_randomness(inspection: Inspection, whose: list[str]) -> None:
    """Checks that loading a data set draws no global random numbers."""
    if whose:
        raise Fault(f"build draws {whose[0]} global random numbers", inspection.line_of("build"))


def _check_trains(splits: dict[str, Dataset], tiny: TinyTraining) -> None:
    """Checks that a tiny training on the data set changes all weights."""
    tiny.shape = tuple(splits["train"].images.shape[1:])
    check_trains(tiny)
