"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676): as much as overfitting asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from attrs import Factory, field, frozen
from attrs.validators import ge, gt, le, min_len
from torch import Tensor
from torch.nn.functional import grid_sample

from ganlab import Augmentation, ComponentError, Register, hookimpl

Part = Literal["blit", "geometry", "color"]

SHIFT, ZOOM, MOVE = 0.125, 0.2, 0.125
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0
"""The strengths of the paper's appendix B: of a side, of a color from -1 to 1, or of a logarithm to the base 2."""


def _initial(options: Ada) -> dict[str, Tensor]:
    return {"p": torch.full((), float(options.p)), "signs": torch.zeros(()), "seen": torch.zeros(())}


@frozen
class Ada:
    """The paper's pipeline of twelve kinds of change, each made of an image with probability p, which adapts.

    p rises while the mean sign of the logits of real images, r_t, lies over the target, and else falls: a discriminator
    that is sure of all real images has learnt them by heart. So the loss must be one whose logits are above 0 for real
    images, which no relativistic one promises. `log.jsonl` has p as `ada_p`. It is the paper's pipeline but for the
    filters: images are resampled once, bilinearly, and reflected at their edges, where the paper filters at twice the
    size; so what is made smaller has some aliasing. An image that no change of place falls to keeps its pixels.
    Images need 1 or 3 channels for colour, and one of 1 has no hue or saturation. On CUDA the resampling has no
    deterministic gradient (`train.deterministic`), and nowhere a second one.

    policy: which changes: "blit" (mirrored, turned by quarters, moved by whole pixels), "geometry" (scaled, turned by
        any angle, stretched, moved) and "color" (brightness, contrast, inverted luma, hue, saturation).
    p: the probability at the start.
    adaptive: let p follow the logits. Else it stays, as it must inside `consistency`, which shows no logits, or a
        schedule moves it.
    target: what r_t is to be, from -1 to 1.
    interval: after how many real images p is moved, by as many of `ramp`; 256 are the paper's 4 batches of 64.
    ramp: over how many real images p would rise from 0 to 1.
    """

    policy: tuple[Part, ...] = field(default=("blit", "geometry", "color"), validator=min_len(1))
    p: float = field(default=0.0, validator=[ge(0), le(1)])
    adaptive: bool = True
    target: float = field(default=0.6, validator=[gt(-1), le(1)])
    interval: int = field(default=256, validator=[ge(1), le(10**6)])
    ramp: int = field(default=500_000, validator=[ge(1), le(10**12)])
    _state: dict[str, Tensor] = field(init=False, eq=False, repr=False, default=Factory(_initial, takes_self=True))

    def __attrs_post_init__(self) -> None:
        if self.adaptive and isinstance(self.p, Tensor):
            raise ValueError("p follows the logits; with adaptive = false a schedule may move it")

    def augment(self, images: Tensor) -> Tensor:
        p = self._on(images.device)["p"] if self.adaptive else self.p
        places = [made(images, p) for part, made in (("blit", _blit), ("geometry", _geometry)) if part in self.policy]
        if places:
            images = _resampled(images, _product(*places))
        return _coloured(images, p) if "color" in self.policy else images

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
        """The state, where the images are: from the first step on it stays the same tensors."""
        for name, tensor in self._state.items():
            if tensor.device != device:
                self._state[name] = tensor.to(device)
        return self._state


def _drawn(p: float | Tensor, value: Tensor, neutral: float) -> Tensor:
    """For each image, (N, …), what was drawn with probability p, else what changes nothing."""
    chosen = torch.rand(len(value), *[1] * (value.ndim - 1), device=value.device) < p
    return torch.where(chosen, value, neutral)


# ---------------------------------------------------------------------------------------------------------------------
# Changes of place: matrices (N, 3, 3) from where a pixel will be to where it comes from, from the image's middle.
# Products are taken by hand: a place must not be rounded to the ten bits of TF32.
# ---------------------------------------------------------------------------------------------------------------------


def _blit(images: Tensor, p: float | Tensor) -> Tensor:
    coin, quarters = (torch.randint(0, high, (len(images),), device=images.device) for high in (2, 4))
    mirrored = 1 - 2 * _drawn(p, coin, 0).to(images.dtype)
    angle = _drawn(p, quarters, 0).to(images.dtype) * (math.pi / 2)
    shift = _drawn(p, _even(images, 2) * SHIFT * _sides(images), 0).round()
    return _product(_scaling(mirrored, torch.ones_like(mirrored)), _turning(angle).round(), _moving(shift))


def _geometry(images: Tensor, p: float | Tensor) -> Tensor:
    # Two chances to be turned, before and after it is stretched, are together p.
    turned = 1 - (1 - p) ** 0.5
    zoom, stretch = (_drawn(p, (_normal(images) * ZOOM).exp2(), 1) for _ in range(2))
    before, after = (_drawn(turned, _even(images) * math.pi, 0) for _ in range(2))
    shift = _drawn(p, _normal(images, 2) * MOVE * _sides(images), 0)
    return _product(
        _scaling(1 / zoom, 1 / zoom), _turning(before), _scaling(1 / stretch, stretch), _turning(after), _moving(shift)
    )


def _even(images: Tensor, *shape: int) -> Tensor:
    """Numbers between -1 and 1, (N, …)."""
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


def _turning(angle: Tensor) -> Tensor:
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix((cos, sin, zero), (-sin, cos, zero))


def _moving(shift: Tensor) -> Tensor:
    one, zero = torch.ones_like(shift[:, 0]), torch.zeros_like(shift[:, 0])
    return _matrix((one, zero, -shift[:, 0]), (zero, one, -shift[:, 1]))


def _product(first: Tensor, *others: Tensor) -> Tensor:
    for other in others:
        first = (first[:, :, :, None] * other[:, None]).sum(2)
    return first


def _resampled(images: Tensor, place: Tensor) -> Tensor:
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None] - (height - 1) / 2
    rows = place[:, :2, :, None, None]
    comes_from = rows[:, :, 0] * x + rows[:, :, 1] * y + rows[:, :, 2]
    comes_from = (comes_from * 2).movedim(1, 3) / _sides(images)
    made = grid_sample(images, comes_from, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = (place != torch.eye(3, device=images.device, dtype=images.dtype)).any(2).any(1)
    return torch.where(moved[:, None, None, None], made, images)


# ---------------------------------------------------------------------------------------------------------------------
# Changes of colour: a matrix (N, C, C) of which all factors share the grey axis, and so may come in any order.
# ---------------------------------------------------------------------------------------------------------------------


def _coloured(images: Tensor, p: float | Tensor) -> Tensor:
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ComponentError(f'ada: "color" needs images of 1 or 3 channels, got {channels}; leave it out of policy')
    each = torch.eye(channels, device=images.device, dtype=images.dtype)
    grey = torch.full_like(each, 1 / channels)  # the projection onto the grey axis
    brightness = _drawn(p, _normal(images, 1, 1) * BRIGHTNESS, 0)
    matrix = _drawn(p, (_normal(images, 1, 1) * CONTRAST).exp2(), 1) * each
    inverted = _drawn(p, torch.randint(0, 2, (len(images), 1, 1), device=images.device), 0)
    matrix = _product(matrix, each - 2 * inverted * grey)
    if channels == 3:
        angle = _drawn(p, _even(images, 1, 1) * math.pi, 0)
        across = (each.roll(1, 0) - each.roll(1, 1)) / math.sqrt(3)
        hue = angle.cos() * each + (1 - angle.cos()) * grey + angle.sin() * across
        saturation = _drawn(p, (_normal(images, 1, 1) * SATURATION).exp2(), 1)
        matrix = _product(matrix, hue, each + (saturation - 1) * (each - grey))
    return (matrix @ (images.flatten(2) + brightness)).view_as(images)


@hookimpl
def register_augmentations(register: Register[Augmentation]) -> None:
    register("ada", Ada)
