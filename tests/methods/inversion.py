"""Inversion: latents of given images for a trained generator, by gradient descent (Abdal et al. 2019, 1904.03189)."""

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


@frozen
class Numbered:
    """The first images of any data set, each with its own number instead of a class label.

    dataset: the data set.
    count: how many images.
    """

    dataset: ganlab.DatasetConfig = ganlab.component("dataset", default="digits")
    count: int = field(default=64, validator=ge(1))

    def build(self, places: ganlab.Places, split: str) -> ganlab.ImageDataset:
        whole = self.dataset.build(places, split)
        images = whole.images[: self.count]
        return ganlab.ImageDataset(images, f"{whole.name}_numbered", split, torch.arange(len(images)))


@frozen
class Inversion:
    """Latents, one for each image of `[dataset]`, from which a trained generator makes that image; they are the player.

    generator: the generator, with the options of the run that has trained it.
    weights: the file of its weights in a checkpoint of that run; without one they are random.
    prior: the factor of the latents' mean square, which holds them where a normal prior has them.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    weights: str = ganlab.location(default="")
    prior: float = field(default=1e-3, validator=ge(0))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        count = data.images.classes
        if count is None:
            raise ganlab.ComponentError("[dataset] must number its images, as the data set 'numbered' does")
        latents = ganlab.Network(
            lambda generator: nn.Embedding(count, ganlab.latent_dim_of(generator)), given=("generator",)
        )
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(self.generator, frozen=True, initialise=self.load),
                "latents": latents,
            },
            moves=[ganlab.Move("latents", players=("latents",), terms=self.rebuild)],
            sampler=ganlab.Sampler(
                networks=("latents", "generator"), images=self.images, latents=ganlab.translator_of("latents").latents
            ),
        )

    def load(self, generator: nn.Module) -> None:
        if self.weights:
            ganlab.load_weights(generator, self.weights)

    def images(self, networks: Mapping[str, nn.Module], _: Tensor, numbers: Tensor) -> Tensor:
        """What the generator makes of the latents of images of these numbers."""
        return networks["generator"](networks["latents"](numbers), None)

    def rebuild(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        z = turn.forward("latents", turn.condition).float()
        made = turn.forward("generator", z, None).float()
        return {"squared": (made - turn.real).square().mean(), "prior": self.prior * z.square().mean()}


@ganlab.hookimpl
def register_datasets(register: ganlab.Register[ganlab.DatasetConfig]) -> None:
    register("numbered", Numbered)


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("inversion", Inversion)
