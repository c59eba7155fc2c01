"""ganlab.protocols.penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor, nn


@frozen
class Step:
    """What a penalty sees of one update, or of a part of its batch (`train.accumulate`).

    Tensors are on the run's device; images are (N, C, H, W) in [-1, 1].

    `player` says whose update it is. In the discriminator's, `fake` carries no gradient; in the generator's, the
    discriminator's parameters are frozen, and `real` and `real_logits` are None unless the loss uses them.
    `images_seen` is a 0-dim int64 tensor that the loop fills, not a Python number, so that a step can be captured.
    """

    player: str
    generator: nn.Module
    discriminator: nn.Module
    real: Tensor | None
    fake: Tensor
    real_logits: Any
    fake_logits: Any
    condition: Tensor | None
    images_seen: Tensor

    def judge(self, images: Tensor) -> Tensor:
        """The discriminator's logits (N,) of other images (N, C, H, W), as many as the batch has, for its condition.

        They are not augmented, and are computed in float32 under bfloat16 too, in which second derivatives are noise.
        """
        import torch

        with torch.autocast(images.device.type, enabled=False):
            output = self.discriminator(images, self.condition)
        logits: Tensor = output if isinstance(output, torch.Tensor) else output.logits
        return logits

    def generate(self, z: Tensor) -> Tensor:
        """Images (N, C, H, W) that the generator makes of other latents (N, latent_dim), for the batch's condition.

        N is at most the batch's: the first N conditions are taken. As with `judge`, all is computed in float32 under
        bfloat16 too. It is one more pass in training mode: batch norm's running statistics take it in, as they do a
        batch, and dropout draws for it.
        """
        import torch

        condition = None if self.condition is None else self.condition[: len(z)]
        with torch.autocast(z.device.type, enabled=False):
            images: Tensor = self.generator(z, condition)
        return images

    def mean_of_all(self, value: Tensor) -> Tensor:
        """The mean over processes of a tensor of each, without a gradient: for a state that must be the same in all."""
        from ganlab.utils import distributed

        return distributed.all_reduce_mean(value.detach().clone())

    def gradient_at(self, images: Tensor) -> Tensor:
        """The gradient (N, C, H, W) of each image's logit by the image, itself differentiable, as `judge` computes it.

        With batch norm a logit depends on other images too; as is usual, the gradient of the sum of logits is taken.
        """
        import torch

        at = images.detach().requires_grad_()
        # The way back is computed under autocast too, where that is on.
        with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(self.judge(at).sum(), at, create_graph=True)
        return gradient


@runtime_checkable
class Penalty(Protocol):
    """A scalar added to one player's loss, in the same backward pass.

    `player` is "generator" or "discriminator". `every` is the interval in updates of that player (lazy regularisation,
    Karras et al. 2020, arXiv:1912.04958): the term is added on every k-th update, multiplied by k, so that its weight
    keeps its meaning.
    """

    @property
    def player(self) -> str: ...

    @property
    def every(self) -> int: ...

    def penalty(self, step: Step, /) -> Tensor: ...
