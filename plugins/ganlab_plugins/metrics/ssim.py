"""SSIM, the structural similarity of translated or restored images to their targets (Wang et al. 2004).

doi:10.1109/TIP.2003.819861: of means, variances and the covariance in a Gaussian window, K1 = 0.01 and K2 = 0.03.

Decisions:
- Images are rounded to 256 levels, as they are written to files. Sums are float64.
- Only windows that lie within the image count. Channels are compared one by one, and their mean is taken;
  papers on super-resolution compare the luminance without a border (`luminance`, `border`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen, validators

from ganlab import (
    ComponentError,
    Evaluation,
    Interval,
    Metric,
    Register,
    Scores,
    about_output,
    hookimpl,
    output_scores,
)
from ganlab_plugins.metrics._restored_pixels import about_restored, check_restored, restored_pixels

if TYPE_CHECKING:
    from torch import Tensor

SIGMA = 1.5
"""The standard deviation of the window, in pixels."""

RANGE, K1, K2 = 255, 0.01, 0.03


def _odd(instance: object, attribute: Any, value: int) -> None:
    if value % 2 == 0:
        raise ValueError(f"{attribute.name} must be odd: {value}")


@frozen
class SSIM:
    """SSIM: the structural similarity of what the game makes of a split to the split's images, at most 1.

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be images of the data's shape.
    split: whose images are the targets.
    luminance: compare the luminance of images of three channels alone, as papers on super-resolution do.
    border: how many pixels at each side are left out; SRGAN's authors leave out 4.
    window: height and width of the Gaussian window in pixels, odd; no image may be smaller.
    """

    every: Interval = Interval()
    output: str = field(default="translation", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"
    luminance: bool = False
    border: int = field(default=0, validator=[validators.ge(0), validators.le(2**16)])
    window: int = field(default=11, validator=[validators.ge(3), validators.le(101), _odd])

    def prepare(self, evaluation: Evaluation) -> None:
        """SSIM refuses a game without the output, data without the split, and images smaller than its window."""
        evaluation.outputs(self.output, self.split)
        self._check(evaluation)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`ssim`."""
        self._check(evaluation)
        compare = partial(ssim, window=self.window, luminance=self.luminance, border=self.border)
        values = output_scores(evaluation, self.output, self.split, compare)
        return Scores(
            values={"ssim": float(values.mean())},
            better={"ssim": "higher"},
            protocol={
                "metric": "ssim",
                **about_output(self.output, evaluation.dataset(self.split)),
                **about_restored(self.luminance, self.border),
                "data_range": RANGE,
                "window": f"Gaussian, {self.window}x{self.window}, sigma {SIGMA}, within the image",
                "k": [K1, K2],
                "mean": "over channels, then over images",
            },
        )

    def _check(self, evaluation: Evaluation) -> None:
        height, width = check_restored(evaluation, self.split, self.luminance, self.border)
        if min(height, width) < self.window:
            raise ComponentError(
                f"images of {height}x{width} are smaller than the window; set `window` to an odd number from 3 to "
                f"{min(height, width)}; it is {self.window}"
            )


def ssim(made: Tensor, target: Tensor, window: int = 11, luminance: bool = False, border: int = 0) -> Tensor:
    """SSIM (n,) of images (n, C, H, W) in [-1, 1], rounded to 256 levels."""
    import torch

    a, b = (restored_pixels(images, luminance, border) for images in (made, target))
    offsets = torch.arange(window, dtype=a.dtype, device=a.device) - window // 2
    weights = (-offsets.square() / (2 * SIGMA**2)).exp()
    weights /= weights.sum()

    def local(values: Tensor) -> Tensor:
        """Means in the window, of each channel."""
        flat = values.flatten(0, 1)[:, None]
        down = torch.nn.functional.conv2d(flat, weights[None, None, :, None])
        means = torch.nn.functional.conv2d(down, weights[None, None, None, :])
        found: Tensor = means.unflatten(0, values.shape[:2])
        return found

    mean_a, mean_b = local(a), local(b)
    variances = local(a * a) - mean_a * mean_a + local(b * b) - mean_b * mean_b
    covariance = local(a * b) - mean_a * mean_b
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    similarity: Tensor = brightness * (2 * covariance + c2) / (variances + c2)
    return similarity.flatten(1).mean(1)


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("ssim", SSIM)
