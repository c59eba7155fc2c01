"""A generator or discriminator under check, built for one shape of images, and what it is called with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganlab.protocols import all_logits, map_condition
from ganlab.testing.check_result import Fault
from ganlab.testing.fixed_inputs import Shape, data_spec, fixed_condition
from ganlab.testing.inspection import Inspection
from ganlab.testing.network_conditions import network_inputs
from ganlab.testing.tensor_checks import check_kept, float_tensors, tensor_versions
from ganlab.testing.tiny_game import GENERATES
from ganlab.testing.tiny_training import TinyTraining
from ganlab.utils.errors import ComponentError
from ganlab.utils.rng import seed_everything


class BuiltNetwork:
    """A generator or discriminator under check, built for one shape of images, with inputs for it."""

    def __init__(
        self, inspection: Inspection, tiny: TinyTraining, shape: Shape, dtype: torch.dtype = torch.float32
    ) -> None:
        self.generates = inspection.kind == GENERATES
        self.shape, self.dtype = shape, dtype
        self.condition_shape = tiny.conditions.get(shape, ())
        seed_everything(0)
        self.network: nn.Module = inspection.fresh().build(data_spec(shape, self.condition_shape))
        if not isinstance(self.network, nn.Module):
            at = inspection.line_of("build")
            raise Fault(f"build returns {type(self.network).__name__}, expected a torch.nn.Module", at)
        self.at = inspection.line_of("forward", self.network)
        latent_dim: Any = getattr(self.network, "latent_dim", None)
        if self.generates and type(latent_dim) is not int:
            at = inspection.line_of("__init__", self.network)
            raise Fault(f"{type(self.network).__name__} has no whole number latent_dim, but {latent_dim!r}", at)
        self.network.to(dtype)

    def inputs(self, count: int, seed: int = 1) -> Tensor:
        """Returns inputs of the network under check: latents or images."""
        return network_inputs(self.network if self.generates else None, self.shape, count, self.dtype, seed)

    def condition(self, count: int) -> Any:
        """Returns the condition of inputs of the network under check, in the form that it takes."""
        return fixed_condition(self.condition_shape, count, self.dtype)

    def output(self, inputs: Tensor) -> Any:
        """Returns all that the network under check returns."""
        return self.network(inputs, self.condition(len(inputs)))

    def output_keeping_inputs(self, inputs: Tensor) -> Any:
        """Returns all that the network under check returns; raises Fault where it changes what it is given in place."""
        condition = self.condition(len(inputs))
        given = {"its latents" if self.generates else "its images": inputs, "its condition": condition}
        before = tensor_versions(given)
        output = self.network(inputs, condition)
        check_kept(given, before, self.at)
        return output

    def in_another_order(self, inputs: Tensor) -> Any:
        """Returns the images or logits of the network under check for a batch in reverse order, in the first order."""
        order = torch.arange(len(inputs)).flip(0)
        condition = map_condition(lambda part: part[order], self.condition(len(inputs)))
        return self.main_result(self.network(inputs[order], condition))[order.argsort()]

    def results(self, inputs: Tensor) -> list[Tensor]:
        """Returns every tensor of floats in the network's output: images or logits, and what a penalty may use."""
        return float_tensors(self.output(inputs))

    def __call__(self, inputs: Tensor) -> Any:
        return self.main_result(self.output(inputs))

    def main_result(self, output: Any) -> Any:
        """Returns the images in an output of the network, or the logits, those of several tensors in one."""
        if self.generates:
            return output
        # In the precision that it has: the core takes float32.
        try:
            parts = all_logits(output)
        except ComponentError:  # the check of shapes says what it is
            return getattr(output, "logits", output)
        return parts[0] if len(parts) == 1 else torch.cat([part.reshape(len(part), -1) for part in parts], 1)
