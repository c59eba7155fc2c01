"""The reconstruction error: how far what a game's autoencoder makes of real images lies from them, in pixel values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from ganlab import Evaluation, Interval, Metric, Register, Scores, about_output, hookimpl, output_scores

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class ReconstructionError:
    """The mean squared or absolute error of what the game makes of a split, of pixels in [-1, 1].

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be images of the data's shape.
    split: whose images are reconstructed.
    error: which error of a pixel is averaged.
    """

    every: Interval = Interval()
    output: str = field(default="reconstruction", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"
    error: Literal["squared", "absolute"] = "squared"

    def prepare(self, evaluation: Evaluation) -> None:
        """The reconstruction error refuses a game without the output, and data without the split."""
        evaluation.outputs(self.output, self.split)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`reconstruction_error`, of images as the networks give them, not rounded."""

        def of_image(made: Tensor, images: Tensor) -> Tensor:
            difference = (made.double() - images.double()).flatten(1)
            return difference.square().mean(1) if self.error == "squared" else difference.abs().mean(1)

        values = output_scores(evaluation, self.output, self.split, of_image)
        return Scores(
            values={"reconstruction_error": float(values.mean())},
            better={"reconstruction_error": "lower"},
            protocol={
                "metric": "reconstruction_error",
                **about_output(self.output, evaluation.dataset(self.split)),
                "error": f"mean {self.error}",
                "data_range": [-1, 1],
            },
        )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("reconstruction_error", ReconstructionError)
