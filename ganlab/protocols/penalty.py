"""The protocol of a penalty, and `Step`: what a penalty is given of one update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

from ganlab.protocols.batch import Batch
from ganlab.protocols.condition import map_condition
from ganlab.protocols.logits import logits_per_image

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ganlab.protocols.condition import Condition


@frozen(init=False)
class Step:
    """A penalty's protocol, what it is given: one update, or one part of its batch (`train.accumulate`).

    Tensors are on the run's device; images are (N, C, H, W) in [-1, 1], other data as in `Batch`.

    `player` is the network that is updated. `networks` are all networks of the game, by name; each is also an attribute
    of its name, such as `step.generator`. Where the player is a discriminator, `fake` has no gradient. Otherwise all
    networks that are not updated are frozen, and `real_logits` is None unless the loss uses real logits.
    `real_logits` and `fake_logits` are what the discriminator returned, and `latents` what the fake images are made
    from, or None. `streams` are the batches of the game's other data sets.
    `images_seen` is a 0-dim int64 tensor that the loop fills, not a Python number, so that a step can be captured.
    """

    player: str
    networks: Mapping[str, nn.Module]
    real: Tensor
    fake: Tensor
    real_logits: Any
    fake_logits: Any
    condition: Condition
    images_seen: Tensor
    latents: Tensor | None = None
    judged_by: str = ""
    generated_by: str = ""
    streams: Mapping[str, Batch] = field(factory=dict)

    def __init__(
        self,
        player: str,
        networks: Mapping[str, nn.Module] | None = None,
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Any,
        fake_logits: Any,
        condition: Condition,
        images_seen: Tensor,
        latents: Tensor | None = None,
        judged_by: str = "",
        generated_by: str = "",
        streams: Mapping[str, Batch] | None = None,
        **named: nn.Module,
    ) -> None:
        """A penalty's protocol: makes a step, for tests; networks may also be given as keywords of their names.

        Unless `generated_by` and `judged_by` say otherwise, the first network generates and the last one judges.
        """
        every: dict[str, Any] = {**(networks or {}), **named}
        names = list(every) or [""]
        self.__attrs_init__(
            player,
            every,
            real,
            fake,
            real_logits,
            fake_logits,
            condition,
            images_seen,
            latents,
            judged_by or names[-1],
            generated_by or names[0],
            streams or {},
        )

    def __getattr__(self, name: str) -> Any:
        if name != "networks" and name in self.networks:
            return self.networks[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def trained(self) -> nn.Module:
        """A penalty's protocol: the network that is updated."""
        return self.networks[self.player]

    def judge(self, images: Tensor) -> Tensor:
        """A penalty's protocol: returns logits (N,) of other images (N, C, H, W), with the conditions of the batch.

        The images are not augmented. All is computed in float32 even under bfloat16, whose second derivatives are
        noise.
        """
        import torch

        with torch.autocast(images.device.type, enabled=False):
            output = self.networks[self.judged_by](images, self.condition)
        return logits_per_image(output)

    def generate(self, z: Tensor) -> Tensor:
        """A penalty's protocol: images (N, C, H, W) of other latents (N, latent_dim), with the batch's conditions.

        N is at most the batch size: the first N conditions are used. As in `judge`, all is computed in float32. This is
        an additional pass in training mode: it updates batch norm's running statistics, and dropout draws for it.
        """
        import torch

        condition = map_condition(lambda part: part[: len(z)], self.condition)
        with torch.autocast(z.device.type, enabled=False):
            images: Tensor = self.networks[self.generated_by](z, condition)
        return images

    def mean_of_all(self, value: Tensor) -> Tensor:
        """A penalty's protocol: averages a tensor over all processes, detached, for state that must be equal in all."""
        from ganlab.utils import distributed

        return distributed.all_reduce_mean(value.detach().clone())

    def gradient_at(self, images: Tensor) -> Tensor:
        """A penalty's protocol: the gradient (N, C, H, W) of each image's logit by the image; it is differentiable.

        With batch norm a logit depends on other images too; as is usual, this is the gradient of the sum of logits.
        """
        import torch

        at = images.detach().requires_grad_()
        # Autocast would apply to the backward pass too.
        with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(self.judge(at).sum(), at, create_graph=True)
        return gradient


@runtime_checkable
class Penalty(Protocol):
    """A penalty's protocol: a scalar that is added to one player's loss, in the same backward pass.

    `player` is the name of a network that a move trains, such as "generator" or "discriminator", or of a table whose
    networks it is for. `every` is the interval in updates of that player (lazy regularisation,
    Karras et al. 2020, arXiv:1912.04958): the penalty is added in every k-th update, multiplied by k, so that its
    weight keeps its meaning.
    """

    @property
    def player(self) -> str: ...

    @property
    def every(self) -> int: ...

    def penalty(self, step: Step, /) -> Tensor: ...
