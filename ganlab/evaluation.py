"""Looking at a generator: drawing images from it, and scoring it by metrics.

Decisions:
- Images come from the evaluation network in eval mode, rounded to uint8, with latents from a stream of their own.
- A record holds one value and everything that it depends on: no score without its protocol.
- Nothing here changes the training that follows: modes and global random states are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ganlab import __version__
from ganlab.data import to_uint8
from ganlab.protocols import Dataset, DatasetConfig, Evaluation, Metric, Places
from ganlab.rng import derived_seed, latents, untouched

BATCH = 128
"""Images made at a time. Not an option: in eval mode an image does not depend on its batch."""


Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode without gradients; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def images_from(network: nn.Module, z: Tensor, device: torch.device) -> Iterator[Tensor]:
    """uint8 images (n, C, H, W), on the device, for latents (N, latent_dim) in batches."""
    for part in z.split(BATCH):
        with evaluating(network):
            images = to_uint8(network(part.to(device), None))
        yield images


def sample(network: nn.Module, count: int, seed: int, device: torch.device, label: str = "samples") -> Iterator[Tensor]:
    """uint8 batches of `count` images; the first images of a larger count are the same."""
    generator = torch.Generator().manual_seed(derived_seed(seed, label))
    latent_dim: int = network.latent_dim  # type: ignore[assignment]
    for start in range(0, count, BATCH):
        # Always whole batches of latents, so that how many images are wanted does not change which they are.
        z = latents(BATCH, latent_dim, generator)[: count - start]
        yield from images_from(network, z, device)


class Scorer:
    """Scores one generator against the experiment's data; loads each split of the data once."""

    def __init__(self, config: DatasetConfig, train: Dataset | None, where: Places, device: torch.device) -> None:
        self._config, self._places, self._device = config, where, device
        self._splits: dict[str, Dataset] = {} if train is None else {"train": train}

    def dataset(self, split: str) -> Dataset:
        if split not in self._splits:
            self._splits[split] = self._config.build(self._places, split)
        return self._splits[split]

    def prepare(self, metric: Metric, progress: Progress = _silent) -> None:
        """Lets a metric load what it needs, or refuse, before there is anything to score."""
        if hasattr(metric, "prepare"):
            with untouched():
                metric.prepare(self._evaluation(lambda count, seed: iter(()), progress))

    def _evaluation(self, generated: Callable[[int, int], Iterator[Tensor]], progress: Progress) -> Evaluation:
        return Evaluation(
            generated=generated,
            dataset=self.dataset,
            device=self._device,
            places=self._places,
            progress=progress,
        )

    def score(
        self,
        metric: Metric,
        network: nn.Module,
        weights: str,
        suffix: str = "",
        progress: Progress = _silent,
    ) -> list[dict[str, Any]]:
        """One record for each value of a metric: name, value, which direction is better, protocol.

        `weights` says whose weights the network has: "ema" or "plain". `suffix` goes behind the values' names, to tell
        two metrics of one name apart.
        """
        evaluation = self._evaluation(
            lambda count, seed: sample(network, count, seed, self._device, "metric"), progress
        )
        with untouched():
            scores = metric.evaluate(evaluation)
        protocol = {
            **scores.protocol,
            "weights": weights,
            "versions": {"ganlab": __version__, "torch": torch.__version__},
            "device": self._device.type,
        }
        return [
            {"name": f"{name}{suffix}", "value": float(value), "better": scores.better.get(name), "protocol": protocol}
            for name, value in scores.values.items()
        ]
