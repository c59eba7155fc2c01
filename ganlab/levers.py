"""What makes a step cheaper without changing what it computes, and the probes that find where that is allowed.

Decisions:
- A plugin declares nothing: a probe finds what its code does. NaN in tells where NaN comes out.
- Each lever that moves the last bits, or draws other random numbers, is written down in run.json (`step_levers`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.protocols import Augmentation, ImageSpec, Loss


def uses_real(loss: Loss) -> bool:
    """Whether the generator's loss looks at the logits of real images: NaN in, NaN out.

    A copy is asked: a loss with a state of its own, such as a running mean, would keep the NaN.
    """
    real, fake = torch.full((4,), torch.nan), torch.zeros(4)
    return bool(torch.isnan(copy.deepcopy(loss).generator(real, fake)).any())


def rows_are_independent(
    discriminator: nn.Module,
    augmentations: Sequence[Augmentation],
    images: ImageSpec,
    device: torch.device,
    two: Tensor | None = None,
) -> bool:
    """Whether what the discriminator says of an image, a bare logit, is left alone by the rest of its batch.

    Half of a batch of NaN must leave the other half finite. Batch norm and a minibatch's standard deviation do not; a
    copy is asked, since the first would keep the NaN. `two` are conditions of two images, where there are any.
    """
    network, augmentations = copy.deepcopy((discriminator, augmentations))
    batch = torch.zeros(4, images.channels, images.height, images.width, device=device)
    batch[2:] = torch.nan
    for augmentation in augmentations:
        batch = augmentation.augment(batch)
    with torch.no_grad():
        output = network.train()(batch, None if two is None else torch.cat([two, two]))
    return isinstance(output, Tensor) and output.shape == (4,) and bool(output[:2].isfinite().all())


class _Looked(Exception):
    """Somebody used a tensor that tells of it."""


class _Telling(Tensor):
    """A tensor that raises where anything is done with it."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> Any:
        raise _Looked


def looks_at_condition(network: nn.Module, given: Tensor, condition: Tensor) -> bool:
    """Whether a network does anything with its condition. Not whether that changes what it gives: at first it may not.

    `given` are latents or images.
    """
    try:
        with torch.no_grad():
            copy.deepcopy(network)(given, condition.as_subclass(_Telling))
    except _Looked:
        return True
    return False


def prepare(network: nn.Module, device: torch.device) -> None:
    """Lays a network with convolutions out channels last; on the CPU, makes its dropout quick."""
    if has_convolutions(network):
        network.to(memory_format=torch.channels_last)
    if device.type == "cpu":
        for parent in network.modules():
            for name, child in list(parent.named_children()):
                if type(child) is nn.Dropout:
                    setattr(parent, name, QuickDropout(child.p, child.inplace))


def has_convolutions(network: nn.Module) -> bool:
    """Whether the channels-last memory format is faster for the network: its 2-D convolutions are."""
    return any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in network.modules())


def has_quick_dropout(network: nn.Module) -> bool:
    return any(isinstance(module, QuickDropout) for module in network.modules())


class QuickDropout(nn.Dropout):
    """Dropout that draws 16 random bits for a value, where torch's on the CPU draws a double: ten times as fast.

    A value is kept where its bits, as a whole number, lie below (1 - p) 2^16, rounded; what is kept is divided by
    exactly the probability that this gives, so that the mean is kept too.
    """

    def forward(self, input: Tensor) -> Tensor:
        kept = round((1 - self.p) * 2**16)
        if not self.training or kept in (0, 2**16):
            return super().forward(input)
        count = input.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        below = bits[:count].view(input.shape) < kept - 2**15
        scale = below.to(input.dtype).mul_(2**16 / kept)
        return input.mul_(scale) if self.inplace else input * scale


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimiser on CUDA count its updates on the device, so that a graph of its step can be captured."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    # torch warns once where such an optimiser is used before the capture, as it is for the first steps here.
    vars(optimizer)["_warned_capturable_if_run_uncaptured"] = True
