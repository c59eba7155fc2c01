"""Looking at a generator: drawing images from it, and scoring images by metrics.

Decisions:
- Images come from the evaluation network in eval mode, rounded to uint8, with latents from a stream of their own.
- A record holds one value and everything that it depends on: no score without its protocol.
- Beside a score stands its floor, what real images of the other split score. It is computed once and kept on disk.
- On many processes each draws its share of the images, and metrics put the features together: the count is exact, the
  images are those of one process.
- Nothing here changes the training that follows: modes and global random states are put back.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab import __version__
from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.pixels import condition_as_input
from ganlab.evaluation.sampling import BATCH, sample
from ganlab.protocols import Dataset, DatasetConfig, Evaluation, Metric, Places, Scores
from ganlab.utils import distributed
from ganlab.utils.cache import cached_tensors
from ganlab.utils.errors import ComponentError
from ganlab.utils.rng import derived_seed, preserve_random_state

FLOOR_FORMAT = 1
"""Raise it when how a floor is computed changes."""

Images = Callable[[int, int], Iterator[tuple[Tensor, Tensor | None]]]
"""uint8 batches (n, C, H, W) for a count and a seed, with what each image was to be of, where that is known."""

Progress = Callable[[str, int, int], None]


def _no_progress(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def subset_batches(
    images: Tensor, count: int, seed: int, share: tuple[int, int] | None = None, condition: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of all the images (N, C, H, W) in their order, or of `count` random ones where that is fewer.

    `share` is a first and an end number: only that part of them.
    """
    order = None
    if count < len(images):
        generator = torch.Generator().manual_seed(derived_seed(seed, "given"))
        order = torch.randperm(len(images), generator=generator)[:count]
    first, end = share or (0, min(count, len(images)))
    for start in range(first, end, BATCH):
        rows = slice(start, min(start + BATCH, end))
        which = rows if order is None else order[rows]
        yield images[which], None if condition is None else condition_as_input(condition[which])


class Evaluator:
    """Scores images against a data set; loads each split of it once. `floors`: also score real images, once.

    Of a scorer against one class alone `whole` is the evaluation of all of them.
    """

    def __init__(
        self,
        config: DatasetConfig,
        train: Dataset | None,
        where: Places,
        device: torch.device,
        floors: bool = True,
        whole: Callable[[Progress], Evaluation] | None = None,
    ) -> None:
        self._config, self._splits = config, {} if train is None else {"train": train}
        self.places, self.device, self.floors, self._whole = where, device, floors, whole
        self._known: dict[str, dict[str, Any] | None] = {}
        self._missing: set[str] = set()

    def dataset(self, split: str) -> Dataset:
        if split not in self._splits:
            self._splits[split] = self._config.build(self.places, split)
        return self._splits[split]

    def prepare(self, metric: Metric, progress: Progress = _no_progress) -> None:
        """Lets a metric load what it needs, or refuse, before there is anything to score."""
        if hasattr(metric, "prepare"):
            with preserve_random_state():
                metric.prepare(MetricRunner(self, lambda count, seed: iter(()), "").evaluation(progress))

    def generator(
        self,
        network: nn.Module,
        weights: str,
        conditions: ConditionSampler = UNCONDITIONAL,
        truncation: float | None = None,
    ) -> MetricRunner:
        """The scoring of a generator as it is now. `weights` says whose weights it has: "ema" or "plain"."""

        def images(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
            return sample(
                network, count, seed, self.device, conditions, "metric", distributed.local_share(count), truncation
            )

        return MetricRunner(self, images, weights, {} if truncation is None else {"truncation": truncation})

    def given(self, images: Tensor) -> MetricRunner:
        """The scoring of images (N, C, H, W) uint8 of which it is not known what made them."""

        def batches(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
            share = distributed.local_share(min(count, len(images)))
            return subset_batches(images, count, seed, share)

        return MetricRunner(self, batches, "given")

    def evaluation(self, images: Images, progress: Progress, **more: Any) -> Evaluation:
        """What a metric is given to score these images."""

        def conditioned(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
            for batch, condition in images(count, seed):
                yield batch.to(self.device), None if condition is None else condition.to(self.device)

        return Evaluation(
            generated=lambda count, seed: (batch for batch, _ in conditioned(count, seed)),
            conditioned=conditioned,
            dataset=self.dataset,
            device=self.device,
            places=self.places,
            progress=progress,
            whole=None if self._whole is None else self._whole(progress),
            **more,
        )

    def floor(self, metric: Metric, protocol: Mapping[str, Any], progress: Progress) -> dict[str, Any] | None:
        """What real images of the split that is not the reference score: the values, the split, how many images.

        `protocol` is the scores' own, with all details. None where there is no such split, or where the metric refuses
        as many images as there are, which is told once.
        """
        reference = protocol.get("reference")
        split = "train" if isinstance(reference, Mapping) and reference.get("split") == "test" else "test"
        if split in self._missing:
            return None
        try:
            real = self.dataset(split)
        except ComponentError:
            self._missing.add(split)
            return None
        # A protocol holds all that a value depends on but the images.
        # And of a stranger's metric an option may be missing in it.
        key = {"format": FLOOR_FORMAT, "protocol": protocol, "images": real.fingerprint, "options": repr(metric)}
        text = json.dumps(key, sort_keys=True)
        if text not in self._known:
            # Not shared out between processes: those that wait for the cache's lock could not take part.
            evaluation = self.evaluation(
                lambda count, seed: subset_batches(real.images, count, seed, condition=real.condition),
                lambda what, done, total: progress(f"floor: {what}", done, total),
            )

            def compute() -> dict[str, Tensor]:
                values = metric.evaluate(evaluation).values
                return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

            try:
                found = cached_tensors(self.places.cache / "floor", "floor", key, compute)
            except ComponentError as error:
                warnings.warn(f"{protocol.get('metric')}: no floor from real images: {error}", stacklevel=2)
                self._known[text] = None
            else:
                values = {name: float(value) for name, value in found.items() if value.isfinite()}
                count = protocol.get("generated", len(real.images))
                self._known[text] = {"values": values, "split": split, "count": min(count, len(real.images))}
        return self._known[text]


def _check_scores(scores: Any) -> None:
    """Refuses what is not the `Scores` that a metric must give."""
    if not isinstance(scores, Scores):
        raise ComponentError(f"evaluate gave {type(scores).__name__}, wanted ganlab.Scores")
    for name, value in scores.values.items():
        if not isinstance(value, (int, float)):
            raise ComponentError(f"the value {name!r} is {value!r}, wanted a number")
    for of, names in (("better", scores.better), ("details", scores.details)):
        if strange := [name for name in names if name not in scores.values]:
            raise ComponentError(f"{of} names {strange[0]!r}, and the values are {', '.join(scores.values)}")


@define
class MetricRunner:
    """Scores one lot of images by several metrics; what two of them need, such as features, is computed once.

    `about` is what the protocol of each of its scores also says.
    """

    scorer: Evaluator
    images: Images
    weights: str
    about: Mapping[str, Any] = field(factory=dict)
    _kept: dict[Hashable, Any] = field(factory=dict, init=False)

    def evaluation(self, progress: Progress) -> Evaluation:
        return self.scorer.evaluation(self.images, progress, gather=distributed.all_gather_rows, keep=self._keep)

    def _keep(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def score(self, metric: Metric, suffix: str = "", progress: Progress = _no_progress) -> list[dict[str, Any]]:
        """One record for each value of a metric: name, value, which direction is better, floor, protocol, seconds.

        `suffix` goes behind the values' names, to tell two metrics of one name apart.
        """
        start = time.perf_counter()
        with preserve_random_state():
            scores = metric.evaluate(self.evaluation(progress))
        seconds = round(time.perf_counter() - start, 3)
        _check_scores(scores)
        machine = {
            "versions": {"ganlab": __version__, "torch": torch.__version__},
            "device": self.scorer.device.type,
        }
        with preserve_random_state():
            rests_on = {**scores.protocol, "details": scores.details, **machine}
            floor = self.scorer.floor(metric, rests_on, progress) if self.scorer.floors else None
        records = []
        for name, value in scores.values.items():
            record = {"name": f"{name}{suffix}", "value": float(value), "better": scores.better.get(name)}
            if floor is not None and name in floor["values"] and name in scores.better:
                record["floor"] = {"value": floor["values"][name], "split": floor["split"], "count": floor["count"]}
            protocol = {**scores.protocol, **scores.details.get(name, {}), "weights": self.weights, **self.about}
            records.append({**record, "protocol": protocol | machine, "seconds": seconds})
        return records
