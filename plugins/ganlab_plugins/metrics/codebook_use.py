"""Codebook use: how many codes a game such as VQGAN gives the images of a split, and how evenly.

The perplexity exp(H) of the codes' frequencies is that of van den Oord et al. 2017 (VQ-VAE, arXiv:1711.00937): the
number of codes that would be used as much if all were equally frequent.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from attrs import field, frozen, validators

from ganlab import ComponentError, Evaluation, Interval, Metric, Register, Scores, Takes, about_output, hookimpl


@frozen
class CodebookUse:
    """Codebook use: how many different codes the images of a split are given, and the perplexity of these codes.

    every: how often it is computed in training, in addition to before and after it.
    output: which of the game's outputs; it must be codes, int64 (N, …).
    split: whose images are encoded.
    """

    takes: ClassVar[Takes] = "any"

    every: Interval = Interval()
    output: str = field(default="codes", validator=validators.min_len(1))
    split: Literal["train", "test"] = "test"

    def prepare(self, evaluation: Evaluation) -> None:
        """Codebook use refuses a game without the output, and data without the split."""
        evaluation.outputs(self.output, self.split)

    def evaluate(self, evaluation: Evaluation) -> Scores:
        """`codes_used`, a number of codes, and `code_perplexity`, at most that."""
        import torch

        found = [torch.empty(0, dtype=torch.int64, device=evaluation.device)]
        done, total = 0, len(evaluation.dataset(self.split).images)
        for codes, images, _ in evaluation.outputs(self.output, self.split):
            if codes.dtype != torch.int64:
                raise ComponentError(f"the output {self.output!r} is {codes.dtype}; wanted codes, int64")
            found.append(codes.flatten())
            done += len(images)
            evaluation.progress(f"codes of {self.split} images", done, total)
        _, counts = evaluation.gather(torch.cat(found)).unique(return_counts=True)
        shares = counts.double() / counts.sum()
        perplexity = (-(shares * shares.log()).sum()).exp()
        values = {"codes_used": float(len(counts)), "code_perplexity": float(perplexity)}
        return Scores(
            values=values,
            better=dict.fromkeys(values, "higher"),
            protocol={"metric": "codebook_use", **about_output(self.output, evaluation.dataset(self.split))},
        )


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register("codebook_use", CodebookUse)
