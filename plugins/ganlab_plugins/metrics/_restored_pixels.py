"""The pixels by which `psnr` and `ssim` compare restored images with their targets.

Papers on super-resolution compare the luminance alone, without a border as wide as the magnification (SRGAN: 4 pixels).
Luminance is that of ITU-R BT.601 in [16, 235], as in MATLAB's rgb2ycbcr, here not rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganlab import ComponentError, Evaluation

if TYPE_CHECKING:
    from torch import Tensor

LUMINANCE = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""The weights of red, green and blue in [0, 255]."""


def restored_pixels(images: Tensor, luminance: bool, border: int) -> Tensor:
    """Float64 (n, C, H, W) in [0, 255] of images in [-1, 1], rounded to 256 levels, without `border` pixels a side."""
    from ganlab import to_uint8

    pixels = to_uint8(images).double()
    if luminance:
        pixels = 16 + (pixels * pixels.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    return pixels[..., border : pixels.shape[-2] - border, border : pixels.shape[-1] - border]


def check_restored(evaluation: Evaluation, split: str, luminance: bool, border: int) -> tuple[int, int]:
    """The height and width that are compared; raises ComponentError for options that the images do not allow."""
    channels, height, width = evaluation.dataset(split).images.shape[1:]
    if luminance and channels != 3:
        raise ComponentError(f"luminance = true needs images of 3 channels; these have {channels}")
    if 2 * border >= min(height, width):
        raise ComponentError(f"border = {border} leaves nothing of images of {height}x{width}")
    return height - 2 * border, width - 2 * border


def about_restored(luminance: bool, border: int) -> dict[str, Any]:
    """What the protocol of a score says of them."""
    of = ", luminance (BT.601)" if luminance else ""
    return {"images": f"uint8, rounded{of}", **({"border": border} if border else {})}
