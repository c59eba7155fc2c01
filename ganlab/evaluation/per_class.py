"""Scores per class: any metric of one class's generated images against the real images of that class.

For FID this is the intra-FID of Miyato and Koyama 2018 (arXiv:1802.05637).

Decisions:
- Metrics need no code for it. They get an `Evaluation` whose real and generated images are of one class, so their disk
  cache is keyed by that class's fingerprint.
- Features are built once from the whole data set, since a classifier cannot be trained on a single class.
- A class that a metric cannot score, such as one with too few images, is left out with a warning. The mean is over the
  other classes, which its protocol names. There is no mean over a single class: it would repeat that class's score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ganlab.data.class_labels import class_labels_of
from ganlab.data.dataset import ImageDataset
from ganlab.evaluation.evaluator import Evaluator, MetricRunner
from ganlab.protocols import Dataset, Places, map_condition
from ganlab.utils.errors import ComponentError

MEAN = "mean"


def per_class_name(value: str, label: int | str) -> str:
    """The per-class name of a score, "fid[3]", or of the mean over classes, "fid[mean]"."""
    return f"{value}[{label}]"


def class_evaluator(label: int, whole: MetricRunner) -> Evaluator:
    """For per-class scores: an evaluator against the images of one class, with the features of all classes."""
    evaluator = whole.evaluator
    one = _OneClassDataset(evaluator.dataset, label)
    return Evaluator(one, None, evaluator.places, evaluator.device, evaluator.floors, whole.evaluation)


@frozen(eq=False)
class _OneClassDataset:
    """For per-class scores: a `DatasetConfig` with the images of one class of a data set, in their order."""

    whole: Callable[[str], Dataset]
    label: int

    def build(self, places: Places, split: str) -> Dataset:
        dataset = self.whole(split)
        labels = class_labels_of(dataset)
        if labels is None:
            raise ComponentError(f"{dataset.name} ({split}) has no class labels")
        chosen = (labels == self.label).nonzero()[:, 0]
        if len(chosen) == 0:
            raise ComponentError(f"{dataset.name} ({split}) has no image of class {self.label}")
        classes = getattr(dataset, "classes", ())
        condition = map_condition(lambda part: part[chosen], dataset.condition)
        return ImageDataset(dataset.images[chosen], dataset.name, split, condition, classes)


def mean_over_classes(by_label: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Averages per-class records: for each value the mean of the score and of the floor over two or more classes."""
    by_value: dict[str, dict[int, Mapping[str, Any]]] = {}
    for label, records in by_label.items():
        for record in records:
            by_value.setdefault(record["name"].removesuffix(per_class_name("", label)), {})[label] = record
    return [_mean_record(value, of) for value, of in by_value.items() if len(of) > 1]


def _mean_record(value: str, of: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    records = list(of.values())
    mean: dict[str, Any] = {
        "name": per_class_name(value, MEAN),
        "value": sum(record["value"] for record in records) / len(records),
        "better": records[0]["better"],
    }
    floors = [record["floor"] for record in records if "floor" in record]
    if len(floors) == len(records):
        middle = sum(floor["value"] for floor in floors) / len(floors)
        mean["floor"] = floors[0] | {"value": middle, "count": sum(floor["count"] for floor in floors)}
    protocol = _merge_protocols([record["protocol"] for record in records]) | {"class": MEAN, "classes": list(of)}
    if protocol.pop("class_name", None) is not None:
        protocol["class_names"] = [record["protocol"]["class_name"] for record in records]
    return mean | {"protocol": protocol, "seconds": round(sum(record["seconds"] for record in records), 3)}


def _merge_protocols(protocols: Sequence[Any]) -> Any:
    """Merges the protocols of per-class scores: equal entries as they are, others as a list in the classes' order."""
    first = protocols[0]
    if all(isinstance(protocol, Mapping) and protocol.keys() == first.keys() for protocol in protocols):
        return {key: _merge_protocols([protocol[key] for protocol in protocols]) for key in first}
    return first if all(protocol == first for protocol in protocols) else list(protocols)
