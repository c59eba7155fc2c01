"""PixelDA: source images are made to look like the target's, with their labels (Bousmalis et al. 2017, 1612.05424)."""

from collections.abc import Callable

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Generator(nn.Module):
    """From source images (N, C, H, W) and noise (N, latent_dim), as one more channel, to images like the target's."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Linear(latent_dim, images.height * images.width), nn.Unflatten(1, (1, images.height, images.width))
        )
        self.first = nn.Sequential(nn.Conv2d(images.channels + 1, width, 3, 1, 1), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1), nn.InstanceNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1)
        )
        self.last = nn.Conv2d(width, images.channels, 3, 1, 1)

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        features = self.first(torch.cat([images, self.noise(z)], 1))
        return torch.tanh(self.last(features + self.block(features)))


class Convolutions(nn.Module):
    """Two convolutions, then numbers (N, outputs): the discriminator with one, the task's classifier."""

    def __init__(self, images: ganlab.ImageSpec, outputs: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(images.channels, width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, outputs),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@frozen
class PixelDA:
    """Unsupervised domain adaptation: `[source]` has labels, `[dataset]` is the target, whose labels are not used.

    source: labelled images, of the target's size; grey ones are given the target's channels.
    loss: the adversarial loss.
    task: the factor of the classifier's cross-entropy, on source images and on those made of them.
    latent_dim: size of the noise.
    width: channels of the networks.
    """

    source: ganlab.DatasetConfig = ganlab.component("dataset")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    task: float = field(default=1.0, validator=ge(0))
    latent_dim: int = field(default=10, validator=ge(1))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        source, target = data.streams["source"], data.images
        if (source.height, source.width) != (target.height, target.width) or not source.classes:
            raise ganlab.ComponentError("[source] must have class labels, and images of the size of those in [dataset]")
        classes, channels = source.classes, target.channels
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: Generator(target, self.latent_dim, self.width)),
                "discriminator": ganlab.Network(lambda: Convolutions(target, 1, self.width)),
                "classifier": ganlab.Network(lambda: Convolutions(target, classes, self.width)),
            },
            moves=[
                ganlab.Move("critics", players=("discriminator", "classifier"), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.adapt),
            ],
            sampler=ganlab.Sampler(
                networks=("generator",),
                images=lambda networks, z, images: networks["generator"](images.expand(-1, channels, -1, -1), z),
                latents=lambda networks, count, random, cut: ganlab.latents(count, self.latent_dim, random, cut),
                source="source",
            ),
            outputs={"class_logits": lambda networks, images, _: networks["classifier"](images)},
        )

    def source_of(self, turn: ganlab.Turn) -> tuple[Tensor, Tensor]:
        batch = turn.batch.streams["source"]
        return batch.images.expand(-1, turn.real.shape[1], -1, -1), batch.condition

    def fake(self, turn: ganlab.Turn) -> Tensor:
        images, _ = self.source_of(turn)
        return turn.forward("generator", images, turn.normal(self.latent_dim)).float()

    def adversarial(self, turn: ganlab.Turn, loss: Callable[[Tensor, Tensor], Tensor], fake: Tensor) -> Tensor:
        outputs = (turn.forward("discriminator", images).squeeze(1) for images in (turn.real, fake))
        return loss(*(turn.gather(logits.float()) for logits in outputs))

    def mistakes(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        _, labels = self.source_of(turn)
        return nn.functional.cross_entropy(turn.forward("classifier", images).float(), labels)

    def judge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.fake(turn)
        mistakes = self.mistakes(turn, self.source_of(turn)[0]) + self.mistakes(turn, fake)
        return {
            "adversarial": self.adversarial(turn, self.loss.discriminator, fake),
            "task": self.task * mistakes,
        }

    def adapt(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        fake = self.fake(turn)
        return {
            "adversarial": self.adversarial(turn, self.loss.generator, fake),
            "task": self.task * self.mistakes(turn, fake),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_pixelda", PixelDA)
