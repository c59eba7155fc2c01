"""`ganlab sample`: writes generated images of a run as a grid, an array or a folder of files."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlab.evaluation.latents import check_truncation, latents
from ganlab.evaluation.sampling import generate_images, sample_grid
from ganlab.run.load_run import Run
from ganlab.utils.errors import UserError
from ganlab.utils.files import write_whole
from ganlab.utils.rng import derived_seed
from ganlab.viz.image_grid import PNG_CHANNELS, encode_png, save_grid

WALK = 8
"""The number of images in a row of `ganlab sample --interpolate`."""


def write_samples(
    run: Run, count: int, seed: int, out: Path, interpolate: bool, label: int | None, truncation: float | None
) -> None:
    """Writes a run's sample images to `out`, for `ganlab sample`: `count`, of class `label` where one is given.

    `out` is a grid (.png), an array (.npz) with the class labels where there are any, or a folder. Where there are
    classes, a grid has a row for each, with its share of `count`.
    """
    if out.exists() and out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: a folder that is not empty; choose another")
    if out.suffix == "" and out.is_file():
        raise UserError(f"--out {out}: is a file; expected FILE.png, FILE.npz or a folder")
    if out.suffix not in ("", ".png", ".npz") and not out.is_dir():
        raise UserError(f"--out {out}: expected FILE.png, FILE.npz or a folder without a suffix")
    channels = run.info["images"]["channels"]
    if out.suffix not in (".png", ".npz") and channels not in PNG_CHANNELS:
        raise UserError(f"--out {out}: a PNG file cannot hold images of {channels} channels; use FILE.npz")
    columns = None
    if interpolate:
        images, condition = latent_walk(run, count, seed, label, truncation)
        columns = WALK
    elif out.suffix == ".png" and label is None:
        check_truncation(truncation)
        device = next(run.generator.parameters()).device
        images, columns = sample_grid(run.generator, count, seed, device, run.conditions, truncation)
    else:
        images, condition = run.sample_with_condition(count, seed, label, truncation)
    if out.suffix == ".png":
        save_grid(images, out, columns)
    elif out.suffix == ".npz":
        stream = io.BytesIO()
        arrays: dict[str, Any] = {"images": images.permute(0, 2, 3, 1).numpy()}
        if condition is not None and condition.ndim == 1:
            arrays["labels"] = condition.numpy()
        np.savez_compressed(stream, **arrays)
        write_whole(out, stream.getvalue())
    else:
        digits = max(5, len(str(count - 1)))
        for index, image in enumerate(images):
            write_whole(out / f"{index:0{digits}}.png", encode_png(image))


def latent_walk(
    run: Run, count: int, seed: int, label: int | None = None, truncation: float | None = None
) -> tuple[Tensor, Tensor | None]:
    """Sample images on a latent walk: spherical interpolation between pairs, 8 in a row (White 2016, arXiv:1609.04468).

    Normal latents lie near a sphere; linear interpolation would leave the region that the generator was trained on. A
    row has one condition. `truncation` cuts off the latents at the ends of each row.
    """
    check_truncation(truncation)
    rows = math.ceil(count / WALK)
    generator = torch.Generator().manual_seed(derived_seed(seed, "walk"))
    latent_dim: int = run.generator.latent_dim  # type: ignore[assignment]
    ends = latents(2 * rows, latent_dim, generator, truncation)
    first, second = ends[:rows, None], ends[rows:, None]
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1).clamp(-1, 1)[..., None]
    angle = torch.acos(cosine)
    along = torch.linspace(0, 1, WALK)[None, :, None]
    z = (torch.sin((1 - along) * angle) * first + torch.sin(along * angle) * second) / torch.sin(angle)
    device = next(run.generator.parameters()).device
    conditions = run.conditions if label is None else run.conditions.of_class(label)
    condition = conditions.drawn(rows, torch.Generator().manual_seed(derived_seed(seed, "walk", "condition")))
    if condition is not None:
        condition = condition.repeat_interleave(WALK, 0)
    images = [part.cpu() for part in generate_images(run.generator, z.flatten(0, 1), device, condition)]
    return torch.cat(images)[:count], None if condition is None else condition[:count]
