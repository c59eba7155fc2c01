"""A data set plugin for tests: images, signals or rows of a table of a type, with conditions of any form."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

import ganlab

SHAPES = {"images": (1, 8, 8), "colour": (3, 8, 8), "signals": (2, 24), "table": (3,)}


def values(form: str, dtype: str, count: int, seed: int) -> Tensor:
    """Random data of a form and type: float32 from about 60 to 140, far from what pixels are."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(count, *SHAPES[form], generator=generator)
    if dtype == "float32":
        return 100 + 10 * data
    highest = {"uint8": 255, "uint16": 65535}[dtype]
    return (highest * data.sigmoid()).round().to(getattr(torch, dtype))


def conditions(kind: str, count: int, seed: int) -> Any:
    """Conditions: one kind alone, or several, joined by "+"."""
    generator = torch.Generator().manual_seed(100 + seed)
    made: dict[str, Tensor] = {
        "labels": torch.randint(0, 4, (count,), generator=generator),
        "picture": torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8),
        "deep": torch.randint(0, 65536, (count, 1, 4, 4), generator=generator).to(torch.int32).to(torch.uint16),
        "attributes": 50 + torch.randn(count, 2, generator=generator),
    }
    if not kind:
        return None
    names = kind.split("+")
    return made[kind] if len(names) == 1 else {name: made[name] for name in names}


@frozen
class Typed:
    """Random data of a form and type.

    form: "images", "colour", "signals" or "table".
    dtype: of the data.
    condition: "labels", "picture", "deep", "attributes", several of them joined by "+", or none.
    count: how many there are.
    """

    form: str = "images"
    dtype: str = "float32"
    condition: str = ""
    count: int = 64

    def build(self, places: ganlab.Places, split: str) -> ganlab.ImageDataset:
        if split not in ("train", "test"):
            raise ganlab.ComponentError(f"typed: no split {split!r}")
        seed = int(split == "test")
        data = values(self.form, self.dtype, self.count, seed)
        return ganlab.ImageDataset(data, "typed", split, conditions(self.condition, self.count, seed))


class _Conditional(nn.Module):
    """Concatenates its input with all that the condition says: one-hot labels, pixels, attributes."""

    latent_dim = 4

    def __init__(self, images: ganlab.ImageSpec, generates: bool) -> None:
        super().__init__()
        one = {"": ganlab.ConditionSpec(images.condition_shape or (), images.condition_dtype, images.classes)}
        self.specs = dict(images.conditions or one)
        given = sum(spec.classes or torch.Size(spec.shape).numel() for spec in self.specs.values())
        self.shape = images.shape if generates else ()
        inputs, outputs = (self.latent_dim, images.size) if generates else (images.size, 1)
        self.layer = nn.Linear(inputs + given, outputs)

    def forward(self, x: Tensor, condition: Any) -> Tensor:
        parts = condition if isinstance(condition, dict) else {"": condition}
        flat = [x.flatten(1)]
        for name, spec in self.specs.items():
            part = parts[name]
            if spec.classes:
                flat.append(nn.functional.one_hot(part, spec.classes).float())
            else:
                assert part.dtype == torch.float32
                assert tuple(part.shape[1:]) == spec.shape
                flat.append(part.flatten(1))
        out: Tensor = self.layer(torch.cat(flat, 1))
        return out.view(len(x), *self.shape)


@frozen
class G:
    """A generator that uses every condition."""

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        return _Conditional(images, True)


@frozen
class D:
    """A discriminator that uses every condition."""

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        return _Conditional(images, False)


@ganlab.hookimpl
def register_datasets(register: Any) -> None:
    register("typed", Typed)


@ganlab.hookimpl
def register_generators(register: Any) -> None:
    register("uses_all", G)


@ganlab.hookimpl
def register_discriminators(register: Any) -> None:
    register("uses_all", D)
