"""An incomplete component of every kind; a type checker says so at the lines that end in `# wrong`, and at no other."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen
from torch import Tensor, nn

import ganlab
from ganlab import Register


@frozen
class NoBuild:
    """A network, optimiser, data set, feature extractor or tracker that cannot be built."""

    hidden: int = 8


@frozen
class BuildsNothing:
    def build(self, images: ganlab.ImageSpec) -> None: ...


@frozen
class BuildsOfNothing:
    """The same, told nothing of what it is for."""

    def build(self) -> nn.Module:
        return nn.Identity()


@frozen
class HalfLoss:
    margin: float = 1.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - real).mean()


@frozen
class OneSided:
    """Its generator is told of the fake logits only."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - real).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()


@frozen
class Number:
    """A loss that gives a Python number."""

    def discriminator(self, real: Tensor, fake: Tensor) -> float:
        return float((fake - real).mean())

    def generator(self, real: Tensor, fake: Tensor) -> float:
        return -float(fake.mean())


@frozen
class WrapsNothing:
    weight: float = 1.0

    def wrap(self, loss: ganlab.Loss) -> ganlab.Loss:
        return loss


@frozen
class NoEvery:
    player: str = "discriminator"

    def penalty(self, step: ganlab.Step) -> Tensor:
        return step.fake.mean()


@frozen
class EveryText:
    player: str = "discriminator"
    every: str = "16"

    def penalty(self, step: ganlab.Step) -> Tensor:
        return step.fake.mean()


@frozen
class Augments:
    def augments(self, images: Tensor) -> Tensor:
        return images


@frozen
class Plain:
    def build(self, parameters: Iterable[nn.Parameter]) -> Iterable[nn.Parameter]:
        return parameters


@frozen
class NoTotal:
    key: str = "optimizer.lr"

    def value(self, first: float, step: int) -> float:
        return first


@frozen
class NoSplit:
    def build(self, places: ganlab.Places) -> ganlab.ImageDataset:
        raise ganlab.ComponentError(f"nothing in {places.data}")


@frozen
class FeaturesOfNoName:
    dim: int = 1

    def __call__(self, images: Tensor) -> Tensor:
        return images


@frozen
class BuildsIncomplete:
    def build(self, evaluation: ganlab.Evaluation) -> FeaturesOfNoName:
        return FeaturesOfNoName()


@frozen
class GivesNumber:
    every: ganlab.Interval = ganlab.Interval(0)

    def evaluate(self, evaluation: ganlab.Evaluation) -> float:
        return 0.0


@frozen
class OpensPath:
    def build(self, run: ganlab.RunFolder) -> Path:
        return run.path


@frozen
class NoJobs:
    def launch(self, tasks: Sequence[ganlab.Task]) -> list[int]:
        return [0 for _ in tasks]


@ganlab.hookimpl
def register_generators(register: Register[ganlab.NetworkConfig]) -> None:
    register("bad", NoBuild)  # wrong
    register("nothing", BuildsNothing)  # wrong


@ganlab.hookimpl
def register_discriminators(register: Register[ganlab.NetworkConfig]) -> None:
    register("bad", BuildsOfNothing)  # wrong


@ganlab.hookimpl
def register_losses(register: Register[ganlab.Loss]) -> None:
    register("half", HalfLoss)  # wrong
    register("one_sided", OneSided)  # wrong
    register("number", Number)  # wrong
    register(HalfLoss, "half")  # wrong
    register("half")  # wrong


@ganlab.hookimpl
def register_loss_wrappers(register: Register[ganlab.LossWrapper]) -> None:
    register("bad", WrapsNothing)  # wrong
    register("instance", WrapsNothing())  # wrong


@ganlab.hookimpl
def register_penalties(register: Register[ganlab.Penalty]) -> None:
    register("bad", NoEvery)  # wrong
    register("text", EveryText)  # wrong


@ganlab.hookimpl
def register_augmentations(register: Register[ganlab.Augmentation]) -> None:
    register("bad", Augments)  # wrong


@ganlab.hookimpl
def register_optimizers(register: Register[ganlab.OptimizerConfig]) -> None:
    register("bad", Plain)  # wrong


@ganlab.hookimpl
def register_schedules(register: Register[ganlab.Schedule]) -> None:
    register("bad", NoTotal)  # wrong


@ganlab.hookimpl
def register_datasets(register: Register[ganlab.DatasetConfig]) -> None:
    register("bad", NoSplit)  # wrong


@ganlab.hookimpl
def register_features(register: Register[ganlab.FeaturesConfig]) -> None:
    register("bad", BuildsIncomplete)  # wrong


@ganlab.hookimpl
def register_metrics(register: Register[ganlab.Metric]) -> None:
    register("bad", GivesNumber)  # wrong


@ganlab.hookimpl
def register_trackers(register: Register[ganlab.TrackerConfig]) -> None:
    register("bad", OpensPath)  # wrong


@ganlab.hookimpl
def register_launchers(register: Register[ganlab.Launcher]) -> None:
    register("bad", NoJobs)  # wrong
