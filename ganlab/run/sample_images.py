"""`ganlab sample`: writes generated images of a run as a grid, an array or a folder of files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from ganlab import __version__
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.evaluation.between import has_normal_latents, latents_between
from ganlab.evaluation.game_samplers import GameSampler
from ganlab.evaluation.latents import check_truncation
from ganlab.evaluation.network_sampler import draw_latents
from ganlab.evaluation.sampling import BATCH, generate_images, sample_inputs
from ganlab.protocols import map_condition
from ganlab.protocols.condition import Condition
from ganlab.run.latents_file import GivenLatents, check_latents
from ganlab.run.load_run import Run
from ganlab.run.sample_arrays import write_csv, write_npz
from ganlab.run.sample_files import SampleFolder, condition_record, file_names_of_classes
from ganlab.run.sampling_changes import sampling_changes
from ganlab.utils.errors import Interrupted, UserError, counted, quote
from ganlab.utils.files import check_parents
from ganlab.utils.hashing import tensors_sha256
from ganlab.utils.rng import derived_seed
from ganlab.utils.signals import signals_as_keyboard_interrupt
from ganlab.viz.data_picture import picture_shape, save_picture
from ganlab.viz.image_grid import POINT, check_png, grid_size
from ganlab.viz.progress import progress_bar

WALK = 8
"""The number of images in a row of `ganlab sample --interpolate`."""

FILES = (".png", ".npz", ".csv")
"""The suffixes of files of samples; a folder has none."""

MOST_POINTS = 1_000_000
"""The most points of a scatter plot of samples."""


@frozen
class SampleRequest:
    """What `ganlab sample` is to draw from a run: `count` images, of class `label` where one is given.

    `interpolate` asks for latent walks. `truncation` is that of the latents. `by_class` puts the files of a folder into
    a folder for each class. `latents` are given instead of drawn; there are `count` of them.
    """

    count: int
    seed: int
    interpolate: bool = False
    label: int | str | None = None
    truncation: float | None = None
    by_class: bool = False
    latents: GivenLatents | None = None


def write_samples(run: Run, request: SampleRequest, out: Path) -> str:
    """Writes a run's sample images to `out`, for `ganlab sample`; returns how many and which, in words.

    `out` is a grid (.png), an array (.npz) with its conditions, rows of a table (.csv), or a folder. Where there are
    classes, a grid has a row for each, with its share of the count. Raises Interrupted where the user, SIGINT
    or SIGTERM ends it. Only for the main thread.
    """
    check_truncation(request.truncation)
    run.check_samples(request.truncation)
    if request.latents is not None and (request.interpolate or request.truncation is not None):
        raise UserError("--latents: goes without --interpolate and --truncation; --walk leads from each to the next")
    if request.interpolate:
        check_latents(run, "there is nothing to interpolate between")
    _check_out(run, request, out)
    try:
        with signals_as_keyboard_interrupt():
            return _write_images(run, request, out)
    except KeyboardInterrupt:
        count = counted(request.count, run.sampled.noun)
        is_file = out.suffix in FILES
        said = "nothing is written" if is_file else f"not all of {count} are written"
        raise Interrupted(f"{out}: {said}; the same command {'starts again' if is_file else 'goes on'}") from None


def _write_images(run: Run, request: SampleRequest, out: Path) -> str:
    """Writes sample images, for `write_samples`."""
    label = None if request.label is None else run.conditions.label_of(request.label)
    conditions = run.conditions if label is None else run.conditions.of_class(label)
    of = "" if label is None else f" of class {label}{_name(run.conditions, label)}"
    if out.suffix == ".png":
        return _write_grid(run, request, conditions, label, out) + of
    device = run.device
    count, seed, truncation, noun = request.count, request.seed, request.truncation, run.sampled.noun
    if request.latents is not None:
        inputs = _given_inputs(run, request, label)
    elif request.interpolate:
        inputs = walk_inputs(run.sampler, count, seed, conditions, truncation)
    else:
        inputs = sample_inputs(run.sampler, count, seed, conditions, truncation=truncation)
    generate = partial(_generate, run.sampler, device)
    with progress_bar() as progress_of:
        if out.suffix == ".npz":
            stored = run.conditions.as_stored
            write_npz(out, count, inputs, generate, stored, run.conditions.names, progress_of(str(out)))
            return f"{counted(count, noun)}{of}"
        if out.suffix == ".csv":
            write_csv(out, count, inputs, generate, run.conditions.as_stored, progress_of(str(out)))
            return f"{counted(count, noun)}{of}"
        classes = file_names_of_classes(len(run.conditions.counts), run.conditions.names)
        folder = SampleFolder(out, _about(run, request, label, device), count, classes, request.by_class)
        there = folder.write(inputs, generate, progress_of(str(out)))
        return f"{counted(count, noun)}{of}" + (
            f", {there:,} of which {'was' if there == 1 else 'were'} there," if there else ""
        )


def _check_out(run: Run, request: SampleRequest, out: Path) -> None:
    """Refuses a place that sample images cannot be written to."""
    data = run.sampled
    check_parents("--out", out)
    if out.suffix == ".csv" and len(data.shape) > 1:
        raise UserError(
            f"--out {out}: a .csv file holds rows of a table, and the run samples {data.in_words}; use FILE.npz"
        )
    if out.suffix == "" and out.is_file():
        raise UserError(f"--out {out}: is a file; expected FILE.png, FILE.npz or a folder")
    if out.suffix in FILES:
        if out.is_dir():
            raise UserError(f"--out {out}: is a folder; expected FILE.png, FILE.npz or a folder without a suffix")
        if request.by_class:
            raise UserError(f"--by-class: makes a folder for each class; {out} is a file")
        return
    if out.suffix and not out.is_dir():
        raise UserError(f"--out {out}: expected FILE.png, FILE.npz or a folder without a suffix")
    if not data.is_image:
        also = " or FILE.csv" if len(data.shape) == 1 else ""
        raise UserError(f"--out {out}: a folder holds images, and the run samples {data.in_words}; use FILE.npz{also}")
    check_png(out, data, "FILE.npz")
    if request.by_class and not run.conditions.counts:
        raise UserError("--by-class: the networks of this run know no classes")


def _name(conditions: ConditionSampler, label: int) -> str:
    """The class's name after its number, where the samples' classes have names."""
    return f" ({quote(conditions.names[label])})" if label < len(conditions.names) else ""


def _generate(network: torch.nn.Module, device: torch.device, z: Tensor, condition: Condition) -> Tensor:
    """Makes sample images of one batch of latents."""
    (images,) = generate_images(network, z, device, condition)
    return images.cpu()


def _about(run: Run, request: SampleRequest, label: int | None, device: torch.device) -> dict[str, object]:
    """All that sample images depend on, by which a folder of them is known; text and numbers only."""
    return {
        "run": run.info["name"],
        "step": run.step,
        "weights": run.weights,
        "weights_sha256": tensors_sha256(run.sampler.networks.state_dict()),
        "count": request.count,
        "seed": request.seed,
        "label": label,
        "truncation": request.truncation,
        "interpolate": request.interpolate,
        "by_class": request.by_class,
        **({"latents_sha256": tensors_sha256({"": request.latents.z})} if request.latents else {}),
        **({"sampler": run.sampler_name} if run.sampler_name else {}),
        **({"options": run.sampler.options} if run.sampler.options else {}),
        "classes": list(run.conditions.names),
        "conditions_crc32": condition_record(run.conditions.known),
        "changes": sampling_changes(run),
        "device": device.type,
        "ganlab": __version__,
        "torch": torch.__version__,
    }


def _given_inputs(run: Run, request: SampleRequest, label: int | None) -> Iterator[tuple[Tensor, Condition]]:
    """Inputs of samples of given latents, in batches, with their conditions."""
    given = request.latents
    assert given is not None
    condition = given.conditions_for(run, label, request.seed)
    for rows in torch.arange(len(given)).split(BATCH):
        yield given.z[rows], map_condition(lambda part, rows=rows: part[rows], condition)


def _write_grid(run: Run, request: SampleRequest, conditions: ConditionSampler, label: int | None, out: Path) -> str:
    """Writes sample images as one picture; returns how many they are, in words."""
    count, classes, noun = request.count, len(run.conditions.counts), run.sampled.noun
    data = run.sampled
    has_points = len(data.shape) == 1 or data.shape == POINT
    is_drawn = not request.interpolate and request.latents is None
    labels = run.conditions.rows(count) if is_drawn and label is None else None
    drawn = GameSampler(run.sampler, conditions, run.condition_data, data.range)
    parts = drawn.parts if is_drawn else 1
    columns = WALK if request.interpolate else None if labels is None else labels.shape[1]
    most = MOST_POINTS if has_points else Image.MAX_IMAGE_PIXELS or 2**31
    pixels = count
    if not has_points:
        channels, height, width = picture_shape(data.shape)
        pixels = math.prod(grid_size(count, channels, height, width * parts, columns))
    if pixels > most:
        raise UserError(
            f"--count {count}: too many for one picture, which would be too large to open; use a folder or FILE.npz"
        )
    if request.latents is not None:
        device = run.device
        images = torch.cat([_generate(run.sampler, device, *part) for part in _given_inputs(run, request, label)])
    elif request.interpolate:
        images, _ = latent_walk(run, count, request.seed, label, request.truncation)
    elif labels is not None or parts > 1:
        images, columns = drawn.grid(count, request.seed, run.device, request.truncation)
    else:
        images = run.sample(count, request.seed, label, request.truncation)
    save_picture(images, out, columns, data.range)
    if labels is None:
        return counted(len(images), noun)
    rows, columns = labels.shape
    if rows == 1:
        label = int(labels[0, 0])
        return f"{counted(len(images), noun)} of class {label}{_name(run.conditions, label)}"
    of = f"{rows} classes" if rows == classes else f"the first {rows} of {classes} classes"
    asked = "" if len(images) == count else f"; {count:,} cannot be shared equally"
    return f"{counted(len(images), noun)} ({columns:,} of each of {of}{asked})"


def walk_inputs(
    network: torch.nn.Module, count: int, seed: int, conditions: ConditionSampler, truncation: float | None = None
) -> Iterator[tuple[Tensor, Condition]]:
    """Inputs of samples on latent walks, in batches: latents (n, latent_dim), and conditions, one for each row."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "walk"))
    drawing = torch.Generator().manual_seed(derived_seed(seed, "walk", "condition"))
    spherical = has_normal_latents(network)
    rows = BATCH // WALK
    along = torch.linspace(0, 1, WALK).repeat(rows)
    for start in range(0, count, BATCH):
        # As in `sample_inputs`, whole batches are drawn, so that a longer walk begins with the shorter.
        ends = draw_latents(network, 2 * rows, generator, truncation)
        first, second = (part.repeat_interleave(WALK, 0) for part in (ends[0::2], ends[1::2]))
        z = latents_between(first, second, along, spherical)
        condition = conditions.drawn(rows, drawing)
        rest = count - start
        along_row = map_condition(lambda part, rest=rest: part.repeat_interleave(WALK, 0)[:rest], condition)
        yield z[:rest], along_row


def latent_walk(
    run: Run, count: int, seed: int, label: int | str | None = None, truncation: float | None = None
) -> tuple[Tensor, Any]:
    """Sample images on a latent walk: interpolation between pairs, 8 in a row; between normal latents it is spherical.

    A row has one condition. `truncation` cuts off the latents at the ends of each row.
    """
    check_truncation(truncation)
    run.check_samples(truncation)
    device = run.device
    conditions = run.conditions if label is None else run.conditions.of_class(label)
    batches = list(walk_inputs(run.sampler, count, seed, conditions, truncation))
    images = torch.cat([_generate(run.sampler, device, z, condition) for z, condition in batches])
    first, *others = (condition for _, condition in batches)
    return images, map_condition(lambda *parts: torch.cat(parts), first, *others)
