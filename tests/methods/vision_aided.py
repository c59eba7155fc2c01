"""Vision-aided GAN: frozen networks with heads beside the discriminator (Kumari et al. 2022, arXiv:2112.09130)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from attrs import field, frozen
from attrs.validators import deep_iterable, ge, in_, le, min_len
from torch import Tensor, nn

import ganlab


class VGG(nn.Module):
    """The first stages of a VGG network, under the names of torchvision's; it returns the features of the last."""

    convolutions: ClassVar = {
        "vgg11": (1, 1, 2, 2),
        "vgg13": (2, 2, 2, 2),
        "vgg16": (2, 2, 3, 3),
        "vgg19": (2, 2, 4, 4),
    }

    def __init__(self, model: str, stages: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.width = 3
        for index, convolutions in enumerate(self.convolutions[model][:stages]):
            if index:
                self.features.append(nn.MaxPool2d(2))
            for _ in range(convolutions):
                given, self.width = self.width, 64 * 2 ** min(index, 3)
                self.features += nn.Sequential(nn.Conv2d(given, self.width, 3, 1, 1), nn.ReLU())
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """A map (N, C, h, w) of images in [-1, 1]; grey images are given three channels."""
        return self.features(((images + 1) / 2 - self.mean) / self.deviation)


class Head(nn.Module):
    """A discriminator of features: a map of logits (N, 1, h, w)."""

    def __init__(self, features: VGG, width: int) -> None:
        super().__init__()
        layers = nn.Sequential(nn.Conv2d(features.width, width, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 1))
        self.layers = ganlab.spectrally_normed(layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@frozen
class VisionAidedGAN:
    """A GAN with more discriminators, which join one after another: heads on the features of frozen networks.

    The paper chooses the next network by how well a linear classifier tells real images from those of the generator by
    its features; here they join in the order in which they are named.

    generator, discriminator: the networks of a GAN.
    loss: the adversarial loss of each discriminator; the losses are added.
    models: the frozen networks: vgg11, vgg13, vgg16 and vgg19.
    interval: the first of them joins after so many steps, the next after as many more, and so on.
    stages: how many stages of each are used, each with half the size of the one before.
    width: channels of the heads.
    features: a folder with torchvision's weights, such as vgg16.safetensors; without one they are random.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    models: tuple[str, ...] = field(
        default=("vgg16", "vgg11"), validator=[min_len(1), deep_iterable(in_(VGG.convolutions))]
    )
    interval: int = field(default=1000, validator=ge(0))
    stages: int = field(default=4, validator=[ge(1), le(4)])
    width: int = field(default=64, validator=ge(1))
    features: str = ganlab.location(default="")

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        if len(set(self.models)) < len(self.models):
            raise ganlab.ComponentError(f"models: {', '.join(self.models)}; expected different ones")
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        moves = [ganlab.Move("discriminator", players=("discriminator",), terms=self.judge)]
        for number, model in enumerate(self.models, 1):
            networks[model] = ganlab.Network(
                partial(VGG, model, self.stages), frozen=True, initialise=partial(self.pretrain, model)
            )
            networks[f"{model}_head"] = ganlab.Network(partial(Head, width=self.width), given=(model,))
            terms = partial(self.play, model=model, loss=self.loss.discriminator)
            moves.append(
                ganlab.Move(f"{model}_head", players=(f"{model}_head",), terms=terms, start=number * self.interval)
            )
        moves.append(ganlab.Move("generator", players=("generator",), terms=self.fool))
        return ganlab.Rules(networks=networks, moves=moves, sampler=ganlab.sampler_of("generator"))

    def pretrain(self, model: str, network: nn.Module) -> None:
        if self.features:
            ganlab.load_weights(network, Path(self.features) / f"{model}.safetensors", partly=True)

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def logits(self, turn: ganlab.Turn, model: str, images: Tensor) -> Tensor:
        images = turn.augment(images)
        if model:
            return turn.gather(turn.forward(f"{model}_head", turn.forward(model, images)).float())
        return turn.gather(turn.forward("discriminator", images, turn.condition).float())

    def play(self, turn: ganlab.Turn, loss: Callable[[Tensor, Tensor], Tensor], model: str = "") -> Tensor:
        return loss(*(self.logits(turn, model, images) for images in (turn.real, turn.kept["fake"])))

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            turn.kept["fake"] = self.fake(turn)
        return self.play(turn, self.loss.discriminator)

    def fool(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        turn.kept["fake"] = self.fake(turn)
        terms = {"discriminator": self.play(turn, self.loss.generator)}
        for number, model in enumerate(self.models, 1):
            # As many images are seen in a step as are in a batch.
            joined = turn.images_seen >= number * self.interval * turn.batch_size
            terms[model] = joined * self.play(turn, self.loss.generator, model)
        return terms


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("vision_aided", VisionAidedGAN)
