"""Residual network from condition images to images (Johnson et al. 2016, arXiv:1603.08155), as CycleGAN has it.

Zhu et al. 2017, arXiv:1703.10593, appendix 7.2: c7s1-64, d128, d256, blocks of R256, u128, u64, c7s1-3.

Decisions:
- Any height and width of which two pixels are left once they are halved `halvings` times; a trained network takes other
  sizes too.
- The encoder is what comes before the middle block. Called with `encode_only`, the network returns its features, as CUT
  compares them: the input, the map of each halving, the first and the last residual block.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import ComponentError, ImageSpec, NetworkConfig, NormName, Register, check_tanh, hookimpl, norm_layer
from ganlab_plugins.networks._translator_input import TranslatorInput
from ganlab_plugins.networks.unet import initialise

Padding = Literal["reflect", "zeros"]


class _Convolution(nn.Sequential):
    def __init__(
        self, channels: int, width: int, side: int, stride: int, config: ResnetTranslator, *, relu: bool = True
    ) -> None:
        convolution = nn.Conv2d(
            channels, width, side, stride, side // 2, bias=config.norm == "none", padding_mode=config.padding
        )
        super().__init__(convolution, norm_layer(config.norm, width, 2), *([nn.ReLU()] if relu else []))


class _Block(nn.Module):
    def __init__(self, width: int, config: ResnetTranslator) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Convolution(width, width, 3, 1, config), _Convolution(width, width, 3, 1, config, relu=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = maps + self.layers(maps)
        return changed


class _Enlarge(nn.Module):
    def __init__(self, channels: int, width: int, config: ResnetTranslator) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(channels, width, 3, 2, 1, bias=config.norm == "none")
        self.norm = norm_layer(config.norm, width, 2)

    def forward(self, maps: Tensor, like: Tensor) -> Tensor:
        size = cast("list[int]", like.shape[2:])
        enlarged: Tensor = self.norm(self.convolution(maps, output_size=size)).relu()
        return enlarged


class _Translator(nn.Module):
    def __init__(self, config: ResnetTranslator, images: ImageSpec) -> None:
        super().__init__()
        check_tanh(images, "resnet_translator")
        self.latent_dim = config.latent_dim
        self.given = TranslatorInput("resnet_translator", config.latent_dim, images, config.latent_maps)
        least = max(4, 2 ** (config.halvings + 1))
        if min(images.height, images.width) < least:
            raise ComponentError(
                f"resnet_translator needs images of at least {least}x{least} pixels with halvings = {config.halvings}; "
                f"here they are {images.height}x{images.width}"
            )
        widths = [config.channels * 2**level for level in range(config.halvings + 1)]
        self.first = _Convolution(self.given.channels, widths[0], 7, 1, config)
        self.down = nn.ModuleList(_Convolution(before, width, 3, 2, config) for before, width in pairwise(widths))
        self.blocks = nn.ModuleList(_Block(widths[-1], config) for _ in range(config.blocks))
        self.up = nn.ModuleList(_Enlarge(width, before, config) for before, width in reversed([*pairwise(widths)]))
        self.last = nn.Conv2d(widths[0], images.channels, 7, 1, 3, padding_mode=config.padding)
        self.feature_channels = (self.given.channels, *widths[1:], widths[-1], widths[-1])
        self.apply(initialise)

    def forward(self, z: Tensor, condition: Tensor | None = None, encode_only: bool = False) -> Tensor | list[Tensor]:
        given = self.given(z, condition)
        seen = [self.first(given)]
        for down in self.down:
            seen.append(down(seen[-1]))
        maps, kept = seen[-1], []
        middle = (len(self.blocks) + 1) // 2
        for number, block in enumerate(self.blocks, start=1):
            maps = block(maps)
            if number in (1, middle):
                kept.append(maps)
            if encode_only and number == middle:
                return [given, *seen[1:], kept[0], kept[-1]]
        for up, like in zip(self.up, reversed(seen[:-1]), strict=True):
            maps = up(maps, like)
        image: Tensor = self.last(maps).tanh()
        return image


@frozen
class ResnetTranslator:
    """Residual translator of condition images into images.

    channels: feature maps of the first layer; twice as many after each halving.
    blocks: residual blocks in the middle; the paper has 6 for 128 pixels and 9 for 256.
    halvings: how often the sides are halved before them.
    norm: of each layer except the last.
    padding: of the convolutions: "reflect" as published; "zeros" has a deterministic gradient on CUDA.
    latent_dim: size of a latent, which is joined to the input as constant maps; 0 for none.
    latent_maps: how many maps a linear layer makes of a latent instead, as PixelDA has one (arXiv:1612.05424): they
        differ from place to place, and all images have one size; 0 for constant maps.
    """

    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    blocks: int = field(default=6, validator=[ge(1), le(1024)])
    halvings: int = field(default=2, validator=[ge(0), le(16)])
    norm: NormName = "instance"
    padding: Padding = "reflect"
    latent_dim: int = field(default=0, validator=[ge(0), le(2**20)])
    latent_maps: int = field(default=0, validator=[ge(0), le(2**16)])

    def __attrs_post_init__(self) -> None:
        if self.latent_maps and not self.latent_dim:
            raise ValueError(
                f"latent_maps: {self.latent_maps} with latent_dim = 0; there are no latents to make maps of"
            )

    def build(self, images: ImageSpec) -> nn.Module:
        return _Translator(self, images)


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("resnet_translator", ResnetTranslator)
