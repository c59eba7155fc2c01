"""The images that are projected into a run's latents: tensors, and image files, read as the run samples images.

Decisions:
- They are the files of an image folder: pictures; .npy, DICOM files and frames of videos too, alone or where a folder
  or a zip file has no pictures.
- They are decoded as the run's data set decodes files: upright, with its range and its colour behind transparency,
  resized to cover the size that the run samples, and cropped to its centre. Values have the run's type.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import attrs
import torch
from attrs import field, frozen
from PIL import Image
from torch import Tensor

from ganlab.data.image_archive import ImageArchive, open_images
from ganlab.data.image_file import DecodedImage, EncodedImage, decode_image, high_bit_depth
from ganlab.data.image_values import DataType, ValueForm, decode_values, form_of, is_plain
from ganlab.protocols import ImageSpec
from ganlab.run.latents_file import SampledRun
from ganlab.run.project import Projection, ProjectionOptions, check_projectable, project
from ganlab.run.projection_features import FeaturedRun, compared_features
from ganlab.utils.errors import ComponentError, UserError, whole_number
from ganlab.utils.progress import Progress, no_progress, paced
from ganlab.viz.progress import progress_bar


@frozen
class FileOptions:
    """How files that are projected are read: `range` are their values of black and white, by default as for the run.

    Values outside it are black or white too, as in a window of a CT image.
    Of videos and DICOM files with several images every `frame_step`-th is taken.
    """

    range: tuple[float, float] | None = None
    frame_step: int = 1

    @classmethod
    def of(cls, limits: Sequence[float] | None, frame_step: int) -> FileOptions:
        """Checks the options of files that are projected; UserError for values that cannot be."""
        whole_number("--frame-step", frame_step, 1)
        if limits is None:
            return cls(None, frame_step)
        if len(limits) != 2 or not -math.inf < limits[0] < limits[1] < math.inf:
            shown = " ".join(f"{limit:g}" for limit in limits)
            raise UserError(f"--range {shown}: expected two finite numbers, the lower one first")
        return cls((limits[0], limits[1]), frame_step)

    @property
    def given(self) -> list[str]:
        """The options of the command that are not as by default."""
        default = FileOptions()
        there = {"--range": self.range != default.range, "--frame-step": self.frame_step != default.frame_step}
        return [name for name, is_given in there.items() if is_given]


@frozen
class ImagesToProject:
    """Files that are projected: their names, and their images (N, C, H, W) of the type and size that a run samples."""

    names: list[str]
    images: Tensor = field(repr=False)


class ProjectableRun(SampledRun, FeaturedRun, Protocol):
    """What a projection needs of a run that `ganlab.load_run` read."""


def project_given(
    run: ProjectableRun,
    images: Tensor | str | Path | Sequence[str | Path],
    options: ProjectionOptions,
    features: str | None,
    overrides: Sequence[str],
    files: FileOptions,
) -> Projection:
    """Projects images (N, C, H, W), or those of files, into a run's latents, for `Run.project`."""
    options.check()
    check_projectable(run)
    with progress_bar() as progress_of:
        progress = progress_of("project")
        if not isinstance(images, Tensor):
            paths = [images] if isinstance(images, (str, Path)) else images
            images = read_files(
                run.sampled, [Path(path) for path in paths], files, progress, form_of(run.experiment.dataset)
            ).images
        elif files.given:
            raise UserError(f"{files.given[0]}: is for files that are read; a tensor is given")
        compared = compared_features(run, features, overrides, options.feature_weight, progress)
        return project(run, images, attrs.evolve(options, features=compared), progress)


def read_files(
    data: ImageSpec,
    given: Sequence[Path],
    options: FileOptions,
    progress: Progress = no_progress,
    own: ValueForm | None = None,
) -> ImagesToProject:
    """Reads image files that are projected, those of folders and zip files too, as the images `data`.

    `own` is how the run's data set reads files. Raises UserError where there are none, for one that cannot be read, and
    for those of 16 bits that have only the darkest values.
    """
    form = attrs.evolve(own or ValueForm(), dtype=cast("DataType", data.dtype))
    form = attrs.evolve(form, range=options.range or form.range, clip=(options.range or form.range) is not None)
    try:
        return _read(data, given, options, form, progress)
    except ComponentError as error:
        raise UserError(*str(error).splitlines()) from None


def _read(
    data: ImageSpec, given: Sequence[Path], options: FileOptions, form: ValueForm, progress: Progress
) -> ImagesToProject:
    """Reads image files that are projected."""
    if not data.is_image:
        raise UserError(f"project: the run samples {data.in_words}, which image files do not hold")
    if not given:
        raise UserError("project: no images; name at least one picture, or a folder of them")
    names: list[str] = []
    files: list[Path | EncodedImage] = []
    for path in given:
        found = _opened(path, options.frame_step, progress)
        names += [str(found.path / name) for name in found.names]
        files += found.files()
    if options.frame_step > 1 and not any(isinstance(file, EncodedImage) and file.samples for file in files):
        raise UserError(f"--frame-step {options.frame_step}: is for videos and DICOM files; none is given")
    report, images = paced(progress), []
    deep: dict[int, int] = {}
    for done, file in enumerate(files):
        decoded = _decoded(data, file, form)
        images.append(torch.from_numpy(decoded.pixels.copy()))
        if decoded.largest is not None:
            deep[done] = decoded.largest
        report("image files read", done + 1, len(files))
    dark = high_bit_depth(deep, files, len(files), kept=form.dtype != "uint8")
    if dark is not None:
        dark.check()
        warnings.warn(str(dark), stacklevel=2)
    return ImagesToProject(names, torch.stack(images))


def _opened(path: Path, frame_step: int, progress: Progress) -> ImageArchive:
    """The images of one file that is projected, or of a folder or a zip file."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir() or path.suffix.lower() == ".zip":
        return open_images(path, progress, frame_step)
    if not path.is_file():  # a pipe would block forever
        raise UserError(f"{path}: is not a file; expected a picture or a folder of pictures")
    return ImageArchive(path.parent, [path.name], {}).with_frames(frame_step, no_progress)


def _decoded(data: ImageSpec, file: Path | EncodedImage, form: ValueForm) -> DecodedImage:
    """One image file that is projected."""
    size = data.height, data.width
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if is_plain(file, data.channels, form):
            return decode_image(file, size, data.channels, None, background=form.background)
        return decode_values(file, size, data.channels, form)
