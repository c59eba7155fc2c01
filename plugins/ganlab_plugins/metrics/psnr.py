"""PSNR, the peak signal-to-noise ratio of translated or restored images to their targets, in decibels.

Decisions:
- Images are rounded to 256 levels, as they are written to files, so the peak is 255.
- The ratio is of each image, and the score is the mean over images, as papers on super-resolution have it. All channels
  count and nothing is left out unless `luminance` and `border` say so, as those papers do.
- An image without any error would have an infinite ratio, and so would the mean: ratios end at 100 dB.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import Evaluation, Interval, Metric, Register, Scores, about_output, hookimpl, output_scores
from ganlab_plugins.metrics._restored_pixels import about_restored, check_restored, restored_pixels

if TYPE_CHECKING:
    from torch import Tensor

MOST = 100.0
"""The highest ratio of an image, in decibels."""


@frozen
class PSNR:
    """PSNR: 10 log10(255^2 / mean squared error) of what the game makes of a split to the split's images.

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be images of the data's shape.
    split: whose images are the targets.
    luminance: compare the luminance of images of three channels alone, as papers on super-resolution do.
    border: how many pixels at each side are left out; SRGAN's authors leave out 4.
    """

    every: Interval = Interval()
    output: str = field(default="translation", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"
    luminance: bool = False
    border: int = field(default=0, validator=[validators.ge(0), validators.le(2**16)])

    def prepare(self, evaluation: Evaluation) -> None:
        """PSNR refuses a game without the output, and data without the split."""
        evaluation.outputs(self.output, self.split)
        check_restored(evaluation, self.split, self.luminance, self.border)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`psnr`, in decibels."""
        check_restored(evaluation, self.split, self.luminance, self.border)
        compare = partial(psnr, luminance=self.luminance, border=self.border)
        values = output_scores(evaluation, self.output, self.split, compare)
        return Scores(
            values={"psnr": float(values.mean())},
            better={"psnr": "higher"},
            protocol={
                "metric": "psnr",
                **about_output(self.output, evaluation.dataset(self.split)),
                **about_restored(self.luminance, self.border),
                "data_range": 255,
                "most": MOST,
                "mean": "over images",
            },
        )


def psnr(made: Tensor, target: Tensor, luminance: bool = False, border: int = 0) -> Tensor:
    """PSNR (n,) of images (n, C, H, W) in [-1, 1], rounded to 256 levels."""
    difference = restored_pixels(made, luminance, border) - restored_pixels(target, luminance, border)
    ratio: Tensor = 10 * (255**2 / difference.square().flatten(1).mean(1)).log10()
    return ratio.clamp(max=MOST)


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("psnr", PSNR)
