"""ESRGAN: residual-in-residual dense blocks, a relativistic discriminator (Wang et al. 2018, arXiv:1809.00219)."""

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

import ganlab


class DenseBlock(nn.Module):
    """Convolutions, each of which is given what all before it returned; its output is added to its input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        made = [growth] * 4 + [width]
        self.layers = nn.ModuleList(nn.Conv2d(width + n * growth, size, 3, 1, 1) for n, size in enumerate(made))

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers[:-1]:
            found.append(nn.functional.leaky_relu(layer(torch.cat(found, 1)), 0.2))
        return x + 0.2 * self.layers[-1](torch.cat(found, 1))


class RRDBNet(nn.Module):
    """From small images to images of twice their sides, `doublings` times, without batch norm."""

    def __init__(self, channels: int, doublings: int, blocks: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseBlock(width, max(width // 2, 1)) for _ in range(3))) for _ in range(blocks)
        )
        self.middle = nn.Conv2d(width, width, 3, 1, 1)
        self.up = nn.Sequential()
        for _ in range(doublings):
            self.up += nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, 1, 1), nn.LeakyReLU(0.2))
        self.last = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = first = self.first(images)
        for block in self.blocks:
            features = features + 0.2 * (block(features) - features)
        return torch.tanh(self.last(self.up(first + self.middle(features))))


class Discriminator(nn.Module):
    """Strided convolutions, then a logit (N,)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).squeeze(1)


class VGG(nn.Module):
    """The first convolutions of VGG-19, under the names of torchvision's, up to the last one before its activation."""

    def __init__(self, convolutions: int) -> None:
        super().__init__()
        widths = ([64] * 2 + [128] * 2 + [256] * 4 + [512] * 8)[:convolutions]
        self.features = nn.Sequential()
        for index, (given, width) in enumerate(zip([3, *widths], widths, strict=False)):
            if index in (2, 4, 8, 12):
                self.features += nn.Sequential(nn.MaxPool2d(2))
            self.features += nn.Sequential(nn.Conv2d(given, width, 3, 1, 1), nn.ReLU())
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, F, h, w) of images in [-1, 1]; grey ones are given three channels."""
        return self.features[:-1](((images + 1) / 2 - self.mean) / self.deviation)


@frozen
class ESRGAN:
    """Super-resolution: the images that are conditions in `[dataset]` are enlarged to its images.

    loss: the adversarial loss, of which image is more realistic.
    adversarial: its factor for the generator.
    absolute: the factor of the absolute error.
    blocks: residual blocks of the generator, each of three dense blocks.
    width: channels of the networks.
    convolutions: of VGG-19, whose features are compared: 16 in the paper.
    features: a file with the weights of torchvision's VGG-19; without one they are random.
    weights: the file of the generator's weights in a checkpoint of an earlier run, with which it begins, if any. With
        `adversarial` and `perceptual` of 0 that run is the paper's first stage.
    perceptual: the factor of the absolute error of features.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="relativistic_average")
    adversarial: float = field(default=5e-3, validator=ge(0))
    absolute: float = field(default=1e-2, validator=ge(0))
    perceptual: float = field(default=1.0, validator=ge(0))
    blocks: int = field(default=4, validator=ge(1))
    width: int = field(default=32, validator=ge(1))
    convolutions: int = field(default=4, validator=[ge(1), le(16)])
    features: str = ganlab.location(default="")
    weights: str = ganlab.location(default="")

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        images, (channels, height, width) = data.images, data.images.condition_shape or (0, 1, 1)
        doublings = (images.height // height).bit_length() - 1
        if (channels, height << doublings, width << doublings) != (images.channels, images.height, images.width):
            raise ganlab.ComponentError("[dataset] must have its images in half the size, or a quarter, as conditions")
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(
                    lambda: RRDBNet(channels, doublings, self.blocks, self.width), initialise=self.start
                ),
                "discriminator": ganlab.Network(lambda: Discriminator(channels, self.width)),
                "vgg": ganlab.Network(lambda: VGG(self.convolutions), frozen=True, initialise=self.pretrain),
            },
            moves=[
                ganlab.Move("generator", players=("generator",), terms=self.enlarge),
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
            ],
            sampler=ganlab.translator_of("generator"),
        )

    def start(self, generator: nn.Module) -> None:
        if self.weights:
            ganlab.load_weights(generator, self.weights)

    def pretrain(self, vgg: nn.Module) -> None:
        if self.features:
            ganlab.load_weights(vgg, self.features, partly=True)

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images).float())

    def enlarge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        fake = turn.forward("generator", turn.condition).float()
        turn.kept["fake"] = fake.detach()
        fooled = self.loss.generator(self.logits(turn, turn.real), self.logits(turn, fake))
        made, real = (turn.forward("vgg", images).float() for images in (fake, turn.real))
        return {
            "perceptual": self.perceptual * (made - real).abs().mean(),
            "absolute": self.absolute * (fake - turn.real).abs().mean(),
            "adversarial": self.adversarial * fooled,
        }

    def judge(self, turn: ganlab.Turn) -> Tensor:
        return self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, turn.kept["fake"]))


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("esrgan", ESRGAN)
