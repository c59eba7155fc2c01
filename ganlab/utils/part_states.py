"""The state of losses and penalties while a batch passes in parts: after the update it has moved once, not per part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ganlab.utils.state_tree import tensors_with_paths


@define
class PartStates:
    """The states of components of the step over the parts of one update: each part begins with the state before it.

    At the end the state has moved by the mean of what the parts would have moved it by. For an average, or a sum of
    means over images, that is what one part with all images would have done.
    """

    components: Sequence[Any]
    before: dict[str, Tensor] = field(init=False)
    moved: dict[str, Tensor] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.before = {path: tensor.clone() for path, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        # Asked for again each time: a component may move its state to the images' device when it is first called.
        states = [part.state_dict() for part in self.components if hasattr(part, "state_dict")]
        # A component may be of two players, or hold another. Its state counts once, also where `state_dict` returns
        # other objects of the same memory each time, as that of a module does.
        paths = {_place_of(tensor): (path, tensor) for path, tensor in tensors_with_paths(states, "")}
        return dict(paths.values())

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the update: notes by how much the states move in the body, and takes that back."""
        yield
        with torch.no_grad():
            for path, tensor in self._tensors().items():
                if path in self.before:  # not a state that begins with the first call
                    before = self.before[path] = self.before[path].to(tensor.device)
                    wide = torch.float32 if tensor.device.type == "mps" else torch.float64  # which MPS has not
                    moved = tensor.to(wide) - before.to(wide)  # torch does not subtract bools
                    self.moved[path] = self.moved[path] + moved if path in self.moved else moved
                    tensor.copy_(before)

    def finish(self, parts: int) -> None:
        """Ends an update in parts: moves the states by the mean of all parts."""
        with torch.no_grad():
            for path, tensor in self._tensors().items():
                if path in self.moved:
                    total = self.before[path] + self.moved[path] / parts
                    tensor.copy_(total if tensor.is_floating_point() else total.round())


def _place_of(tensor: Tensor) -> tuple[int, int, torch.Size]:
    """Where in memory a tensor of a component's state lies."""
    return int(tensor.untyped_storage()._cdata), int(tensor.storage_offset()), tensor.shape
