"""Style mixing (`ganlab sample --mix`, `Run.mix`): the styles of one sample in some layers, of another in the rest.

It is for games whose sampler says that its latents are styles (`ganlab.Sampler(styles=True)`): (n, layers, dim), as in
Karras et al. 2019, arXiv:1812.04948, section 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganlab.evaluation.sampling import check_sampling, generate_images, sample_inputs
from ganlab.protocols import map_condition
from ganlab.run.latents_file import SampledRun
from ganlab.utils.errors import UserError, quote, whole_number
from ganlab.utils.files import check_parents
from ganlab.viz.data_picture import as_pixels, save_picture

COUNT = 6
"""The number of samples in a row and in a column that are mixed, where none is asked for."""

MOST = 100


def mix_layers(text: str, layers: int) -> list[int]:
    """The layers that `--mix` names, such as "2-3" or "0,2-3"; UserError for a text that names none of the layers."""
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if ends is None:
            raise UserError(f"--mix {quote(text)}: expected layers such as 2-3 or 0,2-3")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if not found or max(found) >= layers or len({*found}) == layers:
        raise UserError(f"--mix {quote(text)}: expected some of the layers 0 to {layers - 1}, and not all")
    return sorted({*found})


def mix(
    run: SampledRun,
    layers: str | Sequence[int],
    count: int | None = None,
    seed: int = 0,
    label: int | str | None = None,
    truncation: float | None = None,
) -> Tensor:
    """Mixes the styles of a run's samples: images (count + 1, count + 1, C, H, W) of the type of the data.

    The first row has samples whose styles the columns take in `layers`, the first column samples whose styles the rows
    take in the others; the corner is empty. The samples are the first ones of `seed`, the rows' before the columns'.
    """
    count = whole_number("--count", COUNT if count is None else count, 1, MOST)
    check_sampling(count, seed, truncation)
    run.check_samples(truncation)
    conditions = run.conditions if label is None else run.conditions.of_class(label)
    parts = list(sample_inputs(run.sampler, 2 * count, seed, conditions, truncation=truncation))
    w = torch.cat([part for part, _ in parts])
    if not run.sampler.sampler.styles:
        raise UserError(f"--mix: {run.path}: the latents of this run are no styles (the game's sampler says of none)")
    text = layers if isinstance(layers, str) else ",".join(map(str, layers))
    chosen = mix_layers(text, w.shape[1])
    rows, columns = w[:count], w[count:]
    mixed = rows[:, None].repeat(1, count, 1, 1)
    mixed[:, :, chosen] = columns[:, chosen]
    grid = torch.cat([torch.cat([rows[:1], columns])[None], torch.cat([rows[:, None], mixed], 1)]).flatten(0, 1)
    # All have one condition: what differs between two images of a row is the styles.
    condition = map_condition(lambda part: part[:1].expand(len(grid), *part.shape[1:]), parts[0][1])
    images = torch.cat([part.cpu() for part in generate_images(run.sampler, grid, run.device, condition)])
    return images.view(count + 1, count + 1, *images.shape[1:])


def write_mix(run: SampledRun, images: Tensor, out: Path) -> str:
    """Writes mixed images, as `mix` returns them, as one picture with an empty corner; returns how many, in words."""
    if out.suffix != ".png" or out.is_dir():
        raise UserError(f"--out {out}: mixed styles are a grid; expected FILE.png")
    check_parents("--out", out)
    shown = as_pixels(images.flatten(0, 1), run.sampled.range)
    shown[0] = 255
    save_picture(shown, out, images.shape[1])
    rows = len(images) - 1
    return f"{rows * rows:,} images mixed of {rows:,} in rows and {rows:,} in columns,"
