"""The evaluator: computes metrics on generated or given images against a data set, with floors from real images.

Decisions:
- Images come from the evaluation network in eval mode, in the data's own type, with latents from their own random
  stream. Pixels are rounded.
- A record holds one score and its protocol, which is everything that it depends on.
- The floor of a score is what real images of the other split score. It is computed once and cached on disk.
- Under torchrun each rank generates its share of the images and metrics gather the features; the images and their
  number are those of one process.
- Evaluation never changes the training that follows: modes and global random states are restored.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab import __version__
from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.load_dataset import check_same_type, load_dataset
from ganlab.data.pixels import as_input
from ganlab.evaluation.game_outputs import GameOutputs
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampling import BATCH, sample
from ganlab.plugin.local_imports import is_local, local_imports
from ganlab.protocols import (
    Dataset,
    DatasetConfig,
    Evaluation,
    Metric,
    Places,
    Scores,
    map_condition,
    named_conditions,
)
from ganlab.protocols.condition import Condition
from ganlab.utils import distributed
from ganlab.utils.cache import cached_tensors
from ganlab.utils.errors import ComponentError, NoSplit, quote
from ganlab.utils.hashing import file_sha256, sha256, tensors_sha256
from ganlab.utils.progress import Progress, no_progress
from ganlab.utils.rng import derived_seed, preserve_random_state

FLOOR_FORMAT = 2
"""The cache format of floors; increase it when their computation changes."""

Images = Callable[[int, int], Iterator[tuple[Tensor, Condition]]]
"""Yields batches (n, C, H, W) of the data's type for a count and a seed, each with its conditions or None."""


def subset_batches(
    images: Tensor, count: int, seed: int, share: tuple[int, int] | None = None, condition: Condition = None
) -> Iterator[tuple[Tensor, Condition]]:
    """The evaluator's batches of given images (N, C, H, W): all in order, or a random subset of `count` if fewer.

    `share` is a half-open range of indices: only that part of them.
    """
    order = None
    if count < len(images):
        generator = torch.Generator().manual_seed(derived_seed(seed, "given"))
        order = torch.randperm(len(images), generator=generator)[:count]
    first, end = share or (0, min(count, len(images)))
    for start in range(first, end, BATCH):
        rows = slice(start, min(start + BATCH, end))
        which = rows if order is None else order[rows]
        yield images[which], map_condition(lambda part, which=which: as_input(part[which]), condition)


class Evaluator:
    """The evaluator of networks and images against a data set; it loads splits once. `floors`: also of real images.

    In an evaluator of a single class, `whole` makes the evaluation of all classes.
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
        self._trained = train
        self._known: dict[str, dict[str, Any] | None] = {}
        self._missing: set[str] = set()

    def dataset(self, split: str, progress: Progress = no_progress) -> Dataset:
        if split not in self._splits:
            loaded = load_dataset(self._config, self.places, split, progress)
            if self._trained is not None:
                check_same_type(loaded, self._trained)
            self._splits[split] = loaded
        return self._splits[split]

    def loaded(self, split: str) -> Dataset | None:
        """The evaluator's data set if it has been needed so far."""
        return self._splits.get(split)

    def prepare(self, metric: Metric, progress: Progress = no_progress, outputs: GameOutputs | None = None) -> None:
        """The evaluator prepares a metric, which loads what it needs or raises ComponentError before training."""
        if hasattr(metric, "prepare"):
            runner = MetricRunner(self, lambda count, seed: iter(()), "", outputs=outputs)
            with preserve_random_state():
                metric.prepare(runner.evaluation(progress))
            if outputs is not None:
                outputs.check_metric(runner.uses_outputs)

    def for_network(
        self,
        network: nn.Module,
        weights: str,
        conditions: ConditionSampler = UNCONDITIONAL,
        truncation: float | None = None,
        about: Mapping[str, Any] | None = None,
        outputs: GameOutputs | None = None,
    ) -> MetricRunner:
        """The evaluator's `MetricRunner` for the images of a network or a `NetworkSampler`, and a game's outputs.

        Protocols name `weights` ("ema" or "plain"). `about` are more entries of every score's protocol: what these
        images depend on besides.
        """

        def images(count: int, seed: int) -> Iterator[tuple[Tensor, Condition]]:
            return sample(
                network, count, seed, self.device, conditions, "metric", distributed.local_share(count), truncation
            )

        sampled: dict[str, Any] = {} if truncation is None else {"truncation": truncation}
        if isinstance(network, NetworkSampler) and network.options:
            sampled["options"] = network.options
        return MetricRunner(self, images, weights, {**sampled, **(about or {})}, outputs)

    def for_images(self, images: Tensor, condition: Condition = None) -> MetricRunner:
        """The evaluator's `MetricRunner` for images (N, C, H, W) of unknown origin, and their conditions."""

        def batches(count: int, seed: int) -> Iterator[tuple[Tensor, Condition]]:
            share = distributed.local_share(min(count, len(images)))
            return subset_batches(images, count, seed, share, condition)

        return MetricRunner(self, batches, "given")

    def evaluation(self, images: Images, progress: Progress, **more: Any) -> Evaluation:
        """The evaluator's `Evaluation` of these images, which it gives to a metric."""

        def conditioned(count: int, seed: int) -> Iterator[tuple[Tensor, Condition]]:
            for batch, condition in images(count, seed):
                yield batch.to(self.device), map_condition(lambda part: part.to(self.device), condition)

        return Evaluation(
            generated=lambda count, seed: (batch for batch, _ in conditioned(count, seed)),
            conditioned=conditioned,
            dataset=partial(self.dataset, progress=progress),
            device=self.device,
            places=self.places,
            progress=progress,
            whole=None if self._whole is None else self._whole(progress),
            **more,
        )

    def floor(self, metric: Metric, protocol: Mapping[str, Any], progress: Progress) -> dict[str, Any] | None:
        """The evaluator's floor of a metric: the scores of real images of the split that is not the reference.

        `protocol` is that of the scores. Returns the values, the split and the number of images, or None if there is no
        such split or the metric cannot score that many images (with one warning).
        """
        reference = protocol.get("reference")
        split = "train" if isinstance(reference, Mapping) and reference.get("split") == "test" else "test"
        if split in self._missing:
            return None
        try:
            real = self.dataset(split, progress)
        except ComponentError as error:
            if not isinstance(error, NoSplit):
                warnings.warn(f"{protocol.get('metric')}: no floor from real images: {error}", stacklevel=2)
            self._missing.add(split)
            return None
        # A protocol has everything that a score depends on except the images. The metric's options are in the key too,
        # since a third-party metric may omit one from its protocol.
        key = {"format": FLOOR_FORMAT, "protocol": protocol, "images": real.fingerprint, "options": repr(metric)}
        key["code"] = _code_sha256(type(metric).evaluate)  # which its author may edit without another version
        if real.condition is not None:  # a file that moved to another class's folder may leave the pixels as they are
            key["condition"] = tensors_sha256(named_conditions(real.condition))
        text = json.dumps(key, sort_keys=True)
        if text not in self._known:
            # Not split between ranks: the ranks that wait for the cache's lock could not take part.
            evaluation = self.evaluation(
                lambda count, seed: subset_batches(real.images, count, seed, condition=real.condition),
                lambda what, done, total: progress(f"floor: {what}", done, total),
            )

            def compute() -> dict[str, Tensor]:
                values = metric.evaluate(evaluation).values
                return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

            try:
                found = cached_tensors(self.places.cache / "floor", "floor", key, compute, progress)
            except ComponentError as error:
                warnings.warn(f"{protocol.get('metric')}: no floor from real images: {error}", stacklevel=2)
                self._known[text] = None
            else:
                values = {name: float(value) for name, value in found.items() if value.isfinite()}
                count = protocol.get("generated", len(real.images))
                self._known[text] = {"values": values, "split": split, "count": min(count, len(real.images))}
        return self._known[text]


@cache
def _code_sha256(evaluate: Callable[..., Any]) -> str:
    """A hash of the file that a metric's method is written in, and of the local files that it imports; "" without.

    What an installed plugin imports does not count: it may be all modules that are loaded, which differ between runs.
    """
    code = getattr(evaluate, "__code__", None)
    file = Path(code.co_filename) if code is not None else Path()
    if not file.is_file():  # written in a notebook
        return ""
    imports = local_imports(file) if is_local(file, getattr(evaluate, "__module__", None) or file.stem) else {}
    files = [file, *(imports[name] for name in sorted(imports))]
    return sha256(json.dumps([file_sha256(path) for path in files]).encode())


def _check_scores(scores: Any) -> None:
    """Raises ComponentError for bad scores."""
    if not isinstance(scores, Scores):
        raise ComponentError(f"evaluate gave {type(scores).__name__}, wanted ganlab.Scores")
    for name, value in scores.values.items():
        if not isinstance(value, (int, float)):
            raise ComponentError(f"the value {name!r} is {value!r}, wanted a number")
    for of, names in (("better", scores.better), ("details", scores.details)):
        if strange := [name for name in names if name not in scores.values]:
            raise ComponentError(f"{of} names {strange[0]!r}, and the values are {', '.join(scores.values)}")
    for name, better in scores.better.items():
        if better not in (None, "lower", "higher"):  # it would be ranked by some and not by others
            raise ComponentError(f"better is {quote(better)} for {name!r}, wanted 'lower' or 'higher'")


@define
class MetricRunner:
    """The evaluator of one set of images: runs metrics on it; shared results such as features are computed once.

    `about` are additional entries of every score's protocol. `outputs` are those of the game, None for images alone.
    """

    evaluator: Evaluator
    images: Images
    weights: str
    about: Mapping[str, Any] = field(factory=dict)
    outputs: GameOutputs | None = None
    _shared: dict[Hashable, Any] = field(factory=dict, init=False)
    uses_outputs: bool = field(default=False, init=False)

    def evaluation(self, progress: Progress) -> Evaluation:
        more = {} if self.outputs is None else {"outputs": partial(self._batches_of_output, self.outputs, progress)}
        gather = distributed.all_gather_rows
        return self.evaluator.evaluation(self.images, progress, gather=gather, keep=self._share, **more)

    def _batches_of_output(
        self, outputs: GameOutputs, progress: Progress, name: str, split: str
    ) -> Iterator[tuple[Tensor, Tensor, Condition]]:
        outputs.check(name)
        self.uses_outputs = True
        return outputs.batches(name, self.evaluator.dataset(split, progress), self.evaluator.device)

    def _share(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def score(self, metric: Metric, suffix: str = "", progress: Progress = no_progress) -> list[dict[str, Any]]:
        """The evaluator's records of a metric, one per value: name, value, better direction, floor, protocol, seconds.

        `suffix` is appended to the values' names, to distinguish two metrics of the same name.
        """
        start = time.perf_counter()
        self.uses_outputs = False
        with preserve_random_state():
            scores = metric.evaluate(self.evaluation(progress))
        seconds = round(time.perf_counter() - start, 3)
        _check_scores(scores)
        machine = {
            "versions": {"ganlab": __version__, "torch": torch.__version__},
            "device": self.evaluator.device.type,
        }
        with preserve_random_state():
            rests_on = {**scores.protocol, "details": scores.details, **machine}
            wanted = self.evaluator.floors and not self.uses_outputs  # real images by themselves have no outputs
            floor = self.evaluator.floor(metric, rests_on, progress) if wanted else None
        about = {**self.about, **(self.outputs.about if self.uses_outputs and self.outputs else {})}
        records = []
        for name, value in scores.values.items():
            record = {"name": f"{name}{suffix}", "value": float(value), "better": scores.better.get(name)}
            if floor is not None and name in floor["values"] and name in scores.better:
                record["floor"] = {"value": floor["values"][name], "split": floor["split"], "count": floor["count"]}
            protocol = {**scores.protocol, **scores.details.get(name, {}), "weights": self.weights, **about}
            records.append({**record, "protocol": protocol | machine, "seconds": seconds})
        return records
