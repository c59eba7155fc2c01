"""The state of a loss while a batch passes in parts: after the update it has moved once, not once for each part."""

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
    """The tensors in the states of losses over the parts of one update: each part begins with the state before it.

    At the end the state has moved by the mean of what the parts would have moved it by. For an average, or a sum of
    means over images, that is what one part with all images would have done.
    """

    tensors: list[Tensor]
    before: list[Tensor]
    moved: list[Tensor] = field(factory=list)

    @classmethod
    def of(cls, losses: Sequence[Any]) -> PartStates:
        """Begins an update: takes the states of these losses, which have a `state_dict`, before its first part."""
        tensors = [tensor for loss in losses for _, tensor in tensors_with_paths(loss.state_dict(), "")]
        return cls(tensors, [tensor.clone() for tensor in tensors])

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the update: notes by how much the states move in the body, and takes that back."""
        yield
        with torch.no_grad():
            moved = [tensor.double() - before for tensor, before in zip(self.tensors, self.before, strict=True)]
            self.moved = [one + other for one, other in zip(self.moved, moved, strict=True)] if self.moved else moved
            for tensor, before in zip(self.tensors, self.before, strict=True):
                tensor.copy_(before)

    def finish(self, parts: int) -> None:
        """Ends an update in parts: moves the states by the mean of all parts."""
        with torch.no_grad():
            for tensor, before, moved in zip(self.tensors, self.before, self.moved, strict=True):
                total = before + moved / parts
                tensor.copy_(total if tensor.is_floating_point() else total.round())
