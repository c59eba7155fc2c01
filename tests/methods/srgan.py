"""SRGAN: super-resolution with a content loss of VGG features (Ledig et al. 2017, arXiv:1609.04802), and SRResNet."""

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

import ganlab


class SRResNet(nn.Module):
    """From small images to images of twice their sides, `doublings` times: residual blocks, then shuffled pixels."""

    def __init__(self, channels: int, doublings: int, blocks: int, width: int, norm: ganlab.NormName) -> None:
        super().__init__()

        def convolution() -> list[nn.Module]:
            return [nn.Conv2d(width, width, 3, 1, 1), ganlab.norm_layer(norm, width, 2)]

        self.first = nn.Sequential(nn.Conv2d(channels, width, 9, 1, 4), nn.PReLU())
        self.blocks = nn.ModuleList(nn.Sequential(*convolution(), nn.PReLU(), *convolution()) for _ in range(blocks))
        self.middle = nn.Sequential(*convolution())
        self.up = nn.Sequential()
        for _ in range(doublings):
            self.up += nn.Sequential(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU())
        self.last = nn.Conv2d(width, channels, 9, 1, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = first = self.first(images)
        for block in self.blocks:
            features = features + block(features)
        return torch.tanh(self.last(self.up(first + self.middle(features))))


class Discriminator(nn.Module):
    """Strided convolutions, then a logit (N,)."""

    def __init__(self, channels: int, width: int, norm: ganlab.NormName) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.LeakyReLU(0.2))
        for given, made in ((width, width), (width, 2 * width)):
            convolution = nn.Conv2d(given, made, 3, 2, 1)
            self.layers += nn.Sequential(convolution, ganlab.norm_layer(norm, made, 2), nn.LeakyReLU(0.2))
        self.layers += nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).squeeze(1)


class VGG(nn.Module):
    """The first convolutions of VGG-19, under the names of torchvision's, up to the activation of the last one."""

    def __init__(self, convolutions: int) -> None:
        super().__init__()
        widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
        self.features = nn.Sequential()
        given = 3
        for index, width in enumerate(widths[:convolutions]):
            if index in (2, 4, 8, 12):
                self.features += nn.Sequential(nn.MaxPool2d(2))
            self.features += nn.Sequential(nn.Conv2d(given, width, 3, 1, 1), nn.ReLU())
            given = width
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, F, h, w) of images in [-1, 1]; grey ones are given three channels."""
        return self.features(((images + 1) / 2 - self.mean) / self.deviation)


@frozen
class SquaredError:
    """SRResNet, trained on the squared error alone: it enlarges the images that are conditions in `[dataset]`.

    blocks: residual blocks of the generator.
    width: channels of the networks.
    norm: the norm of the networks.
    weights: the file of the generator's weights in a checkpoint of an earlier run, with which it begins, if any.
    """

    blocks: int = field(default=16, validator=ge(1))
    width: int = field(default=64, validator=ge(1))
    norm: ganlab.NormName = "batch"
    weights: str = ganlab.location(default="")

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        images, (channels, height, width) = data.images, data.images.condition_shape or (0, 1, 1)
        doublings = (images.height // height).bit_length() - 1
        if (channels, height << doublings, width << doublings) != (images.channels, images.height, images.width):
            raise ganlab.ComponentError("[dataset] must have its images in half the size, or a quarter, as conditions")
        generator = ganlab.Network(
            lambda: SRResNet(channels, doublings, self.blocks, self.width, self.norm), initialise=self.start
        )
        move = ganlab.Move("generator", players=("generator",), terms=self.enlarge)
        return ganlab.Rules({"generator": generator}, [move], ganlab.translator_of("generator"))

    def start(self, generator: nn.Module) -> None:
        if self.weights:
            ganlab.load_weights(generator, self.weights)

    def enlarge(self, turn: ganlab.Turn) -> Tensor:
        return (turn.forward("generator", turn.condition).float() - turn.real).square().mean()


@frozen
class SRGAN(SquaredError):
    """Super-resolution whose content loss is of frozen features. It begins with the weights of a run of `srresnet`.

    blocks, width, norm, weights: as of `srresnet`.
    loss: the adversarial loss.
    adversarial: its factor for the generator.
    convolutions: of VGG-19, whose features are compared: 4 for the paper's VGG22, 16 for VGG54.
    features: a file with the weights of torchvision's VGG-19; without one they are random.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    adversarial: float = field(default=1e-3, validator=ge(0))
    convolutions: int = field(default=4, validator=[ge(1), le(16)])
    features: str = ganlab.location(default="")

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        upscaling = super().build(data)
        judge = ganlab.Network(lambda: Discriminator(data.images.channels, self.width, self.norm))
        vgg = ganlab.Network(lambda: VGG(self.convolutions), frozen=True, initialise=self.pretrain)
        return ganlab.Rules(
            networks={**upscaling.networks, "discriminator": judge, "vgg": vgg},
            moves=[ganlab.Move("discriminator", players=("discriminator",), terms=self.judge), *upscaling.moves],
            sampler=upscaling.sampler,
        )

    def pretrain(self, vgg: nn.Module) -> None:
        if self.features:
            ganlab.load_weights(vgg, self.features, partly=True)

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = turn.forward("generator", turn.condition).float()
        return self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, fake))

    def enlarge(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        fake = turn.forward("generator", turn.condition).float()
        fooled = self.loss.generator(self.logits(turn, turn.real), self.logits(turn, fake))
        made, real = (turn.forward("vgg", images).float() / 12.75 for images in (fake, turn.real))
        return {"content": (made - real).square().mean(), "adversarial": self.adversarial * fooled}


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("srresnet", SquaredError)
    register("srgan", SRGAN)
