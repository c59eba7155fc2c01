"""Scores of each class: a metric of one class's generated images against the data's images of that class alone.

Of FID that is the intra-FID of Miyato and Koyama 2018 (arXiv:1802.05637); here it is any metric's.

Decisions:
- A metric knows nothing of it. It is handed an `Evaluation` whose images, real and generated, are of one class, so what
  it keeps on disk lies under that class's fingerprint.
- Features are built from the whole data set, once for all classes: what learns from labels learns nothing of one.
- A class that a metric refuses, such as one with too few images, is left out and told. The mean is over the others,
  which its protocol names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ganlab.data.dataset import ImageDataset, class_labels_of
from ganlab.evaluation.evaluator import Evaluator, MetricRunner
from ganlab.protocols import Dataset, Places
from ganlab.utils.errors import ComponentError

MEAN = "mean"


def per_class_name(value: str, label: int | str) -> str:
    """What a value is called that was taken of one class, "fid[3]", or of the mean over classes, "fid[mean]"."""
    return f"{value}[{label}]"


def class_evaluator(label: int, whole: MetricRunner) -> Evaluator:
    """The scorer against the images of one class, with the features of the scoring of all of them."""
    scorer = whole.scorer
    one = _OneClassDataset(scorer.dataset, label)
    return Evaluator(one, None, scorer.places, scorer.device, scorer.floors, whole.evaluation)


@frozen(eq=False)
class _OneClassDataset:
    """A `DatasetConfig`: of a data set the images of one class, in their order."""

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
        return ImageDataset(dataset.images[chosen], dataset.name, split, labels[chosen], classes)


def mean_over_classes(by_label: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A record for each value: its mean over the classes whose records are given, and over their floors."""
    by_value: dict[str, dict[int, Mapping[str, Any]]] = {}
    for label, records in by_label.items():
        for record in records:
            by_value.setdefault(record["name"].removesuffix(per_class_name("", label)), {})[label] = record
    return [_mean_record(value, of) for value, of in by_value.items()]


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
    return mean | {"protocol": protocol, "seconds": round(sum(record["seconds"] for record in records), 3)}


def _merge_protocols(protocols: Sequence[Any]) -> Any:
    """What is equal in all as it is, and a list of what is not, in the classes' order."""
    first = protocols[0]
    if all(isinstance(protocol, Mapping) and protocol.keys() == first.keys() for protocol in protocols):
        return {key: _merge_protocols([protocol[key] for protocol in protocols]) for key in first}
    return first if all(protocol == first for protocol in protocols) else list(protocols)
