"""`ganlab project`: picture files are projected into a run's latents, and what was found is written to a folder.

Decisions:
- Pictures are decoded as data sets of files decode them: upright, transparency on white, resized to cover the size that
  the run samples, and cropped to its centre.
- The folder has, for each picture, what the latents make of it, all of them beside their targets, the latents, a film
  of the way, and `projection.json`, which says how they were found. It is written whole or not at all.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from ganlab import __version__
from ganlab.data.image_file import decode_image
from ganlab.data.list_images import list_images
from ganlab.data.pixels import as_input
from ganlab.evaluation.sampling import generate_images
from ganlab.protocols import map_condition
from ganlab.run.load_run import Run
from ganlab.run.project import Projection, ProjectionOptions, project
from ganlab.run.projection_features import features_of_run
from ganlab.run.records import to_json
from ganlab.utils.errors import ComponentError, Interrupted, UserError
from ganlab.utils.files import whole_folder, write_whole
from ganlab.utils.progress import Progress
from ganlab.utils.signals import signals_as_keyboard_interrupt
from ganlab.viz.data_picture import as_pixels
from ganlab.viz.film import check_film, write_film
from ganlab.viz.image_grid import encode_pixels, fits_png, image_grid, save_grid
from ganlab.viz.pairs import columns_of_pairs, side_by_side
from ganlab.viz.progress import progress_bar

MOST_FILMED = 16
"""The most images whose way a film shows."""


@frozen
class ProjectedFiles:
    """What `ganlab project` writes: the form of the latents' file, and of the film, or "none" for no film."""

    latents: Literal["npz", "safetensors"] = "npz"
    film: Literal["webp", "mp4", "gif", "none"] = "webp"


def project_files(
    run: Run,
    given: Sequence[Path],
    out: Path,
    options: ProjectionOptions,
    files: ProjectedFiles,
    features: str | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Projects pictures, and those of folders, and writes the folder `out`; returns a line for each.

    `features` are compared besides pixels, with options such as "features.weights=FILE". Raises UserError for what
    cannot be projected, and Interrupted where SIGINT or SIGTERM ends it; then nothing is written. For the main thread.
    """
    options.check()
    run.check_samples()
    _check(run, out, files)
    try:
        with signals_as_keyboard_interrupt(), progress_bar() as progress_of:
            progress = progress_of(str(out))
            paths = _pictures(given, progress)
            targets = torch.stack([_read(run, path) for path in paths])
            if features is not None:
                options = attrs.evolve(options, features=features_of_run(run, features, overrides, progress))
            found = project(run, targets, options, progress)
            about = _about(run, options, features, overrides)
            names = [f"{index:05}-{path.stem}" for index, path in enumerate(paths)]
            with whole_folder(out) as folder:
                _write(run, found, names, folder, files)
                entries = [
                    {"picture": str(path), "result": f"{name}.png", "error": error, "best_random": first}
                    for path, name, error, first in zip(
                        paths, names, found.errors.tolist(), found.first_errors.tolist(), strict=True
                    )
                ]
                record = json.dumps(to_json({**about, "images": entries}), indent=2) + "\n"
                write_whole(folder / "projection.json", record)
    except KeyboardInterrupt:
        raise Interrupted(f"{out}: nothing is written; the same command starts again") from None
    except ComponentError as error:
        raise UserError(*str(error).splitlines()) from None
    most = 65535 if run.sampled.dtype == "uint16" else 255
    return [
        f"{path}: error {error:.3g} of {most}, of the best of {options.starts:,} random latents {first:.3g}"
        for path, error, first in zip(paths, found.errors.tolist(), found.first_errors.tolist(), strict=True)
    ]


def _check(run: Run, out: Path, files: ProjectedFiles) -> None:
    """Refuses a projection of pictures where the run's data are none, and a place that nothing can be written to."""
    data = run.sampled
    if not fits_png(data):
        raise UserError(
            f"{run.path}: the run samples {data.in_words}, which picture files do not hold; Run.project takes tensors"
        )
    if out.suffix:
        raise UserError(f"--out {out}: expected a folder, without a suffix")
    if out.is_file():
        raise UserError(f"--out {out}: is a file; expected a folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: a folder that is not empty; choose another")
    check_film(out / f"way.{'webp' if files.film == 'none' else files.film}", 1, 30.0)


def _pictures(given: Sequence[Path], progress: Progress) -> list[Path]:
    """The pictures that are named, and those of the folders that are."""
    if not given:
        raise UserError("project: no images; name at least one picture, or a folder of them")
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found += [path / name for name in list_images(path, progress).names] if path.is_dir() else [path]
    return found


def _read(run: Run, path: Path) -> Tensor:
    """One picture as the run samples it: (C, H, W) of its type."""
    data = run.sampled
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        decoded = decode_image(path, (data.height, data.width), data.channels, None)
    pixels = torch.from_numpy(decoded.pixels.copy())
    return pixels.int().mul(257).to(torch.uint16) if data.dtype == "uint16" else pixels


def _about(run: Run, options: ProjectionOptions, features: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """How images were projected, for `projection.json`."""
    asked = attrs.asdict(options, filter=lambda field, _: field.name != "features", recurse=False)
    return {
        "run": run.info["name"],
        "step": run.step,
        "weights": run.weights,
        **({"sampler": run.sampler_name} if run.sampler_name else {}),
        **({"options": run.sampler.options} if run.sampler.options else {}),
        **asked,
        "features": features,
        "set": list(overrides),
        "ganlab": __version__,
        "torch": torch.__version__,
    }


def _write(run: Run, found: Projection, names: Sequence[str], folder: Path, files: ProjectedFiles) -> None:
    """Writes what was projected: pictures, pairs, latents and the film of the way."""
    for name, image in zip(names, found.images, strict=True):
        write_whole(folder / f"{name}.png", encode_pixels(image.permute(1, 2, 0).contiguous().numpy()))
    columns = columns_of_pairs(len(names), 2)
    save_grid(side_by_side([as_pixels(found.targets), as_pixels(found.images)]), folder / "pairs.png", columns)
    found.save(folder / f"latents.{files.latents}")
    if files.film == "none":
        return
    condition = map_condition(lambda part: as_input(part[:MOST_FILMED]), found.condition)
    targets = as_pixels(found.targets[:MOST_FILMED])
    frames = []
    for z in found.way[:, :MOST_FILMED]:
        (made,) = generate_images(run.sampler, z, run.device, condition)
        pairs = side_by_side([targets, as_pixels(made.cpu())])
        frames.append(image_grid(pairs, columns_of_pairs(len(z), 2)))
    write_film([torch.stack(frames)], folder / f"way.{files.film}", len(frames))
