"""Translation of a user's images through a trained run (`Run.translate`): in any direction, of any size that fits.

Decisions:
- A direction is a sampler of the game. `to="a"` is the one that is called `a`, or whose name ends in `to_a`. The main
  sampler has no name: it is what the others' `b_to_a` calls `b`, and the direction where none is asked for.
- What is translated is taken as it is: what made the conditions of the data set, such as a degradation, is not applied.
- Sizes other than those of the training pass, where the networks take them. The output then has the proportions that it
  had in training, such as four times the input's size; networks that make anything else are refused.
- Grey becomes colour and colour of equal channels grey, which loses nothing. Other numbers of channels are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.game_tables import game_fields
from ganlab.config.schema import Experiment
from ganlab.data.image_values import ValueForm, form_of
from ganlab.data.pixels import as_input, type_name
from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.evaluation.sampler_options import sampler_options
from ganlab.evaluation.sampling import BATCH, generate_images
from ganlab.plugin.kinds import NETWORK_KINDS
from ganlab.plugin.loader import Plugins
from ganlab.protocols import ImageSpec, Rules, Sampler
from ganlab.run.missing_components import missing_components
from ganlab.utils.errors import ComponentError, OutOfMemory, UserError, did_you_mean, one_line, quote, whole_number
from ganlab.utils.memory import is_out_of_memory
from ganlab.utils.rng import derived_seed


class LoadedRun(Protocol):
    """What a translation needs of a run that `ganlab.load_run` read."""

    @property
    def path(self) -> Path: ...
    @property
    def info(self) -> Mapping[str, Any]: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def networks(self) -> Mapping[str, nn.Module]: ...
    @property
    def sampler(self) -> NetworkSampler: ...
    @property
    def sampler_name(self) -> str: ...
    @property
    def experiment(self) -> Experiment: ...
    @property
    def plugins(self) -> Plugins: ...
    @property
    def device(self) -> torch.device: ...


def sampler_to(run: LoadedRun, to: str) -> str:
    """The name of the sampler of a run's game that translates to `to`, the main one's for ""; UserError for no such."""
    names = list(run.rules.samplers)
    found = [name for name in names if to and (name == to or f"_{name}".endswith(f"_to_{to}"))]
    if len(found) > 1:
        raise UserError(f"--to {quote(to)}: several samplers end so: {', '.join(found)}; write one whole name")
    if found or not to:
        return "".join(found)
    # What the main sampler makes is what others translate back.
    starts = {name.partition("_to_")[0] for name in names if "_to_" in name and _is_back(run.rules.samplers[name])}
    if to in starts:
        return ""
    known = sorted({name.rpartition("_to_")[2].removeprefix("to_") for name in names} | starts)
    near = did_you_mean(to, known) or (f"; it has: {', '.join(known)}" if known else "; it has one, without a name")
    raise UserError(f"--to {quote(to)}: the game of this run has no such direction{near}")


def _is_back(sampler: Sampler) -> bool:
    """Whether a sampler translates the images of `[dataset]`, which the main one makes."""
    return sampler.source == "dataset"


@frozen(eq=False)
class Translator:
    """One direction of a trained run's translation: `given` is what it was trained to take, and `made` to make.

    `form` is how the data set of what is given reads image files.
    """

    sampler: NetworkSampler
    given: ImageSpec
    made: ImageSpec
    device: torch.device
    seed: int = 0
    form: ValueForm = ValueForm()

    def at_once(self, shape: tuple[int, ...]) -> int:
        """How many inputs of a shape (C, H, W) are translated at a time: fewer of larger ones, at least one."""
        wanted, size = self.given.size, torch.Size(shape).numel()
        return max(1, min(BATCH, BATCH * wanted // max(1, size)))

    def latents(self, count: int) -> Tensor:
        """Latents (count, …) of a translation, for networks that have them; the first are the same for every count."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "translate"))
        parts = [draw_latents(self.sampler, BATCH, generator) for _ in range(0, max(1, count), BATCH)]
        return torch.cat(parts)[:count]

    def __call__(self, images: Tensor, z: Tensor, what: str = "images") -> Tensor:
        """Translates images (n, C, H, W) of the data's type, by latents (n, …): of the data's type, on the CPU.

        `what` they are is for messages. Raises UserError for a shape or type that does not fit, and `SamplesNotFinite`.
        """
        images = self.fitted(images, what)
        shape = tuple(images.shape[1:])
        parts: list[Tensor] = []
        for rows in torch.arange(len(images)).split(self.at_once(shape)):
            try:
                parts += generate_images(self.sampler, z[rows], self.device, as_input(images[rows]))
            except (RuntimeError, ValueError, MemoryError, ComponentError) as error:
                if is_out_of_memory(error):
                    raise OutOfMemory(f"{what}: out of memory at {_size(shape)}; translate parts of it") from None
                if shape == self.given.shape:
                    raise
                raise UserError(
                    f"{what}: {_size(shape)}: the networks of this run do not take this size, and were trained with "
                    f"{_size(self.given.shape)} ({one_line(error, 160)})"
                ) from None
            made, wanted = tuple(parts[-1].shape[1:]), self.made_of(shape)
            if made != wanted:
                raise UserError(
                    f"{what}: {_size(shape)}: the networks of this run make {_size(made)} of it; wanted "
                    f"{_size(wanted)}, as in training with {_size(self.given.shape)}"
                )
            parts[-1] = parts[-1].cpu()
        return torch.cat(parts)

    def made_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a translation has of an input of this shape."""
        made, given = self.made.shape, self.given.shape
        if len(made) != len(given):
            return made
        return (
            made[0],
            *(round(side * new / old) for side, new, old in zip(shape[1:], made[1:], given[1:], strict=True)),
        )

    def fitted(self, images: Tensor, what: str) -> Tensor:
        """Images as a translation takes them: with its number of channels. UserError for what does not fit."""
        given = self.given
        if not len(images):
            raise UserError(f"{what}: holds no images to translate")
        if type_name(images.dtype) != given.dtype or images.ndim != len(given.shape) + 1 or 0 in images.shape:
            raise UserError(
                f"{what}: are {type_name(images.dtype)} {tuple(images.shape)}; the run translates {given.in_words}"
            )
        got, wanted = images.shape[1], given.shape[0]
        if got == wanted:
            return images
        if given.is_image and (got, wanted) == (1, 3):
            return images.expand(-1, 3, -1, -1)
        if given.is_image and (got, wanted) == (3, 1):
            if bool((images == images[:, :1]).all()):
                return images[:, :1]
            raise UserError(f"{what}: is in colour, and the run translates grey images; convert it to grey")
        raise UserError(f"{what}: has {got} channels, and the run translates {self.given.noun}s with {wanted}")


def translator(
    run: LoadedRun, to: str = "", options: Mapping[str, Any] | None = None, seed: int | None = None
) -> Translator:
    """The translation of a trained run in one direction; UserError where it translates nothing, or not there.

    A seed is for networks that have latents, and refused for others.
    """
    if why := run.rules.why_no_samples:
        raise UserError(f"{run.path}: this run translates nothing: {why}")
    seed = None if seed is None else whole_number("--seed", seed, 0)
    name = sampler_to(run, to) if to else run.sampler_name
    sampler = run.rules.all_samplers[name]
    given = _given(run, sampler, name)
    if missing := [network for network in sampler.networks if network not in run.networks]:
        lines = missing_components(run.info, NETWORK_KINDS)
        raise UserError(f"--to {to}: the network {missing[0]!r} is missing", *lines)
    made = ImageSpec.recorded(run.info["streams"][sampler.makes] if sampler.makes else run.info["images"])
    values = (
        run.sampler.options if name == run.sampler_name and not options else sampler_options(sampler, options or {})
    )
    network = NetworkSampler(sampler, run.networks, made.dtype, values)
    if seed is not None and not draw_latents(network, 1, torch.Generator().manual_seed(0))[0].numel():
        raise UserError(f"--seed {seed}: has no effect, as this translation has no latents")
    return Translator(network, given, made, run.device, seed or 0, _form(run, sampler))


def translate(
    run: LoadedRun, images: Tensor, to: str = "", options: Mapping[str, Any] | None = None, seed: int | None = None
) -> Tensor:
    """Translates images through a trained run, for `Run.translate`."""
    if not isinstance(images, Tensor):
        raise UserError(f"translate: expected images as a tensor (N, C, H, W), got {type(images).__name__}")
    way = translator(run, to, options, seed)
    return way(images.cpu(), way.latents(len(images)))


def _given(run: LoadedRun, sampler: Sampler, name: str) -> ImageSpec:
    """What one of a run's samplers takes for a translation; UserError where that is no image, and nothing like one."""
    images = ImageSpec.recorded(run.info["images"])
    if sampler.source:
        return images if sampler.source == "dataset" else ImageSpec.recorded(run.info["streams"][sampler.source])
    known = run.info.get("samplers", {}).get(name) if name else run.info.get("condition")
    if len(images.condition_shape or ()) > 1 and isinstance(known, str):
        return ImageSpec.of(images.condition_shape or (), images.condition_dtype)
    takes = "several conditions by name" if images.conditions else "no images"
    of = f"the sampler {name!r} of this run" if name else "this run"
    game = run.plugins.registry.component_of("game", run.experiment.game).name
    others = [key for key, other in run.rules.all_samplers.items() if key and other.source]
    advice = f"; set --to {' or '.join(others)}" if others else ""
    raise UserError(f"{run.path}: {of} translates nothing: its game, {game!r}, is given {takes}{advice}")


def _form(run: LoadedRun, sampler: Sampler) -> ValueForm:
    """How the data set of what is given to a translation reads image files."""
    game = run.experiment.game
    tables = {f.alias: getattr(game, f.name) for f in game_fields(game)}
    return form_of(tables.get(sampler.source, run.experiment.dataset))


def _size(shape: tuple[int, ...]) -> str:
    """A shape in words: the width and height of images in pixels, else all numbers."""
    if len(shape) == 3:
        return f"{shape[2]}x{shape[1]} pixels"
    return f"({', '.join(map(str, shape))})"
