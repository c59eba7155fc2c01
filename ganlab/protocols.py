"""What each kind of component must be: the contracts between the core and every plugin.

Decisions:
- A component is an `attrs.frozen` class whose fields are its options, so they are its keys in the experiment file.
  A loss, wrapper, penalty, augmentation, schedule or metric *is* that class. A network, optimiser, data set, feature
  extractor or tracker has state, so its class is a configuration with `build(...)`.
- What runs inside the step (loss, wrapper, penalty, augmentation, networks) maps tensors to tensors: no `.item()`, no
  printing, no branch on a tensor's value or on the step. What runs beside it may do as it likes.
- The core hands over arguments by place, so an author names them as he likes, and it never hands over more: what is new
  becomes a field of `Step`, `Evaluation`, `ImageSpec`, `Places` or `Task`, with a default, so that no plugin breaks.
- Images are float32 in [-1, 1] inside the step and uint8 outside it; always (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from attrs import field, frozen

from ganlab.options import Interval

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ganlab.runfolder import RunFolder

Direction = Literal["lower", "higher"]


@frozen
class ImageSpec:
    """The shape of the images that a network makes or judges. `classes` is None for images without class labels."""

    channels: int
    height: int
    width: int
    classes: int | None = None


@frozen
class Places:
    """Where data sets lie (`$GANLAB_DATA`) and where what can be made again is kept (`$GANLAB_CACHE`)."""

    data: Path
    cache: Path


# ---------------------------------------------------------------------------------------------------------------------
# Networks and their optimisers
# ---------------------------------------------------------------------------------------------------------------------


class Generator(Protocol):
    """An `nn.Module` that makes images in [-1, 1], shape (N, C, H, W), from latents of shape (N, latent_dim).

    `condition` is None, class labels (N,) or images (N, C, H, W).
    """

    latent_dim: int

    def __call__(self, z: Tensor, condition: Tensor | None, /) -> Tensor: ...


class Discriminator(Protocol):
    """An `nn.Module` that judges images in [-1, 1], shape (N, C, H, W).

    It returns logits of shape (N,), where more means more real, or an object that carries them as `logits`. It never
    applies a sigmoid: the loss owns it.
    """

    def __call__(self, images: Tensor, condition: Tensor | None, /) -> Any: ...


@runtime_checkable
class NetworkConfig(Protocol):
    """The options of a generator or a discriminator."""

    def build(self, images: ImageSpec, /) -> nn.Module:
        """Makes the network for images of this shape, or raises `ComponentError` where it cannot."""
        ...


@runtime_checkable
class OptimizerConfig(Protocol):
    """The options of an optimiser."""

    def build(self, parameters: Iterable[nn.Parameter], /) -> torch.optim.Optimizer:
        """Makes the optimiser of one player."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# The terms of the game
# ---------------------------------------------------------------------------------------------------------------------


@runtime_checkable
class Loss(Protocol):
    """Both players' objectives on logits. Each method is given both batches of logits, (N,), and returns a scalar.

    `generator` may leave `real` unused: build finds that out, and only where it is used does the step compute it.

    A loss may also have `measures(real, fake)`: scalars by name, of the discriminator's logits at its update, that are
    logged beside the losses.
    """

    def discriminator(self, real: Tensor, fake: Tensor, /) -> Tensor: ...

    def generator(self, real: Tensor, fake: Tensor, /) -> Tensor: ...


@runtime_checkable
class TargetedLoss(Loss, Protocol):
    """A loss that compares the discriminator's logits with a label for real and one for fake."""

    def with_targets(self, *, real: float, fake: float) -> TargetedLoss:
        """A copy whose discriminator is trained towards these labels."""
        ...


@runtime_checkable
class LossWrapper(Protocol):
    """Turns a loss into another. Raises `ComponentError` for a loss that it cannot wrap."""

    def __call__(self, loss: Loss, /) -> Loss: ...


@frozen
class Step:
    """What a penalty sees of one update, or of a part of its batch (`train.accumulate`).

    Tensors are on the run's device; images are (N, C, H, W) in [-1, 1].

    `player` says whose update it is. In the discriminator's, `fake` carries no gradient; in the generator's, the
    discriminator's parameters are frozen, and `real` and `real_logits` are None unless the loss uses them.
    `images_seen` is a 0-dim int64 tensor that the loop fills, not a Python number, so that a step can be captured.
    """

    player: str
    generator: nn.Module
    discriminator: nn.Module
    real: Tensor | None
    fake: Tensor
    real_logits: Any
    fake_logits: Any
    condition: Tensor | None
    images_seen: Tensor

    def judge(self, images: Tensor) -> Tensor:
        """The discriminator's logits (N,) of other images (N, C, H, W), as many as the batch has, for its condition.

        They are not augmented, and are computed in float32 under bfloat16 too, in which second derivatives are noise.
        """
        import torch

        with torch.autocast(images.device.type, enabled=False):
            output = self.discriminator(images, self.condition)
        logits: Tensor = output if isinstance(output, torch.Tensor) else output.logits
        return logits

    def generate(self, z: Tensor) -> Tensor:
        """Images (N, C, H, W) that the generator makes of other latents (N, latent_dim), for the batch's condition.

        N is at most the batch's: the first N conditions are taken. As with `judge`, all is computed in float32 under
        bfloat16 too. It is one more pass in training mode: batch norm's running statistics take it in, as they do a
        batch, and dropout draws for it.
        """
        import torch

        condition = None if self.condition is None else self.condition[: len(z)]
        with torch.autocast(z.device.type, enabled=False):
            images: Tensor = self.generator(z, condition)
        return images

    def mean_of_all(self, value: Tensor) -> Tensor:
        """The mean over processes of a tensor of each, without a gradient: for a state that must be the same in all."""
        from ganlab import ranks

        return ranks.averaged(value.detach().clone())

    def gradient_at(self, images: Tensor) -> Tensor:
        """The gradient (N, C, H, W) of each image's logit by the image, itself differentiable, as `judge` computes it.

        With batch norm a logit depends on other images too; as is usual, the gradient of the sum of logits is taken.
        """
        import torch

        at = images.detach().requires_grad_()
        # The way back is computed under autocast too, where that is on.
        with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(self.judge(at).sum(), at, create_graph=True)
        return gradient


@runtime_checkable
class Penalty(Protocol):
    """A scalar added to one player's loss, in the same backward pass.

    `player` is "generator" or "discriminator". `every` is the interval in updates of that player (lazy regularisation,
    Karras et al. 2020, arXiv:1912.04958): the term is added on every k-th update, multiplied by k, so that its weight
    keeps its meaning.
    """

    @property
    def player(self) -> str: ...

    @property
    def every(self) -> int: ...

    def penalty(self, step: Step, /) -> Tensor: ...


@runtime_checkable
class Augmentation(Protocol):
    """A differentiable change of each image for itself, applied to all that the discriminator sees, real and fake.

    It may also have `observe(real_logits)`: in each update of the discriminator it is given the logits (N,) of the real
    images, as it augmented them, of all processes and without a gradient. What it keeps of them are tensors that it
    changes in place and gives in `state_dict`. It may also have `measures()`: scalars by name that are then logged.
    """

    def augment(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class Schedule(Protocol):
    """How an option changes while a run goes on: a plain number at each step, computed beside the step.

    `key` names the option as `--set` does: "optimizer.lr", "penalty.0.gamma". The schedule's own options that are an
    `Interval` are in steps, whatever the experiment file has, when `value` is called.
    """

    @property
    def key(self) -> str: ...

    def value(self, first: float, step: int, total: int, /) -> float:
        """What the option has in a step, counted from 0, of a run of `total` steps; the file gives it `first`.

        A function of its arguments alone, so that a resumed run goes on with the same values.
        """
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Data and scores
# ---------------------------------------------------------------------------------------------------------------------


class Dataset(Protocol):
    """Images held as one uint8 tensor (N, C, H, W), on the CPU; `ganlab.ImageDataset` is one.

    The images are to be read, not written. They may lie in a file (`ganlab.MappedImages`), so take a part at a time.

    `condition` is None or one entry an image: class labels (N,) int64, or images (N, C, H, W) uint8. `fingerprint`
    is a sha256 of the pixels, so that a score can say what it was measured against.
    """

    @property
    def images(self) -> Tensor: ...

    @property
    def condition(self) -> Tensor | None: ...

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class DatasetConfig(Protocol):
    """The options of a data set."""

    def build(self, places: Places, split: str, /) -> Dataset:
        """Loads "train" or "test", downloading it first where that is possible.

        Raises `ComponentError` for data that is missing or unreadable, or for a split that there is none of.
        """
        ...


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


class Features(Protocol):
    """Maps uint8 images (N, C, H, W) to float32 features (N, dim). `fingerprint` is a hash of its weights.

    Features that also classify may have `logits(images)`: class logits (N, classes) of uint8 images (N, C, H, W).
    Features that can tell that an image is of no class may have `belongs(images)`: bool (N,).
    """

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def preprocessing(self) -> str: ...

    def __call__(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class FeaturesConfig(Protocol):
    """The options of a feature extractor."""

    def build(self, evaluation: Evaluation, /) -> Features:
        """Loads or trains the network; raises `ComponentError` where it cannot."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Beside the step
# ---------------------------------------------------------------------------------------------------------------------


class Tracker(Protocol):
    """A place where records go, as they are written to the run folder."""

    def log(self, record: Mapping[str, Any], /) -> None:
        """Takes a record of `log.jsonl` (a tick) or of `metrics.jsonl` (a value)."""
        ...

    def samples(self, step: int, path: Path, /) -> None:
        """Takes the sample grid that was just drawn."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class TrackerConfig(Protocol):
    """The options of a tracker.

    It may also have `prepare()`, called before a run folder is made, to raise `ComponentError` where it cannot work,
    such as where a package is missing.
    """

    def build(self, run: RunFolder, /) -> Tracker:
        """Opens it before the first step. On resume (`run.resumed_from`) what it holds of later steps is void, since
        these are taken again; `run.ticks()` and `run.scores()` are the records that hold."""
        ...


@frozen
class Task:
    """One run of a sweep: a command that can be started again and again until it has finished, and where it prints."""

    name: str
    command: tuple[str, ...]
    log: Path


@runtime_checkable
class Launcher(Protocol):
    """Runs the tasks of a sweep somewhere, `jobs` at a time, and yields (task, exit code) as each ends.

    A failed task never stops the others. Closing the iterator asks those that run to save and end, and waits for them.
    """

    def launch(self, tasks: Sequence[Task], jobs: int, /) -> Iterator[tuple[Task, int]]: ...
