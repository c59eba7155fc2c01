"""A component of every kind and every hook, typed as docs/hooks.md says, as release 0.1 wants them.

It stands for third-party plugins: a later release must accept it as it is, so no code in here is ever changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

import ganlab
from ganlab import Register


@frozen
class Network:
    hidden: int = 8

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        return nn.Linear(self.hidden, images.channels * images.height * images.width)


@frozen
class Judge(Network):
    """One that keeps what another has."""


@frozen
class Loss:
    margin: float = 1.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (self.margin - real).relu().mean() + (self.margin + fake).relu().mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()


@frozen
class OtherNames:
    """A loss that needs other options, and calls its arguments what it likes."""

    weight: float

    def discriminator(self, r: Tensor, f: Tensor) -> Tensor:
        return self.weight * (f - r).mean()

    def generator(self, r: Tensor, f: Tensor, scale: float = 1.0) -> Tensor:
        return -scale * f.mean()


@frozen
class LossWrapper:
    weight: float = 0.5

    def __call__(self, loss: ganlab.Loss) -> ganlab.Loss:
        return OtherNames(self.weight) if isinstance(loss, Loss) else loss


@frozen
class Penalty:
    """Its fields are what the protocol has as properties."""

    player: str = "discriminator"
    every: int = 1

    def penalty(self, step: ganlab.Step) -> Tensor:
        return step.fake.square().mean()


@frozen
class OtherPenalty:
    """Its properties are what the protocol has."""

    @property
    def player(self) -> str:
        return "generator"

    @property
    def every(self) -> int:
        return 4

    def penalty(self, step: ganlab.Step) -> Tensor:
        return step.fake.mean()


@frozen
class Augmentation:
    def augment(self, images: Tensor) -> Tensor:
        return images.flip(3)


@frozen
class Optimizer:
    lr: float = 1e-3

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.lr)


@frozen
class Dataset:
    size: int = 8

    def build(self, places: ganlab.Places, split: str) -> ganlab.ImageDataset:
        return ganlab.ImageDataset(torch.zeros(4, 1, self.size, self.size, dtype=torch.uint8), "black", split)


@frozen
class Means:
    name: str = "means"
    dim: int = 1
    fingerprint: str = "means-1"
    preprocessing: str = "none"

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean((1, 2, 3))[:, None]


@frozen
class Features:
    def build(self, evaluation: ganlab.Evaluation) -> ganlab.Features:
        return Means()


@frozen
class Metric:
    every: ganlab.Interval = ganlab.Interval(0)

    def evaluate(self, evaluation: ganlab.Evaluation) -> ganlab.Scores:
        images = torch.cat(list(evaluation.generated(8, 0)))
        return ganlab.Scores({"level": images.float().mean().item()}, {"metric": "level"}, {"level": "higher"})


class Log:
    def log(self, record: Mapping[str, Any]) -> None: ...

    def samples(self, step: int, path: Path) -> None: ...

    def close(self) -> None: ...


@frozen
class Tracker:
    def build(self, run: ganlab.RunFolder) -> ganlab.Tracker:
        return Log()


@frozen
class Schedule:
    key: str = "optimizer.lr"

    def value(self, first: float, step: int, total: int) -> float:
        return first


@frozen
class Launcher:
    def launch(self, tasks: Sequence[ganlab.Task], jobs: int) -> Iterator[tuple[ganlab.Task, int]]:
        return ((task, 0) for task in tasks)


@ganlab.hookimpl
def register_generators(register: Register[ganlab.NetworkConfig]) -> None:
    register("good", Network)


@ganlab.hookimpl
def register_discriminators(register: Register[ganlab.NetworkConfig]) -> None:
    register("good", Judge)


@frozen
class Game:
    """A game of one network that tells real images from noise, and of one that is frozen.

    discriminator: the network.
    loss: its loss.
    """

    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss")

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        sampler = ganlab.Sampler(("maker",), images=self.images, latents=self.latents)
        return ganlab.Rules(
            networks={"discriminator": self.discriminator, "maker": ganlab.Network(nn.Identity, frozen=True)},
            moves=[ganlab.Move("discriminator", ("discriminator",), self.judge)],
            sampler=sampler,
        )

    def judge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        real, fake = (turn.forward("discriminator", images, None) for images in (turn.real, torch.rand_like(turn.real)))
        return {"both": self.loss.discriminator(real, fake)}

    def latents(
        self, networks: Mapping[str, nn.Module], count: int, generator: torch.Generator, truncation: float | None
    ) -> Tensor:
        return ganlab.latents(count, 2, generator, truncation)

    def images(self, networks: Mapping[str, nn.Module], z: Tensor, condition: Tensor | None) -> Tensor:
        made: Tensor = networks["maker"](z)
        return made


@ganlab.hookimpl
def register_games(register: Register[ganlab.GameConfig]) -> None:
    register("good", Game)


@ganlab.hookimpl
def register_losses(register: Register[ganlab.Loss]) -> None:
    register("good", Loss)
    register("other_names", OtherNames)


@ganlab.hookimpl
def register_loss_wrappers(register: Register[ganlab.LossWrapper]) -> None:
    register("good", LossWrapper)


@ganlab.hookimpl
def register_penalties(register: Register[ganlab.Penalty]) -> None:
    register("good", Penalty)
    register("other", OtherPenalty)


@ganlab.hookimpl
def register_augmentations(register: Register[ganlab.Augmentation]) -> None:
    register("good", Augmentation)


@ganlab.hookimpl
def register_optimizers(register: Register[ganlab.OptimizerConfig]) -> None:
    register("good", Optimizer)


@ganlab.hookimpl
def register_schedules(register: Register[ganlab.Schedule]) -> None:
    register("good", Schedule)


@ganlab.hookimpl
def register_datasets(register: Register[ganlab.DatasetConfig]) -> None:
    register("good", Dataset)


@ganlab.hookimpl
def register_features(register: Register[ganlab.FeaturesConfig]) -> None:
    register("good", Features)


@ganlab.hookimpl
def register_metrics(register: Register[ganlab.Metric]) -> None:
    register("good", Metric)


@ganlab.hookimpl
def register_trackers(register: Register[ganlab.TrackerConfig]) -> None:
    register("good", Tracker)


@ganlab.hookimpl
def register_launchers(register: Register[ganlab.Launcher]) -> None:
    register("good", Launcher)


@ganlab.hookimpl
def run_started(run: ganlab.RunFolder) -> None: ...


@ganlab.hookimpl
def tick_finished(run: ganlab.RunFolder, record: Mapping[str, Any]) -> None: ...


@ganlab.hookimpl
def evaluation_finished(run: ganlab.RunFolder, record: Mapping[str, Any]) -> None: ...


@ganlab.hookimpl
def checkpoint_saved(run: ganlab.RunFolder, path: Path) -> None: ...


@ganlab.hookimpl
def run_finished(error: BaseException | None) -> None: ...


def made_in_tests_of_its_own(images: Tensor, network: nn.Module, folder: Path) -> tuple[ganlab.Step, ganlab.Evaluation]:
    """What an author makes to test a component: fields of later releases have defaults."""
    step = ganlab.Step(
        player="discriminator",
        generator=network,
        discriminator=network,
        real=images,
        fake=images,
        real_logits=None,
        fake_logits=None,
        condition=None,
        images_seen=torch.tensor(0),
    )
    evaluation = ganlab.Evaluation(
        generated=lambda count, seed: iter([images]),
        dataset=lambda split: ganlab.ImageDataset(images, "black", split),
        device=torch.device("cpu"),
        places=ganlab.Places(folder, folder),
        progress=lambda what, done, total: None,
    )
    return step, evaluation
