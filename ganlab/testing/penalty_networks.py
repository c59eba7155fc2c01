"""The networks that a penalty is checked with: the suite's own tiny ones, or those of the penalty's own file.

A penalty may need what only some networks have: class logits, or a method such as an encoder's. The first networks are
taken with which it does not fail: the tiny ones, with class labels and with images as the condition, then those that
the same file registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch import Tensor, nn

from ganlab.plugin.failures import CatchPluginErrors
from ganlab.protocols import Step
from ganlab.testing.fixed_inputs import IMAGE_SHAPES, ConditionShape, Shape, data_spec, fixed_condition
from ganlab.testing.network_conditions import find_condition, network_inputs
from ganlab.testing.tiny_components import ORIGIN, TinyClassifier, tiny_networks
from ganlab.testing.tiny_game import GENERATES, JUDGES
from ganlab.testing.tiny_training import CPU, TinyTraining
from ganlab.utils.errors import ComponentError
from ganlab.utils.rng import seed_everything

OWN_SHAPES: tuple[Shape, ...] = (*IMAGE_SHAPES, (3, 64, 64))
"""The shapes of images that a file's own networks are tried with, until they accept two."""


@frozen
class PenaltyNetworks:
    """The networks of the tiny game for the check of a penalty: their configurations, and for which images.

    `counts` are the sizes of batches. Networks of a file are not called with one image, which batch norm refuses.
    """

    configs: Mapping[str, Any]
    shapes: Sequence[Shape] = IMAGE_SHAPES[:2]
    counts: Sequence[int] = (1, 2, 7)
    conditions: dict[Shape, ConditionShape] = field(factory=dict)

    @property
    def largest(self) -> Shape:
        """The shape that a penalty's gradient is checked with."""
        return self.shapes[-1]

    def step(
        self,
        player: str,
        shape: Shape,
        count: int,
        dtype: torch.dtype = torch.float32,
        images_seen: int = 0,
        zeros: bool = False,
    ) -> Step:
        """Returns the `Step` that a penalty under check is called with, of one update of `player`.

        `zeros` sets the discriminator's weights to 0.
        """
        condition_shape = self.conditions.get(shape, ())
        images = data_spec(shape, condition_shape)
        condition = fixed_condition(condition_shape, count, dtype)
        seed_everything(1)
        networks: dict[str, nn.Module] = {name: of.build(images).to(dtype) for name, of in self.configs.items()}
        judge = networks[JUDGES]
        judges = player == JUDGES
        if zeros:
            with torch.no_grad():
                for weight in judge.parameters():
                    weight.zero_()
        if not judges:
            judge.requires_grad_(False)
        real = network_inputs(None, shape, count, dtype, seed=3)
        latents = network_inputs(networks[GENERATES], shape, count, dtype, seed=4)
        fake: Tensor = networks[GENERATES](latents, condition)
        fake = fake.detach() if judges else fake
        return Step(
            player=player,
            networks=networks,
            real=real,
            fake=fake,
            real_logits=judge(real, condition) if judges else None,
            fake_logits=judge(fake, condition),
            condition=condition,
            images_seen=torch.full((), images_seen, dtype=torch.int64, device=CPU),
            latents=latents,
            judged_by=JUDGES,
            generated_by=GENERATES,
        )


def is_tiny(config: Any) -> bool:
    """Whether a network that a penalty is checked with is the suite's own."""
    return config in (*tiny_networks().values(), TinyClassifier())


def choose_networks(fresh: Callable[[], Any], player: str, tiny: TinyTraining) -> PenaltyNetworks:
    """Chooses the networks that a penalty is checked with, and sets them for its tiny trainings.

    Where it fails with all of them, raises the first error that is no refusal; ComponentError where it needs something
    that none of them has.
    """
    plain = PenaltyNetworks(tiny_networks())
    classifying = PenaltyNetworks({**plain.configs, JUDGES: TinyClassifier()})
    of_images = attrs.evolve(plain, conditions={shape: shape for shape in plain.shapes})
    found: PenaltyNetworks | None = None
    errors: list[BaseException] = []
    for networks in (plain, classifying, of_images, *_own_networks(tiny)):
        step = None
        with CatchPluginErrors() as caught:
            step = networks.step(player, networks.largest, 7)  # 2 logits could be taken for a list of two
            fresh().penalty(step)
        if caught.error is None:
            found = networks
            break
        errors.append(_as_refusal(caught.error, step))
    # What a penalty refuses of unsuitable networks says nothing; the fault that it has with suitable ones does.
    if found is None:
        error = next((error for error in errors if not isinstance(error, ComponentError)), errors[0])
        raise error
    tiny.networks = dict(found.configs)
    for kind, config in found.configs.items():
        if not any(part.cls is type(config) for part in tiny.registry.of_kind(kind)):
            tiny.registry.register(kind, f"own_{kind}", type(config), ORIGIN)
    if found.conditions:
        tiny.conditions.update(found.conditions)
        tiny.shape = found.largest
    return found


def _own_networks(tiny: TinyTraining) -> Iterator[PenaltyNetworks]:
    """Yields the networks of the penalty's own file, each of a kind with each of the other kind."""
    choices = {name: [*tiny.own.get(name, ()), config] for name, config in tiny_networks().items()}
    choices[JUDGES].append(TinyClassifier())
    for chosen in list(product(*choices.values()))[:-2]:
        configs = dict(zip(choices, chosen, strict=True))
        conditions: dict[Shape, ConditionShape] = {}
        for shape in OWN_SHAPES:
            for name, config in configs.items():
                if is_tiny(config):
                    continue  # they take any
                condition = find_condition(config, shape, name == GENERATES)
                with CatchPluginErrors() as caught:
                    config.build(data_spec(shape, condition))
                if caught.error is not None:
                    conditions.pop(shape, None)
                    break
                conditions[shape] = conditions.get(shape) or condition
            if len(conditions) == 2:
                break
        if conditions:
            yield PenaltyNetworks(configs, tuple(conditions), (2, 7), conditions)


def _as_refusal(error: BaseException, step: Step | None) -> BaseException:
    """An error of a penalty that misses something in the networks, or in what they return, as a ComponentError."""
    if not isinstance(error, AttributeError) or step is None:
        return error
    needed = [
        f"{name} with" for name, network in step.networks.items() if any(error.obj is m for m in network.modules())
    ]
    if any(error.obj is output for output in (step.real_logits, step.fake_logits)):
        needed = [f"{JUDGES} whose output has"]
    if not needed:
        return error
    return ComponentError(
        f"needs a {needed[0]} {error.name!r}, and was checked without one; register it in the same file"
    )
