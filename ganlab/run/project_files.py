"""`ganlab project`: picture files are projected into a run's latents, and what was found is written to a folder.

Decisions:
- The folder has, for each picture, what the latents make of it, all of them beside their targets, the latents, a film
  of the optimisation, and `projection.json`, which says how they were found. It is written whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import attrs
import torch
from attrs import frozen

from ganlab import __version__
from ganlab.data.image_values import form_of
from ganlab.run.images_to_project import FileOptions, read_files
from ganlab.run.load_run import Run
from ganlab.run.project import Projection, ProjectionOptions, project
from ganlab.run.projection_features import check_features_asked, compared_features
from ganlab.run.records import to_json
from ganlab.utils.errors import ComponentError, Interrupted, UserError
from ganlab.utils.files import whole_folder, write_whole
from ganlab.utils.signals import signals_as_keyboard_interrupt
from ganlab.viz.data_picture import as_pixels
from ganlab.viz.film import check_film
from ganlab.viz.image_grid import encode_pixels, fits_png, save_grid
from ganlab.viz.pairs import columns_of_pairs, side_by_side
from ganlab.viz.progress import progress_bar


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
    reading: FileOptions | None = None,
) -> list[str]:
    """Projects image files, and those of folders, and writes the folder `out`; returns a line for each image.

    `features` are compared besides pixels, with options such as "features.weights=FILE". Raises UserError for what
    cannot be projected, and Interrupted where SIGINT or SIGTERM ends it; then nothing is written. For the main thread.
    """
    options.check()
    reading = reading or FileOptions()
    check_features_asked(features, overrides, options.feature_weight)
    _check(run, out, files)
    try:
        with signals_as_keyboard_interrupt(), progress_bar() as progress_of:
            progress = progress_of(str(out))
            read = read_files(run.sampled, given, reading, progress, form_of(run.experiment.dataset))
            compared = compared_features(run, features, overrides, options.feature_weight, progress)
            options = attrs.evolve(options, features=compared)
            found = project(run, read.images, options, progress)
            about = _about(run, options, features, overrides, reading)
            names = [f"{index:05}-{PurePath(name).stem}" for index, name in enumerate(read.names)]
            with whole_folder(out) as folder:
                _write(run, found, names, folder, files)
                entries = [
                    {"picture": picture, "result": f"{name}.png", "error": error, "best_random": first}
                    for picture, name, error, first in zip(
                        read.names, names, found.errors.tolist(), found.first_errors.tolist(), strict=True
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
        f"{name}: error {error:.3g} of {most}, of the best of {options.starts:,} random latents {first:.3g}"
        for name, error, first in zip(read.names, found.errors.tolist(), found.first_errors.tolist(), strict=True)
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
    check_film(out / f"trajectory.{'webp' if files.film == 'none' else files.film}", 1, 30.0)


def _about(
    run: Run, options: ProjectionOptions, features: str | None, overrides: Sequence[str], reading: FileOptions
) -> dict[str, Any]:
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
        **attrs.asdict(reading),
        "ganlab": __version__,
        "torch": torch.__version__,
    }


def _write(run: Run, found: Projection, names: Sequence[str], folder: Path, files: ProjectedFiles) -> None:
    """Writes what was projected: pictures, pairs, latents and the film of the optimisation."""
    for name, image in zip(names, found.images, strict=True):
        write_whole(folder / f"{name}.png", encode_pixels(image.permute(1, 2, 0).contiguous().numpy()))
    columns = columns_of_pairs(len(names), 2)
    save_grid(side_by_side([as_pixels(found.targets), as_pixels(found.images)]), folder / "pairs.png", columns)
    found.save(folder / f"latents.{files.latents}")
    if files.film != "none":
        found.film().save(folder / f"trajectory.{files.film}")
