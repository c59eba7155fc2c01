"""VQGAN: an autoencoder of discrete codes with a discriminator of patches (Esser et al. 2021, arXiv:2012.09841)."""

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Encoder(nn.Module):
    """A convolutional encoder of images (N, C, H, W) to a map of vectors (N, dim, H / 2, W / 2)."""

    def __init__(self, images: ganlab.ImageSpec, dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(images.channels, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, dim, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Codebook(nn.Module):
    """The codes: each vector becomes the nearest of them. Gradients pass through to the encoder."""

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(codes, dim).uniform_(-1 / codes, 1 / codes))

    def forward(self, vectors: Tensor, commitment: float) -> tuple[Tensor, Tensor]:
        """Returns quantised vectors, and the mean squared distance of vectors and codes, (n, dim, h, w) and ()."""
        flat = vectors.movedim(1, -1)
        squares = flat.square().sum(-1, keepdim=True) - 2 * flat @ self.codes.T + self.codes.square().sum(1)
        nearest = nn.functional.embedding(squares.argmin(-1), self.codes)
        distance = (nearest - flat.detach()).square().mean() + commitment * (nearest.detach() - flat).square().mean()
        return (flat + (nearest - flat).detach()).movedim(-1, 1), distance


class Decoder(nn.Module):
    """A convolutional decoder of maps of vectors to images; `last` is the layer whose gradients are compared."""

    def __init__(self, images: ganlab.ImageSpec, dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ConvTranspose2d(dim, width, 4, 2, 1), nn.SiLU())
        self.last = nn.Conv2d(width, images.channels, 3, 1, 1)

    def forward(self, vectors: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(vectors)))


class Patches(nn.Module):
    """PatchGAN: a map of logits (N, 1, h, w), each of a patch of the image."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(images.channels, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, 1, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@frozen
class VQGAN:
    """The first stage of VQGAN, without a perceptual error; its samples are reconstructions of images of `[dataset]`.

    loss: the adversarial loss, of patches.
    start: the first step with a discriminator.
    codes, dim: how many codes the codebook has, and their size.
    commitment: the factor of the distance by which vectors move to their codes.
    adversarial: the factor of the adversarial loss, besides the adaptive weight: the gradient of the reconstruction's
        error by the decoder's last layer, relative to that of the adversarial loss.
    width: channels of the networks.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="hinge")
    start: int = field(default=0, validator=ge(0))
    codes: int = field(default=256, validator=ge(2))
    dim: int = field(default=16, validator=ge(1))
    commitment: float = field(default=0.25, validator=ge(0))
    adversarial: float = field(default=0.8, validator=ge(0))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        images = data.images
        if images.height % 2 or images.width % 2:
            raise ganlab.ComponentError(
                f"encodes images of even height and width, not {images.height} x {images.width}"
            )
        autoencoder = ("encoder", "codebook", "decoder")
        return ganlab.Rules(
            networks={
                "encoder": ganlab.Network(lambda: Encoder(images, self.dim, self.width)),
                "codebook": ganlab.Network(lambda: Codebook(self.codes, self.dim)),
                "decoder": ganlab.Network(lambda: Decoder(images, self.dim, self.width)),
                "discriminator": ganlab.Network(lambda: Patches(images, self.width)),
            },
            moves=[
                ganlab.Move("autoencoder", players=autoencoder, terms=self.reconstruct),
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge, start=self.start),
            ],
            sampler=ganlab.Sampler(
                networks=autoencoder,
                images=lambda networks, z, images: networks["decoder"](
                    networks["codebook"](networks["encoder"](images), self.commitment)[0]
                ),
                latents=lambda networks, count, random, truncation: torch.zeros(count, 0),
                source="dataset",
            ),
        )

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images).float())

    def reconstruct(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        codes, distance = turn.forward("codebook", turn.forward("encoder", turn.real).float(), self.commitment)
        fake = turn.forward("decoder", codes).float()
        turn.kept["fake"] = fake.detach()
        error = (fake - turn.real).abs().mean()
        fooled = self.loss.generator(self.logits(turn, turn.real), self.logits(turn, fake))
        last = turn.networks["decoder"].last.weight
        gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (error, fooled)]
        of_error, of_fooled = (turn.mean_of_all(gradient).norm() for gradient in gradients)
        weight = (of_error / (of_fooled + 1e-4)).clamp(0, 1e4)
        turn.log("adaptive_weight", weight)
        # As many images are seen in a step as are in a batch.
        begun = turn.images_seen >= self.start * turn.batch_size
        return {"absolute": error, "codes": distance, "adversarial": begun * self.adversarial * weight * fooled}

    def judge(self, turn: ganlab.Turn) -> Tensor:
        return self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, turn.kept["fake"]))


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_vqgan", VQGAN)
