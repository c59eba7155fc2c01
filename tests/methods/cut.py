"""CUT: unpaired image translation by a contrast of patches (Park et al. 2020, arXiv:2007.15651)."""

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Translator(nn.Module):
    """A small residual network from images to images, whose encoder's layers can be seen."""

    def __init__(self, given: int, channels: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [
                nn.Conv2d(given, width, 3, 1, 1),
                nn.Sequential(nn.InstanceNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1)),
            ]
        )
        self.decoder = nn.Sequential(nn.InstanceNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of each layer of the encoder."""
        seen = [images]
        for layer in self.encoder:
            seen.append(layer(seen[-1]))
        return seen[1:]

    def forward(self, images: Tensor, encode_only: bool = False) -> Tensor | list[Tensor]:
        features = self.features(images)
        return features if encode_only else torch.tanh(self.decoder(features[-1]))


class Heads(nn.Module):
    """For each layer, a head from features of some patches to vectors of length 1, (N, patches, dim)."""

    def __init__(self, layers: int, width: int, dim: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim)) for _ in range(layers)]
        )

    def forward(self, layers: list[Tensor], places: Tensor) -> list[Tensor]:
        """Takes the output of each layer, (N, width, H, W), and the places of patches in it, (N, patches)."""
        rows = [layer.flatten(2).transpose(1, 2).take_along_dim(places[:, :, None], 1) for layer in layers]
        return [nn.functional.normalize(head(part), dim=-1) for head, part in zip(self.heads, rows, strict=True)]


class Patches(nn.Module):
    """PatchGAN: a map of logits (N, 1, h, w), each of a patch of the image."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, 1, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@frozen
class CUT:
    """Translates the images of `[source]` into those of `[dataset]`: a patch must keep what tells it from the others.

    source: the images that are translated, of the size of those of `[dataset]`.
    loss: the adversarial loss, of patches.
    contrast: the weight of the contrast between patches of an image, of translations.
    identity: that of images of `[dataset]`, which the translator shall leave alone.
    patches: how many places of each layer are compared.
    temperature: divides the similarity of patches.
    width: channels of the networks.
    """

    source: ganlab.DatasetConfig = ganlab.component("dataset")
    loss: ganlab.Loss = ganlab.component("loss", default="least_squares")
    contrast: float = field(default=1.0, validator=ge(0))
    identity: float = field(default=1.0, validator=ge(0))
    patches: int = field(default=64, validator=ge(2))
    temperature: float = field(default=0.07, validator=gt(0))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        source, images = data.streams["source"], data.images
        if (source.channels, source.height, source.width) != (images.channels, images.height, images.width):
            raise ganlab.ComponentError("source: its images must have the shape of those of [dataset]")
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: Translator(source.channels, images.channels, self.width)),
                "heads": ganlab.Network(
                    lambda generator: Heads(len(generator.encoder), self.width, self.width), given=("generator",)
                ),
                "discriminator": ganlab.Network(lambda: Patches(images.channels, self.width)),
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("generator", "heads"), terms=self.translate),
            ],
            sampler=ganlab.translator_of("generator", source="source"),
        )

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = turn.forward("generator", turn.batch.streams["source"].images).float()
        return 0.5 * self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, fake))

    def translate(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        source = turn.batch.streams["source"].images
        fake, same = (turn.forward("generator", images).float() for images in (source, turn.real))
        return {
            "adversarial": self.loss.generator(self.logits(turn, turn.real), self.logits(turn, fake)),
            "contrast": self.contrast * self.patch_contrast(turn, source, fake),
            "identity": self.identity * self.patch_contrast(turn, turn.real, same),
        }

    def patch_contrast(self, turn: ganlab.Turn, before: Tensor, after: Tensor) -> Tensor:
        """The cross-entropy with which each patch of `after` finds its place among patches of `before` (PatchNCE)."""
        pixels = before.shape[2] * before.shape[3]
        places = turn.draw(
            lambda count, random: torch.rand(count, pixels, device=before.device, generator=random).argsort(1)
        )[:, : self.patches]

        of_after, of_before = (
            turn.forward("heads", turn.forward("generator", images, True), places) for images in (after, before)
        )
        errors = []
        for found, wanted in zip(of_after, of_before, strict=True):
            similar = (found.float() @ wanted.float().detach().transpose(1, 2) / self.temperature).log_softmax(-1)
            errors.append(-similar.diagonal(dim1=1, dim2=2).mean())
        return torch.stack(errors).mean()


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_cut", CUT)
