"""Adaptive discriminator augmentation (ADA; Karras et al. 2020, arXiv:2006.06676)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from attrs import Factory, field, frozen
from attrs.validators import ge, gt, le, min_len
from torch import Tensor
from torch.nn.functional import grid_sample

from ganlab import Augmentation, ComponentError, Register, hookimpl

Part = Literal["blit", "geometry", "color"]

SHIFT, ZOOM, MOVE = 0.125, 0.2, 0.125
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0
"""Strengths from the paper's appendix B: as fractions of a side, of a colour in [-1, 1], or as log2 factors."""


def _initial(options: Ada) -> dict[str, Tensor]:
    return {"p": torch.full((), float(options.p)), "signs": torch.zeros(()), "seen": torch.zeros(())}


@frozen
class Ada:
    """ADA: twelve transforms, each applied to an image with a probability p that adapts to the discriminator.

    p increases while r_t, the mean sign of the logits of real images, is above the target, and decreases otherwise: a
    discriminator that is confident about all real images overfits. So the loss must be one that drives real logits
    above 0, which relativistic losses do not guarantee. p is logged as `ada_p`. The transforms are the paper's, except
    for the filters: images are resampled once, bilinearly, with reflection at the edges, while the paper filters at
    twice the resolution; so downscaled images have some aliasing. An image without a geometric transform keeps its
    pixels. Colour transforms need 1 or 3 channels; images of 1 channel have no hue or saturation. The gradient of the
    resampling is not deterministic on CUDA (`train.deterministic`), and no device has its second derivative.

    policy: the transforms: "blit" (flips, rotations by 90 degrees, translations by whole pixels), "geometry" (scaling,
        rotations by any angle, anisotropic scaling, translations) and "color" (brightness, contrast, luma inversion,
        hue, saturation).
    p: the initial probability.
    adaptive: adapt p to the logits. Otherwise p is constant, or set by a schedule; inside `consistency`, where logits
        are not observed, it must be False.
    target: the target of r_t, from -1 to 1.
    interval: update p after this many real images; 256 are the paper's 4 batches of 64.
    ramp: the number of real images over which p can rise from 0 to 1.
    """

    of_pixels: ClassVar[bool] = True

    policy: tuple[Part, ...] = field(default=("blit", "geometry", "color"), validator=min_len(1))
    p: float = field(default=0.0, validator=[ge(0), le(1)])
    adaptive: bool = True
    target: float = field(default=0.6, validator=[gt(-1), le(1)])
    interval: int = field(default=256, validator=[ge(1), le(10**6)])
    ramp: int = field(default=500_000, validator=[ge(1), le(10**12)])
    _state: dict[str, Tensor] = field(init=False, eq=False, repr=False, default=Factory(_initial, takes_self=True))

    def __attrs_post_init__(self) -> None:
        if self.adaptive and isinstance(self.p, Tensor):
            raise ValueError("p adapts to the logits; a schedule of p needs adaptive = false")

    def augment(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise ComponentError(
                f"ADA is of images (N, C, H, W); got data (N, {', '.join(map(str, images.shape[1:]))})"
            )
        p = self._on(images.device)["p"] if self.adaptive else self.p
        parts = [draw(images, p) for part, draw in (("blit", _blit), ("geometry", _geometry)) if part in self.policy]
        if parts:
            images = _resample(images, _matrix_product(*parts))
        return _color(images, p) if "color" in self.policy else images

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        if not self.adaptive:
            return
        state = self._on(real_logits.device)
        state["signs"].add_(real_logits.sign().sum())
        state["seen"].add_(len(real_logits))
        due = state["seen"] >= self.interval
        way = (state["signs"] / state["seen"] - self.target).sign()
        moved = (state["p"] + way * state["seen"] / self.ramp).clamp(0, 1)
        state["p"].copy_(torch.where(due, moved, state["p"]))
        for counted in ("signs", "seen"):
            state[counted].mul_(~due)

    def measures(self) -> dict[str, Tensor]:
        return {"ada_p": self._state["p"]} if self.adaptive else {}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._state.items():
            tensor.copy_(state[name])

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        """ADA's state on the images' device; from the first step on it consists of the same tensors."""
        for name, tensor in self._state.items():
            if tensor.device != device:
                self._state[name] = tensor.to(device)
        return self._state


def _drawn(p: float | Tensor, value: Tensor, neutral: float) -> Tensor:
    """ADA: the drawn parameter of each image, (N, …), with probability p, and the neutral value otherwise."""
    chosen = torch.rand(len(value), *[1] * (value.ndim - 1), device=value.device) < p
    return torch.where(chosen, value, neutral)


# ---------------------------------------------------------------------------------------------------------------------
# Geometric transforms: matrices (N, 3, 3) from output to input pixel coordinates, relative to the image's centre.
# They are multiplied elementwise, because TF32 would round the coordinates to ten bits.
# ---------------------------------------------------------------------------------------------------------------------


def _blit(images: Tensor, p: float | Tensor) -> Tensor:
    coin, quarters = (torch.randint(0, high, (len(images),), device=images.device) for high in (2, 4))
    mirrored = 1 - 2 * _drawn(p, coin, 0).to(images.dtype)
    angle = _drawn(p, quarters, 0).to(images.dtype) * (math.pi / 2)
    shift = _drawn(p, _uniform(images, 2) * SHIFT * _sides(images), 0).round()
    return _matrix_product(_scaling(mirrored, torch.ones_like(mirrored)), _rotation(angle).round(), _translation(shift))


def _geometry(images: Tensor, p: float | Tensor) -> Tensor:
    # A rotation before or after the anisotropic scaling occurs with probability p in total.
    p_rotation = 1 - (1 - p) ** 0.5
    zoom, stretch = (_drawn(p, (_normal(images) * ZOOM).exp2(), 1) for _ in range(2))
    before, after = (_drawn(p_rotation, _uniform(images) * math.pi, 0) for _ in range(2))
    shift = _drawn(p, _normal(images, 2) * MOVE * _sides(images), 0)
    return _matrix_product(
        _scaling(1 / zoom, 1 / zoom),
        _rotation(before),
        _scaling(1 / stretch, stretch),
        _rotation(after),
        _translation(shift),
    )


def _uniform(images: Tensor, *shape: int) -> Tensor:
    """ADA: uniform random numbers in [-1, 1), (N, …)."""
    return 2 * torch.rand(len(images), *shape, device=images.device, dtype=images.dtype) - 1


def _normal(images: Tensor, *shape: int) -> Tensor:
    return torch.randn(len(images), *shape, device=images.device, dtype=images.dtype)


def _sides(images: Tensor) -> Tensor:
    """Width and height, (2,)."""
    height, width = images.shape[2:]
    return torch.cat([images.new_full((1,), width), images.new_full((1,), height)])


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    zero, one = torch.zeros_like(rows[0][0]), torch.ones_like(rows[0][0])
    return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, one))], 1)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _matrix((x, zero, zero), (zero, y, zero))


def _rotation(angle: Tensor) -> Tensor:
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix((cos, sin, zero), (-sin, cos, zero))


def _translation(shift: Tensor) -> Tensor:
    one, zero = torch.ones_like(shift[:, 0]), torch.zeros_like(shift[:, 0])
    return _matrix((one, zero, -shift[:, 0]), (zero, one, -shift[:, 1]))


def _matrix_product(first: Tensor, *others: Tensor) -> Tensor:
    for other in others:
        first = (first[:, :, :, None] * other[:, None]).sum(2)
    return first


def _resample(images: Tensor, matrices: Tensor) -> Tensor:
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None] - (height - 1) / 2
    rows = matrices[:, :2, :, None, None]
    source = rows[:, :, 0] * x + rows[:, :, 1] * y + rows[:, :, 2]
    source = (source * 2).movedim(1, 3) / _sides(images)
    made = grid_sample(images, source, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = (matrices != torch.eye(3, device=images.device, dtype=images.dtype)).any(2).any(1)
    return torch.where(moved[:, None, None, None], made, images)


# ---------------------------------------------------------------------------------------------------------------------
# Colour transforms: a matrix (N, C, C); all factors preserve the grey axis, so they commute.
# ---------------------------------------------------------------------------------------------------------------------


def _color(images: Tensor, p: float | Tensor) -> Tensor:
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ComponentError(f'ada: "color" needs images of 1 or 3 channels, got {channels}; leave it out of policy')
    each = torch.eye(channels, device=images.device, dtype=images.dtype)
    grey = torch.full_like(each, 1 / channels)  # the projection onto the grey axis
    brightness = _drawn(p, _normal(images, 1, 1) * BRIGHTNESS, 0)
    matrix = _drawn(p, (_normal(images, 1, 1) * CONTRAST).exp2(), 1) * each
    inverted = _drawn(p, torch.randint(0, 2, (len(images), 1, 1), device=images.device), 0)
    matrix = _matrix_product(matrix, each - 2 * inverted * grey)
    if channels == 3:
        angle = _drawn(p, _uniform(images, 1, 1) * math.pi, 0)
        across = (each.roll(1, 0) - each.roll(1, 1)) / math.sqrt(3)
        hue = angle.cos() * each + (1 - angle.cos()) * grey + angle.sin() * across
        saturation = _drawn(p, (_normal(images, 1, 1) * SATURATION).exp2(), 1)
        matrix = _matrix_product(matrix, hue, each + (saturation - 1) * (each - grey))
    return (matrix @ (images.flatten(2) + brightness)).view_as(images)


@hookimpl
def register_augmentations(register: Register[Augmentation]) -> None:
    register("ada", Ada)
