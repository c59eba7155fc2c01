"""FreezeD: fine-tuning of an earlier run, the first layers of the discriminator frozen (Mo et al. 2020, 2002.10964)."""

from attrs import field, frozen
from attrs.validators import ge
from torch import nn

import ganlab


def layers_of(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that have weights, in the order in which they are listed."""
    return [layer for layer in network.modules() if any(True for _ in layer.parameters(recurse=False))]


@frozen
class Warm:
    """Any generator or discriminator, which begins with the weights of an earlier run.

    network: the network, with the options of the earlier run.
    weights: the file of its weights in a checkpoint there; without one it begins as it is.
    """

    network: ganlab.NetworkConfig = ganlab.component("generator", default="mlp")
    weights: str = ganlab.location(default="")

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        return self.network.build(images)

    def initialise(self, network: nn.Module) -> None:
        ganlab.initialise_network(self.network, network)
        if self.weights:
            ganlab.load_weights(network, self.weights)


@frozen
class FreezeD(Warm):
    """Any discriminator, which begins with the weights of an earlier run, and whose first layers keep them.

    network: the network, with the options of the earlier run.
    weights: the file of its weights in a checkpoint there; without one it begins as it is.
    layers: how many layers are frozen, of those with weights; at least one is trained.
    """

    network: ganlab.NetworkConfig = ganlab.component("discriminator", default="mlp")
    layers: int = field(default=1, validator=ge(0))

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        network = super().build(images)
        layers = layers_of(network)
        if self.layers >= len(layers):
            raise ganlab.ComponentError(f"layers: {self.layers} of {len(layers)} layers with weights would be frozen")
        for layer in layers[: self.layers]:
            layer.requires_grad_(False)
        return network


@ganlab.hookimpl
def register_generators(register: ganlab.Register[ganlab.NetworkConfig]) -> None:
    register("warm", Warm)


@ganlab.hookimpl
def register_discriminators(register: ganlab.Register[ganlab.NetworkConfig]) -> None:
    register("freeze_d", FreezeD)
