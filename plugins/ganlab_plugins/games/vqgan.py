"""VQGAN's first stage: an autoencoder of discrete codes with a discriminator of patches, which begins late.

Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis" (arXiv:2012.09841). The autoencoder learns
from the error of its reconstructions, the codebook's loss (equation 4), and the adversarial loss, weighted such that
its gradient at the decoder's last layer is as long as the error's (equation 7).

Decisions:
- The error is the mean absolute error of pixels. The paper has a perceptual error besides, which is left out.
- Before the discriminator begins its loss has the weight 0 in the autoencoder's move: a step is the same at any time.
- Encoder and decoder have residual blocks at each size, which is halved in between, as the paper's; there is neither
  attention nor the authors' two blocks in the middle, and the decoder has as many blocks as the encoder (theirs has one
  more at each size). The weight `adversarial` is that of their configurations.
- As in the authors' code the discriminator's loss is halved, and the images that it judges are those of the
  autoencoder's update, which comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import (
    Codebook,
    ComponentError,
    Condition,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Sampler,
    Turn,
    component,
    hookimpl,
)
from ganlab_plugins.games._adversary import Adversary

WIDEST = 4
"""The most channels of a layer, as a multiple of those of the first."""

DELTA = 1e-4
"""Is added to the length that the adaptive weight divides by, so that the weight is at most 1e4.

It is that of the authors' code; the paper has 1e-6.
"""


def _normed(channels: int) -> list[nn.Module]:
    """Group norm, in 32 groups as published where each has four channels at least, and an activation."""
    groups = math.gcd(32, channels, max(1, channels // 4))
    return [nn.GroupNorm(groups, channels), nn.SiLU()]


class _Block(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(given, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.layers = nn.Sequential(*_normed(given), first, *_normed(width), second)
        self.shortcut = nn.Identity() if given == width else nn.Conv2d(given, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.shortcut(maps) + self.layers(maps)
        return changed


def _blocks(given: int, width: int, count: int) -> list[nn.Module]:
    return [_Block(given if number == 0 else width, width) for number in range(count)]


class _Encoder(nn.Sequential):
    """Images (N, C, H, W) to vectors (N, dim, H / 2^halvings, W / 2^halvings)."""

    def __init__(self, game: VQGAN, channels: int) -> None:
        widths = game.widths
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, 1, 1)]
        for level, width in enumerate(widths):
            layers += _blocks(widths[max(0, level - 1)], width, game.blocks)
            if level < game.halvings:
                layers.append(nn.Conv2d(width, width, 3, 2, 1))
        super().__init__(*layers, *_normed(widths[-1]), nn.Conv2d(widths[-1], game.dim, 1))


class _Decoder(nn.Module):
    """Vectors to images; `last` is the layer whose gradients are compared."""

    def __init__(self, game: VQGAN, channels: int) -> None:
        super().__init__()
        widths = [*reversed(game.widths)]
        layers: list[nn.Module] = [nn.Conv2d(game.dim, widths[0], 3, 1, 1)]
        for level, width in enumerate(widths):
            layers += _blocks(widths[max(0, level - 1)], width, game.blocks)
            if level < game.halvings:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, 1, 1)]
        self.layers = nn.Sequential(*layers, *_normed(widths[-1]))
        self.last = nn.Conv2d(widths[-1], channels, 3, 1, 1)

    def forward(self, vectors: Tensor, condition: Condition = None) -> Tensor:
        images: Tensor = self.last(self.layers(vectors))
        return images


@frozen
class VQGAN:
    """VQGAN's first stage: images of `[dataset]` as a few discrete codes, and reconstructions, which are its samples.

    discriminator: the network that judges images, whatever their conditions.
    loss: the losses of discriminator and autoencoder.
    start: the first step with a discriminator.
    adversarial: the weight of the adversarial loss, besides the adaptive weight, which with `train.accumulate` is each
        part's own.
    codes: how many codes the codebook has.
    dim: size of a code.
    commitment: the weight of the distance by which vectors move to their codes.
    channels: feature maps of the autoencoder at full size; twice as many after each halving, up to 4 times.
    blocks: residual blocks at each size.
    halvings: how often the sides are halved; they must be divisible so often.
    """

    discriminator: NetworkConfig = component("discriminator", default="patchgan")
    loss: Loss = component("loss", default="hinge")
    start: int = field(default=0, validator=[ge(0), le(10**12)])
    adversarial: float = field(default=0.8, validator=[ge(0), le(1e9)])
    codes: int = field(default=1024, validator=[ge(2), le(2**20)])
    dim: int = field(default=256, validator=[ge(1), le(2**16)])
    commitment: float = field(default=0.25, validator=[ge(0), le(1e9)])
    channels: int = field(default=128, validator=[ge(1), le(2**16)])
    blocks: int = field(default=2, validator=[ge(1), le(1024)])
    halvings: int = field(default=2, validator=[ge(0), le(16)])

    @property
    def widths(self) -> Sequence[int]:
        """The channels at each size, from full size down."""
        return [self.channels * min(2**level, WIDEST) for level in range(self.halvings + 1)]

    def build(self, data: DataSpec) -> Rules:
        images = data.images
        times = 2**self.halvings
        if images.height % times or images.width % times:
            raise ComponentError(
                f"vqgan encodes images whose sides are divisible by {times} with halvings = {self.halvings}; here they "
                f"are {images.height}x{images.width}"
            )
        play = _Play(self, Adversary(self.loss))
        alone = attrs.evolve(images, classes=None, condition_shape=None)
        autoencoder = ("encoder", "codebook", "decoder")
        return Rules(
            networks={
                "encoder": Network(lambda: _Encoder(self, images.channels)),
                "codebook": Network(lambda: Codebook(self.codes, self.dim)),
                "decoder": Network(lambda: _Decoder(self, images.channels)),
                "discriminator": Network(self.discriminator, images=alone),
            },
            moves=[
                Move("autoencoder", players=autoencoder, terms=play.reconstruct),
                Move("discriminator", players=("discriminator",), terms=play.judge, start=self.start),
            ],
            sampler=Sampler(
                networks=autoencoder,
                images=_reconstructions,
                latents=lambda networks, count, generator, truncation: torch.zeros(count, 0),
                source="dataset",
            ),
            loss=self.loss,
            levers=play.adversary.levers,
            outputs={"codes": _codes},
        )


def _reconstructions(networks: Mapping[str, nn.Module], z: Tensor, images: Tensor) -> Tensor:
    vectors, _ = networks["codebook"](networks["encoder"](images))
    made: Tensor = networks["decoder"](vectors)
    return made


def _codes(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    """The codes of images, int64 (n, h, w)."""
    codebook = networks["codebook"]
    assert isinstance(codebook, Codebook)
    return codebook.nearest(networks["encoder"](images))


@frozen
class _Play:
    """The two moves."""

    game: VQGAN
    adversary: Adversary

    def reconstruct(self, turn: Turn) -> dict[str, Tensor]:
        encoded = turn.forward("encoder", turn.real).float()
        vectors, distance = turn.networks["codebook"](encoded, self.game.commitment)
        fake = turn.forward("decoder", vectors).float()
        turn.kept["fake"] = fake.detach(), vectors.detach()
        error = (fake - turn.real).abs().mean()
        fooled = self.adversary.generator_loss(turn, turn.real, fake, None, vectors, "decoder")
        weight = self.adaptive_weight(turn, error, fooled)
        turn.log("adaptive_weight", weight)
        # As many images are seen in a step as are in a batch.
        begun = turn.images_seen >= self.game.start * turn.batch_size
        adversarial = begun * self.game.adversarial * weight * fooled
        return {"absolute": error, "codes": distance, "adversarial": adversarial}

    def adaptive_weight(self, turn: Turn, error: Tensor, fooled: Tensor) -> Tensor:
        """How much longer the error's gradient at the last layer is than that of the adversarial loss."""
        last: Any = turn.networks["decoder"].last
        gradients = [torch.autograd.grad(term, last.weight, retain_graph=True)[0] for term in (error, fooled)]
        of_error, of_fooled = (turn.mean_of_all(gradient).norm() for gradient in gradients)
        weight: Tensor = (of_error / (of_fooled + DELTA)).clamp(0, 1 / DELTA)
        return weight

    def judge(self, turn: Turn) -> Tensor:
        fake, vectors = turn.kept["fake"]
        return 0.5 * self.adversary.discriminator_loss(turn, turn.real, fake, None, vectors, "decoder")


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("vqgan", VQGAN)
