"""BEGAN: the discriminator is an autoencoder, balanced by a state of the loss (Berthelot et al. 2017, 1703.10717)."""

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Autoencoder(nn.Module):
    """A fully connected autoencoder whose logits (N,) are minus the mean absolute error of each image."""

    def __init__(self, pixels: int, code: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(pixels, width), nn.ELU(), nn.Linear(width, code)),
            *(nn.Linear(code, width), nn.ELU(), nn.Linear(width, pixels)),
        )
        self.batch_independent = True

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        flat = images.flatten(1)
        return -(self.layers(flat) - flat).abs().mean(1)


@frozen
class AutoencoderDiscriminator:
    """An autoencoder as a discriminator: images are real that it reconstructs well.

    code: size of the code.
    width: units of the hidden layers.
    """

    code: int = field(default=64, validator=ge(1))
    width: int = field(default=256, validator=ge(1))

    def build(self, images: ganlab.ImageSpec) -> nn.Module:
        return Autoencoder(images.channels * images.height * images.width, self.code, self.width)


@frozen
class BEGAN:
    """The loss of BEGAN, for logits that are minus the errors of an autoencoder.

    gamma: the ratio of the error of generated images to that of real ones which k keeps: low for quality.
    rate: the step size of k, the weight of generated images in the discriminator's loss, which begins at 0.
    """

    gamma: float = field(default=0.5, validator=gt(0))
    rate: float = field(default=0.001, validator=gt(0))
    state: dict[str, Tensor] = field(factory=lambda: {"k": torch.zeros(())}, init=False, eq=False, repr=False)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        self.state["k"] = self.state["k"].to(real.device)  # from the first step on it is the same tensor
        loss = -real.mean() + self.state["k"].clone() * fake.mean()
        self.state["k"].add_(self.rate * self.imbalance(real, fake).detach()).clamp_(0, 1)
        return loss

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def imbalance(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - self.gamma * real.mean()

    def measures(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The measure of convergence (section 3.4.1), and k."""
        return {"convergence": -real.mean() + self.imbalance(real, fake).abs(), "k": self.state["k"].to(real.device)}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.state["k"].copy_(state["k"])


@ganlab.hookimpl
def register_discriminators(register: ganlab.Register[ganlab.NetworkConfig]) -> None:
    register("autoencoder", AutoencoderDiscriminator)


@ganlab.hookimpl
def register_losses(register: ganlab.Register[ganlab.Loss]) -> None:
    register("began", BEGAN)
