"""The protocol of a metric, the `Evaluation` that it is given and the `Scores` that it returns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from attrs import field, frozen

from ganlab.protocols.dataset import Dataset
from ganlab.utils.errors import ComponentError
from ganlab.utils.interval import Interval
from ganlab.utils.paths import Places

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Direction = Literal["lower", "higher"]


def _gather_of_one_process(rows: Tensor) -> Tensor:
    """The rows of one process are all rows."""
    return rows


def _no_conditioned_images(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields nothing: conditions are unknown."""
    return iter(())


def _outputs_of_no_game(name: str, split: str) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Refuses: what is scored is no game."""
    raise ComponentError(f"only the networks of a run have an output {name!r}; these are images alone")


def _compute_without_cache(key: Hashable, compute: Callable[[], Any]) -> Any:
    """Computes the value each time."""
    return compute()


@frozen
class Evaluation:
    """A metric's protocol, what it is given: generated images, the reference data set, a cache shared with others.

    `generated(count, seed)` yields uint8 batches (n, C, H, W) on the run's device, from the evaluated generator in eval
    mode, with a random stream of its own; equal seeds give equal images. `conditioned(count, seed)` yields the same
    batches, each with its condition: class labels (n,), images (n, C, H, W), or None.
    `dataset(split)` loads a split of the experiment's data set. `progress(what, done, total)` reports the progress of a
    slow metric; the metric may be interrupted there.

    `outputs(name, split)` yields what the game makes of a split of the data set, in order: batches (output, images,
    condition) on the device. `output` is what `Rules.outputs` of that name returned, images are float32 (n, C, H, W) in
    [-1, 1], and their conditions as networks are given them. It raises `ComponentError` at once, also in `prepare`,
    where the game has no such output or the data no such split. In `prepare` there are no batches yet. A score that was
    made of outputs has no floor.

    On many processes `generated` and `outputs` yield this process's share. `gather(rows)` returns the rows (n, …) of
    all processes in the order of the images; every process must call it. `keep(key, compute)` returns the cached value
    of the key, and computes it on first use: metrics that score the same images share their features so.

    Where only one class is scored, as in `ganlab eval --per-class`, `whole` is the evaluation of all classes, from
    which `built_features` builds features.
    """

    generated: Callable[[int, int], Iterator[Tensor]]
    dataset: Callable[[str], Dataset]
    device: torch.device
    places: Places
    progress: Callable[[str, int, int], None]
    gather: Callable[[Tensor], Tensor] = _gather_of_one_process
    keep: Callable[[Hashable, Callable[[], Any]], Any] = _compute_without_cache
    conditioned: Callable[[int, int], Iterator[tuple[Tensor, Tensor | None]]] = _no_conditioned_images
    whole: Evaluation | None = None
    outputs: Callable[[str, str], Iterator[tuple[Tensor, Tensor, Tensor | None]]] = _outputs_of_no_game


@frozen
class Scores:
    """A metric's protocol, its result: named values, and `protocol`, all that they depend on but the generator.

    `better` says for each value whether "lower" or "higher" is better; a value that it omits is not ranked. `details`
    holds protocol entries of single values, by the value's name.
    """

    values: Mapping[str, float]
    protocol: Mapping[str, Any]
    better: Mapping[str, Direction]
    details: Mapping[str, Mapping[str, Any]] = field(factory=dict)


@runtime_checkable
class Metric(Protocol):
    """A metric's protocol: scores a generator at the interval `every`; 0 means before and after training only.

    Optional method `prepare(evaluation)`: called before the run folder exists, without a generator. It loads or trains
    what is expensive, and raises `ComponentError` where that is impossible.
    """

    @property
    def every(self) -> Interval: ...

    def evaluate(self, evaluation: Evaluation, /) -> Scores: ...
