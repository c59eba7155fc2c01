"""CycleGAN: unpaired image translation (Zhu et al. 2017, arXiv:1703.10593), with its buffer of 50 generated images."""

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

import ganlab


class Translator(nn.Module):
    """A small residual network from images to images."""

    def __init__(self, data: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(data.channels, width, 3, padding=1),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, data.channels, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(images + self.layers(images))


class Patches(nn.Module):
    """PatchGAN: a map of logits, each of a patch of the image."""

    def __init__(self, data: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(data.channels, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@frozen
class CycleGAN:
    """CycleGAN between the images of `[source]` and those of `[dataset]`.

    source: the images that are translated.
    loss: the adversarial loss.
    cycle, identity: the weights of the cycle's and of the identity's absolute error.
    pool: how many generated images the buffer holds.
    width: channels of the networks.
    """

    source: ganlab.DatasetConfig = ganlab.component("dataset")
    loss: ganlab.Loss = ganlab.component("loss", default="least_squares")
    cycle: float = 10.0
    identity: float = 5.0
    pool: int = 50
    width: int = 8

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        a, b = data.streams["source"], data.images
        pools = {"a": ganlab.ImagePool(self.pool, a), "b": ganlab.ImagePool(self.pool, b)}
        networks = {
            "generator_ab": ganlab.Network(lambda: Translator(b, self.width)),
            "generator_ba": ganlab.Network(lambda: Translator(a, self.width)),
            "discriminator_a": ganlab.Network(lambda: Patches(a, self.width)),
            "discriminator_b": ganlab.Network(lambda: Patches(b, self.width)),
        }
        samplers = {"b_to_a": ganlab.translator_of("generator_ba", source="dataset", makes="source")}
        moves = [
            ganlab.Move("generators", players=("generator_ab", "generator_ba"), terms=self.translate),
            ganlab.Move(
                "discriminators",
                players=("discriminator_a", "discriminator_b"),
                terms=lambda turn: self.discriminate(turn, pools),
            ),
        ]
        sampler = ganlab.translator_of("generator_ab", source="source")
        return ganlab.Rules(networks=networks, moves=moves, sampler=sampler, samplers=samplers, state=pools)

    def translate(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        real = {"a": turn.batch.streams["source"].images, "b": turn.real}
        terms = {}
        for of, to in (("a", "b"), ("b", "a")):
            fake = turn.forward(f"generator_{of}{to}", real[of])
            back = turn.forward(f"generator_{to}{of}", fake)
            same = turn.forward(f"generator_{of}{to}", real[to])
            judged = turn.forward(f"discriminator_{to}", fake)
            terms[f"adversarial_{to}"] = self.loss.generator(torch.zeros_like(judged), judged)
            terms[f"cycle_{of}"] = self.cycle * (back - real[of]).abs().mean()
            terms[f"identity_{to}"] = self.identity * (same - real[to]).abs().mean()
            turn.kept[to] = fake.detach()
        return terms

    def discriminate(self, turn: ganlab.Turn, pools: Mapping[str, ganlab.ImagePool]) -> dict[str, Tensor]:
        real = {"a": turn.batch.streams["source"].images, "b": turn.real}
        terms = {}
        for domain in ("a", "b"):
            fake = pools[domain].exchange(turn, turn.kept[domain])
            name = f"discriminator_{domain}"
            terms[domain] = 0.5 * self.loss.discriminator(turn.forward(name, real[domain]), turn.forward(name, fake))
        return terms


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_cyclegan", CycleGAN)
