"""ganlab.protocols.metric."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from attrs import field, frozen

from ganlab.protocols.dataset import Dataset
from ganlab.utils.interval import Interval
from ganlab.utils.paths import Places

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Direction = Literal["lower", "higher"]


def _as_they_are(rows: Tensor) -> Tensor:
    """The rows of all processes, where there is one."""
    return rows


def _unknown(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """No images of which it is known what they were made for."""
    return iter(())


def _computed(key: Hashable, compute: Callable[[], Any]) -> Any:
    """Keeps nothing."""
    return compute()


@frozen
class Evaluation:
    """What a metric is given: images to score, data to score them against, and a place to keep what is costly.

    `generated(count, seed)` yields uint8 batches (n, C, H, W) on the run's device, from the evaluation network in eval
    mode, with a random stream of its own; equal seeds give equal images. `conditioned(count, seed)` yields the same
    batches, each with the class labels (n,) or the images (n, C, H, W) that it was made for, None where there are none.
    `dataset(split)` loads a split of the experiment's data. `progress(what, done, total)` shows how far a long metric
    is, and is where it may be interrupted.

    On many processes `generated` yields this one's share of the count. `gather(rows)` gives the rows (n, …) of all of
    them, in the order of the images; every process must call it. `keep(key, compute)` gives what `compute` gave to the
    metric that asked for the key first: metrics that score the same images need not compute the same twice.

    Where all this is of one class alone, as in `ganlab eval --per-class`, `whole` is the evaluation of all classes,
    from which `built_features` builds features.
    """

    generated: Callable[[int, int], Iterator[Tensor]]
    dataset: Callable[[str], Dataset]
    device: torch.device
    places: Places
    progress: Callable[[str, int, int], None]
    gather: Callable[[Tensor], Tensor] = _as_they_are
    keep: Callable[[Hashable, Callable[[], Any]], Any] = _computed
    conditioned: Callable[[int, int], Iterator[tuple[Tensor, Tensor | None]]] = _unknown
    whole: Evaluation | None = None


@frozen
class Scores:
    """Named values and the protocol that produced them: everything that a value depends on but the generator.

    `better` says for each value whether "lower" or "higher" is better; a value it leaves out is not ranked. `details`
    is what only one value's protocol has besides: value's name to entries.
    """

    values: Mapping[str, float]
    protocol: Mapping[str, Any]
    better: Mapping[str, Direction]
    details: Mapping[str, Mapping[str, Any]] = field(factory=dict)


@runtime_checkable
class Metric(Protocol):
    """Scores a generator. `every` says how often: an `Interval`, where 0 means before and after training only.

    A metric may also have `prepare(evaluation)`. It is called before a run folder is made, without a generator, and is
    the place to load or train what is costly and to raise `ComponentError` where that cannot be.
    """

    @property
    def every(self) -> Interval: ...

    def evaluate(self, evaluation: Evaluation, /) -> Scores: ...
