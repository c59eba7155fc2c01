"""CUT: unpaired image translation by a contrast of patches, in one direction (Park et al. 2020, arXiv:2007.15651).

A patch of a translation must be recognised among the patches of its source image by what the generator's own encoder
sees of both (PatchNCE). So must that of an image of the target domain, which the generator shall leave as it is.

Decisions:
- The features that are compared are those that the generator returns for `encode_only`; a head of two layers for each
  projects them to vectors of length 1. Negatives are other patches of the same image.
- The paper's weights of the contrasts, 1, are beside squares that `least_squares` halves: hence the defaults of 0.5.
  Besides, the authors' code halves the sum of both contrasts.
- Source images and those of the target domain pass the networks in one batch, as in the authors' code.
- As published, the discriminator's loss is halved, and the images that it has judged are those of the generator's
  update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le
from torch import Tensor, nn
from torch.nn.functional import normalize

from ganlab import (
    ComponentError,
    DatasetConfig,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    component,
    hookimpl,
    latent_dim_of,
    sampler_of,
)
from ganlab_plugins.games._adversary import Adversary, generated, translations


class _Heads(nn.Module):
    """For each layer of an encoder, a head from features at some places to vectors of length 1."""

    def __init__(self, generator: nn.Module, dim: int) -> None:
        super().__init__()
        widths: Any = getattr(generator, "feature_channels", None)
        if widths is None:
            raise ComponentError(
                f"the generator, {type(generator).__name__}, shows no features of its encoder (`feature_channels` and "
                "`encode_only`); use 'resnet_translator'"
            )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim)) for width in widths
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Takes features (N, width, H, W) and places in them (N, patches); returns vectors (N, patches, dim)."""
        rows = [
            maps.flatten(2).transpose(1, 2).take_along_dim(at[:, :, None], 1)
            for maps, at in zip(features, places, strict=True)
        ]
        return [normalize(head(part), dim=-1) for head, part in zip(self.heads, rows, strict=True)]


@frozen
class CUT:
    """CUT: images of `[source]` are translated into those of `[dataset]`.

    source: the data set whose images are translated, of the shape of those of `[dataset]`.
    generator: the network that translates and whose encoder is compared: `resnet_translator`, or one that has
        `feature_channels` too, and returns these features where its third argument is True.
    discriminator: the network that judges images; the paper's is `patchgan` with `norm = "instance"`.
    loss: the losses of both networks.
    contrast: the weight of the contrast between patches of an image and of its translation.
    identity: the weight of that of images of `[dataset]`; 0 leaves them out, as FastCUT does (with contrast = 5, and
        with horizontal flips, which are not here).
    patches: how many places of each layer are compared, if it has so many.
    temperature: divides the similarity of two patches.
    dim: size of the vectors that are compared.
    """

    source: DatasetConfig = component("dataset")
    generator: NetworkConfig = component("generator", default="resnet_translator")
    discriminator: NetworkConfig = component("discriminator", default="patchgan")
    loss: Loss = component("loss", default="least_squares")
    contrast: float = field(default=0.5, validator=[ge(0), le(1e9)])
    identity: float = field(default=0.5, validator=[ge(0), le(1e9)])
    patches: int = field(default=256, validator=[ge(2), le(1_000_000)])
    temperature: float = field(default=0.07, validator=[gt(0), le(1e9)])
    dim: int = field(default=256, validator=[ge(1), le(1_000_000)])

    def build(self, data: DataSpec) -> Rules:
        source, images = (part.shape for part in (data.streams["source"], data.images))
        if source != images:
            raise ComponentError(f"source: its images are {source}; expected the shape of those of [dataset], {images}")
        play = _Play(self, Adversary(self.loss), images, keeps=isinstance(self.identity, Tensor) or self.identity != 0)
        alone = attrs.evolve(data.images, classes=None, condition_shape=None)
        translated = attrs.evolve(alone, condition_shape=source)
        return Rules(
            networks={
                "generator": Network(self.generator, images=translated),
                "heads": Network(
                    lambda generator: _Heads(generator, self.dim), given=("generator",), table="generator"
                ),
                "discriminator": Network(self.discriminator, images=alone),
            },
            moves=[
                Move("discriminator", players=("discriminator",), terms=play.discriminate, unfrozen=("generator",)),
                Move("generator", players=("generator", "heads"), terms=play.translate),
            ],
            sampler=attrs.evolve(sampler_of("generator"), source="source"),
            loss=self.loss,
            levers=play.adversary.levers,
            outputs=translations(data, "generator"),
        )


@frozen
class _Play:
    """The two moves. `keeps`: whether images of the target domain are translated too."""

    game: CUT
    adversary: Adversary
    shape: tuple[int, ...]
    keeps: bool

    def discriminate(self, turn: Turn) -> Tensor:
        given, made, z = turn.kept["translated"] = self.translated(turn)
        count = len(turn.real)
        fake, source = made[:count].detach(), given[:count]
        return 0.5 * self.adversary.discriminator_loss(turn, turn.real, fake, None, z, given=source)

    def translate(self, turn: Turn) -> dict[str, Tensor]:
        given, made, z = turn.kept.pop("translated", None) or self.translated(turn)
        count = len(turn.real)
        loss = self.adversary.generator_loss(turn, turn.real, made[:count], None, z, given=given[:count])
        contrasts = self.contrasts(turn, given, made).split(count)
        terms = {"adversarial": loss, "contrast": self.game.contrast * contrasts[0].mean()}
        if self.keeps:
            terms["identity"] = self.game.identity * contrasts[1].mean()
        return terms

    def translated(self, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """The images of the source, and of the target domain where they are used; their translations; the latents."""
        source = turn.batch.streams["source"].images
        z = turn.normal(latent_dim_of(turn.networks["generator"]))
        given = torch.cat([source, turn.real]) if self.keeps else source
        every = torch.cat([z, z]) if self.keeps else z
        return given, generated(turn, self.shape, given, latents=every)[0], z

    def contrasts(self, turn: Turn, given: Tensor, made: Tensor) -> Tensor:
        """For each image the cross-entropy with which patches of `made` find their places in `given`, (N,)."""
        latents = given.new_zeros(len(given), latent_dim_of(turn.networks["generator"]))
        before, after = (turn.forward("generator", latents, images, True) for images in (given, made))
        places = [self.places(turn, maps) for maps in before]
        wanted, found = (turn.forward("heads", features, places) for features in (before, after))
        layers = []
        for query, key in zip(found, wanted, strict=True):
            similar = query.float() @ key.float().detach().transpose(1, 2) / self.game.temperature
            layers.append(-similar.log_softmax(-1).diagonal(dim1=1, dim2=2).mean(1))
        return torch.stack(layers).mean(0)

    def places(self, turn: Turn, maps: Tensor) -> Tensor:
        """Random places of maps (N, C, H, W), as numbers (N, patches); those of both domains are the same."""
        count, device = maps.shape[2] * maps.shape[3], maps.device
        drawn = turn.draw(
            lambda rows, generator: torch.rand(rows, count, device=device, generator=generator).argsort(1)
        )[:, : self.game.patches]
        return drawn.repeat(len(maps) // len(drawn), 1)


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("cut", CUT)
