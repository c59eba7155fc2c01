"""Walks through a run's latents (`ganlab sample --walk`, `Run.walk`): a film from sample to sample, of exact length.

Decisions:
- A walk passes stops at equal distances in time. Its first frame is the first stop. A closed walk, which loops, goes on
  from the last stop to the first, and its last frame is the one before that.
- Stops are the samples that `ganlab sample` draws: the first ones of one seed, the first of each of several seeds, or
  images of given latents. A list of classes goes along with them, the shorter list beginning again.
- Attributes change along the way, and labels too (`evaluation/between.py`); images as conditions stay those of the
  first stop, as do several conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from ganlab.data.condition_sampler import ConditionSampler
from ganlab.evaluation.between import ALONG, FIRST, SECOND, BlendingSampler, has_normal_latents, latents_between
from ganlab.evaluation.latents import check_truncation
from ganlab.evaluation.sampling import BATCH, check_sampling, generate_images, sample_inputs
from ganlab.protocols import map_condition
from ganlab.protocols.condition import Condition
from ganlab.run.latents_file import GivenLatents, SampledRun, check_latents
from ganlab.utils.errors import Interrupted, UserError, whole_number
from ganlab.utils.signals import signals_as_keyboard_interrupt
from ganlab.viz.film import ENDINGS, MOST_FRAMES, Film, check_film, check_length, said, write_film
from ganlab.viz.image_grid import check_png
from ganlab.viz.progress import progress_bar

STOPS = 8
"""The number of stops of a walk through the samples of one seed, where none is asked for."""

FPS = 30.0
"""Frames a second of a walk, where nothing else is asked for."""

FRAMES = 60
"""The number of frames from one stop of a walk to the next, where none is asked for."""


@frozen(eq=False)
class WalkRequest:
    """Which walk is wanted: between `count` samples of one seed, the first samples of several, classes, or latents.

    `frames` is the length of the film, `fps` frames a second, and `loop` whether it ends where it begins. `seeds` are
    None for seed 0.
    """

    frames: int | None = None
    fps: float | None = None
    loop: bool = True
    seeds: Sequence[int] | None = None
    labels: Sequence[int | str] = ()
    count: int | None = None
    truncation: float | None = None
    latents: GivenLatents | None = None


@frozen(eq=False)
class Walk:
    """A walk: its stops, latents (K, …) and their conditions as networks are given them, and its number of frames."""

    sampler: BlendingSampler
    device: torch.device
    z: Tensor
    condition: Condition
    frames: int
    loop: bool

    def images(self) -> Iterator[Tensor]:
        """Yields the walk's images in batches (n, C, H, W), of the type of the data, on the CPU."""
        spherical = has_normal_latents(self.sampler)
        stops = len(self.z)
        legs = stops if self.loop else stops - 1
        steps = self.frames if self.loop else max(1, self.frames - 1)
        for part in torch.arange(self.frames).split(BATCH):
            leg = (part * legs // steps).clamp(max=legs - 1)
            along = ((part * legs - leg * steps).double() / steps).float()
            first, second = leg, (leg + 1) % stops
            z = latents_between(self.z[first], self.z[second], along, spherical)
            for images in generate_images(self.sampler, z, self.device, self._between(first, second, along)):
                yield images.cpu()

    def _between(self, first: Tensor, second: Tensor, along: Tensor) -> Condition:
        """The conditions on a walk, at shares of the way between two stops each."""
        known = self.condition
        if isinstance(known, Tensor) and known.ndim == 2:
            return known[first].lerp(known[second], along[:, None])
        if isinstance(known, Tensor) and known.ndim == 1 and bool((known != known[0]).any()):
            return {FIRST: known[first], SECOND: known[second], ALONG: along}
        held: Condition = map_condition(lambda part: part[:1].expand(len(first), *part.shape[1:]), known)
        return held


def check_walkable(run: SampledRun) -> None:
    """Refuses a run that there is no walk through, by what can be known before its data are read; UserError."""
    run.check_samples()
    if not run.sampled.is_image and len(run.sampled.shape) != 2:
        raise UserError(f"--walk: films are of images, and the run samples {run.sampled.in_words}")
    check_latents(run, "there is nothing to walk between")


def walk_of(run: SampledRun, request: WalkRequest) -> Walk:
    """A walk through a run's latents. Raises UserError for a walk that leads nowhere or that the run has not."""
    check_truncation(request.truncation)
    check_walkable(run)
    run.check_samples(request.truncation)
    if request.seeds is not None and not request.seeds:
        raise UserError("--seed: none is given; expected at least one")
    for seed in request.seeds or ():
        check_sampling(1, seed, request.truncation)
    z, condition = _stops(run, request)
    stops = len(z)
    if stops < 2:
        raise UserError("--walk: leads from 1 stop to nowhere; expected at least 2 seeds, samples, classes or latents")
    changes = [z, *(part for part in (condition,) if isinstance(part, Tensor) and part.ndim < 3)]
    if all(bool((part == part[0]).all()) for part in changes):
        raise UserError(f"--walk: its {stops} stops are one and the same image, so it leads nowhere")
    sampler = BlendingSampler.of(run.sampler)
    if isinstance(condition, Tensor) and condition.ndim == 1 and bool((condition != condition[0]).any()):
        other = int((condition != condition[0]).nonzero()[0])
        ends = (part.to(run.device) for part in (z[:1], condition[:1], condition[other : other + 1]))
        if not sampler.blends(*ends):
            raise UserError(
                "--walk: the networks of this run use labels otherwise than by an embedding or a one-hot vector, so "
                "there is nothing between two classes; give one --label"
            )
    frames = FRAMES * (stops if request.loop else stops - 1) if request.frames is None else request.frames
    frames = whole_number("--frames", frames, 1, MOST_FRAMES)
    return Walk(sampler, run.device, z, condition, frames, request.loop)


def _stops(run: SampledRun, request: WalkRequest) -> tuple[Tensor, Condition]:
    """The stops of a walk: latents (K, …) and conditions."""
    labels, given = [run.conditions.label_of(label) for label in request.labels], request.latents
    seed, *more = request.seeds or (0,)
    conditions = run.conditions if len(labels) != 1 else run.conditions.of_class(labels[0])
    if given is not None:
        if request.count is not None or more or request.truncation is not None:
            raise UserError("--latents: goes without --count, --truncation and several --seed")
        label = labels[0] if labels else None
        given.check_seed(run, label, request.seeds)
        z, condition = given.z, given.conditions_for(run, label if len(labels) == 1 else None, seed)
    elif more:
        if request.count is not None:
            raise UserError(f"--count {request.count}: goes without several --seed; {len(more) + 1} are given")
        z, condition = _joined(_drawn(run, request, conditions, each, 1) for each in (seed, *more))
    else:
        count = (
            (1 if len(labels) > 1 else STOPS)
            if request.count is None
            else whole_number("--count", request.count, 1, MOST_FRAMES)
        )
        z, condition = _drawn(run, request, conditions, seed, count)
    if len(labels) < 2:
        return z, condition
    if not isinstance(run.conditions.known, Tensor):
        raise UserError("--label: several are for a walk of networks that are given the class and nothing else")
    stops = torch.arange(max(len(z), len(labels)))
    return z[stops % len(z)], torch.tensor(labels)[stops % len(labels)]


def _drawn(
    run: SampledRun, request: WalkRequest, conditions: ConditionSampler, seed: int, count: int
) -> tuple[Tensor, Condition]:
    """The first samples of a seed, as stops of a walk."""
    return _joined(sample_inputs(run.sampler, count, seed, conditions, truncation=request.truncation))


def _joined(parts: Iterable[tuple[Tensor, Condition]]) -> tuple[Tensor, Condition]:
    """Stops of a walk that come in parts, as one."""
    latents, conditions = zip(*parts, strict=True)
    first, *others = conditions
    return torch.cat(latents), map_condition(lambda *each: torch.cat(each), first, *others)


def write_walk(run: SampledRun, request: WalkRequest, out: Path) -> str:
    """Writes a walk as a film to a file or a folder, for `ganlab sample --walk`; returns what it is, in words.

    Raises UserError, and Interrupted where SIGINT or SIGTERM ends it; then nothing is written. For the main thread.
    """
    walk, fps = walk_of(run, request), FPS if request.fps is None else request.fps
    check_film(out, walk.frames, fps)
    if request.fps is not None and out.suffix not in ENDINGS:
        raise UserError(f"--fps {fps:g}: is of a film; a folder of PNG files has none, and {out} is to be one")
    if out.suffix not in ENDINGS:
        check_png(out, run.sampled, "FILE.mp4, FILE.webp or FILE.gif")
    try:
        with signals_as_keyboard_interrupt(), progress_bar() as progress_of:
            write_film(walk.images(), out, walk.frames, fps, run.sampled.range, progress_of(str(out)))
    except KeyboardInterrupt:
        raise Interrupted(f"{out}: nothing is written; the same command starts again") from None
    return said(out, walk.frames, fps)


def walk_film(run: SampledRun, request: WalkRequest) -> Film:
    """A walk as a film in memory, for `Run.walk`."""
    walk = walk_of(run, request)
    fps = FPS if request.fps is None else request.fps
    check_length(walk.frames, fps)
    return Film(torch.cat(list(walk.images())), fps, run.sampled.range)
