"""A folder of image files as a data set, with or without a subfolder for each class."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import frozen

from ganlab import (
    ComponentError,
    DatasetConfig,
    NoSplit,
    Places,
    Progress,
    Register,
    by_ending,
    check_split,
    hookimpl,
    location,
    no_progress,
    one_line,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab import ImageArchive, ImageDataset, ValueForm
    from ganlab_plugins.datasets._decoded_file import Options
    from ganlab_plugins.datasets._label_table import LabelTable


def original_or_size(folder: object, option: attrs.Attribute[Any], value: int | str | tuple[int, int]) -> None:
    """Validates an image size: 1 to 4096 pixels, height and width of these, or "original"."""
    for side in (value,) if isinstance(value, int) else value if isinstance(value, tuple) else ():
        attrs.validators.ge(1)(folder, option, side)
        attrs.validators.le(4096)(folder, option, side)


def value_form(folder: Any) -> ValueForm:
    """How a data set of image files reads them, by its options; so do commands that read pictures for a run with it."""
    from ganlab import ValueForm

    return ValueForm(folder.dtype, folder.range, folder.clip, folder.background)


@frozen
class ImageFolder:
    """Image folder: the images below a folder or in a zip file, in the order of their paths, without hidden ones.

    If every image is in a subfolder, the top-level subfolders are the classes, labelled in the order of their names. If
    images are in the folder itself, there are no labels, and all images are used. The files are PNG, JPEG, WebP, AVIF,
    BMP, TIFF, GIF (its first frame) or PPM, by any extension that Pillow knows for these, or by their content if the
    name has no extension. Where there are none of these they are .npy files, of (height, width) or (height, width,
    channels); else DICOM files (`pip install 'ganlab[dicom]'`); else the frames of videos (`pip install
    'ganlab[video]'`). A warning and `dataset.left_out_files` in run.json have the numbers of other files, by
    extension.

    Each image is rotated upright by its EXIF orientation, laid on a colour if it is transparent, resized (Lanczos,
    antialiased) to cover `size`, and cropped to its centre. 16 bits are rounded to 8 without `dtype`, with a warning;
    fewer bits stored in 16, recognized by their small values, are refused in half the files or more, without `range`.
    Colour with 16 bits, and TIFF files with other bands, need `pip install 'ganlab[images]'`.

    path: the folder or zip file: absolute, or below `~`, or relative to the data folder, or to the current folder.
    test_path: that of the test split; its classes have the same labels as in `path`.
    size: height and width in pixels, or [height, width]; "original" keeps the images' own size, which must be the same
        for all.
    channels: 3 for colour, 1 for grey, 4 or 2 for these with opacity; that of the files if they have other channels.
    dtype: "uint8", or "uint16" to keep 16 bits, or "float32" for numbers that are not rounded.
    range: the values in the files that are black and white, [low, high]; float32 is then in [-1, 1]. Without it, 0 and
        the largest value of the files' integers; floating-point numbers are float32 as they are.
    clip: set values outside `range` to its limits, instead of refusing the file.
    background: the colour below transparency, by name or as "#rrggbb", where `channels` has no opacity.
    table: a CSV or TSV file, relative to the image folder: its column `file`, or the first, names images.
    classes: "folders", "none", or the column of `table` that has class labels.
    attributes: columns of `table` with numbers, float32 as they are; with classes too, conditions are `labels` and
        `attributes`.
    frame_step: of a video, or a DICOM file with several images, every frame, every second with 2, and so on.
    skip_unreadable: skip files that cannot be read as images, and decompression bombs, instead of refusing the folder.
        A warning and `dataset.skipped` in run.json have their number.
    """

    path: str = location(validator=attrs.validators.min_len(1))
    test_path: str | None = location(default=None, validator=attrs.validators.optional(attrs.validators.min_len(1)))
    size: int | Literal["original"] | tuple[int, int] = attrs.field(default=64, validator=original_or_size)
    channels: int = attrs.field(default=3, validator=[attrs.validators.ge(1), attrs.validators.le(256)])
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    range: tuple[float, float] | None = None
    clip: bool = False
    background: str = "white"
    table: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.min_len(1)))
    classes: str = attrs.field(default="folders", validator=attrs.validators.min_len(1))
    attributes: tuple[str, ...] = ()
    frame_step: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(10**9)])
    skip_unreadable: bool = False

    def __attrs_post_init__(self) -> None:
        check_range(self.range, self.clip)
        check_background(self.background)
        for option in ("classes", "attributes"):
            if self.table is None and getattr(self, option) not in ("folders", "none", ()):
                raise ValueError(f"{option}: is a column, and table is not set; set table to the CSV file that has it")

    form = property(value_form)

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        from ganlab import ImageDataset, open_images
        from ganlab_plugins.datasets._decoded_cache import Options, decode_images

        check_split("image_folder", split)
        if split == "test" and self.test_path is None:
            raise NoSplit("there is no test split; set dataset.test_path")
        train = source = open_images(find_folder("path", self.path, places, or_zip=True), progress, self.frame_step)
        if split == "test" and self.test_path is not None:
            source = open_images(
                find_folder("test_path", self.test_path, places, or_zip=True), progress, self.frame_step
            )
        if self.frame_step > 1 and not (train.frames or source.frames):
            raise ComponentError(f"frame_step: is for videos and DICOM files, got {self.frame_step}; there are none")
        labelled = self._labelled(train, source)
        if self.table is not None and source.has(self.table):
            source = _without(source, self.table)
        warn_of_left_out("image_folder", source.path, len(source.names), source.left_out)
        size = None if self.size == "original" else self.size
        options = Options(size, self.channels, None, self.skip_unreadable, form=self.form)
        images, skipped = decode_images(source, options, places.cache, progress)
        if skipped:
            _warn_of_skipped(source, skipped, options)
        gaps = set(skipped)
        kept = [index for index in builtins.range(len(source.names)) if index not in gaps]
        parts = {name: part[kept] if skipped else part for name, part in labelled.parts.items()}
        return ImageDataset(
            images,
            f"image_folder:{source.path.resolve().name}",
            split,
            parts if len(parts) > 1 else next(iter(parts.values()), None),
            labelled.classes,
            len(skipped),
            source.left_out,
        )

    def _labelled(self, train: ImageArchive, source: ImageArchive) -> Labelled:
        """The conditions of all image files of a split, `source`, whose classes are those of `train`."""
        import torch

        parts: dict[str, Tensor] = {}
        classes: tuple[str, ...] = ()
        table = None if self.table is None else _table_of(self.table, train, source)
        if table is not None and self.classes in ("folders", "none") and not self.attributes:
            has = ", ".join(table.columns)
            raise ComponentError(
                f"table: {table.where} has the columns {has}; name one as classes, or some as attributes"
            )
        if self.classes == "folders":
            classes = _classes(train.names)
            if source is not train:
                classes = _test_classes(source.path, _classes(source.names), classes)
            label = {name: index for index, name in enumerate(classes)}
            if classes:
                parts["labels"] = torch.tensor([label[name.split("/")[0]] for name in source.names])
        elif self.classes != "none" and self.table is not None and table is not None:
            column = table.column("classes", self.classes)
            own = table if source is train else _table_of(self.table, train, train)
            classes = own.classes(own.column("classes", column))
            parts["labels"] = table.labels(source.file_names, column, classes)
        if table is not None and self.attributes:
            columns = [table.column("attributes", name) for name in self.attributes]
            parts["attributes"] = table.attributes(source.file_names, columns)
        return Labelled(parts, classes)


@frozen
class Labelled:
    """The conditions of the images of a folder by name, `labels` and `attributes`, and the names of the classes."""

    parts: dict[str, Tensor]
    classes: tuple[str, ...]


def check_range(limits: tuple[float, float] | None, clip: bool) -> None:
    """Checks an image folder's `range` and `clip`; ValueError with the option's name."""
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"range: [{limits[0]:g}, {limits[1]:g}]; wanted the lower value first")
    if clip and limits is None:
        raise ValueError("clip: is set, and range is not; set range to the values of black and white")


def check_background(name: str) -> None:
    """Checks an image folder's `background`; ValueError with the option's name."""
    from PIL import ImageColor

    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise ValueError(
            f'background: {one_line(repr(name), 40)}; wanted a colour such as "black" or "#ff8000"'
        ) from None


def _table_of(given: str, train: ImageArchive, source: ImageArchive) -> LabelTable:
    """The label table that an option names: relative to the split's image folder, or to that of the training split."""
    from ganlab_plugins.datasets._label_table import read_table

    for place in (source, train):
        if place.has(given):
            where = f"{place.path}/{given}"
            try:
                return read_table(place.read(given), where)
            except OSError as error:
                raise ComponentError(f"table: {where}: cannot be read ({one_line(error)})") from error
    beside = train.path.parent / Path(given).expanduser()
    try:
        return read_table(beside.read_bytes(), str(beside))
    except OSError:
        raise ComponentError(
            f"table: {one_line(repr(given), 60)}: no such file in {train.path}, nor beside it"
        ) from None


def _without(source: ImageArchive, table: str) -> ImageArchive:
    """An image folder that does not count its label table among the files that are left out."""
    ending = Path(table).suffix.lower()
    left_out = {name: count - (name == ending) for name, count in source.left_out.items()}
    return attrs.evolve(source, left_out={name: count for name, count in left_out.items() if count})


def warn_of_left_out(kind: str, path: Path, images: int, left_out: Mapping[str, int]) -> None:
    """Warns of the files of a folder that are not taken for images, by the endings of their names, if there are any.

    `kind` is the data set's name, and `images` the number of images in the folder.
    """
    if count := sum(left_out.values()):
        warnings.warn(
            f"{kind}: left out {count:,} of {count + images:,} files in {path}, which are not in a supported image "
            f"format: {by_ending(left_out)}",
            stacklevel=3,
        )


def _warn_of_skipped(source: ImageArchive, skipped: list[int], options: Options) -> None:
    """Warns of the image files that were skipped, also when they are known from the cache, with the first's reason."""
    from ganlab_plugins.datasets._decoded_file import NAMED, reason_of

    named = ", ".join(source.names[index] for index in skipped[:NAMED])
    more = f" and {len(skipped) - NAMED:,} more" if len(skipped) > NAMED else ""
    why = one_line(reason_of(source.files()[skipped[0]], options), 200)
    warnings.warn(
        f"image_folder: left out {len(skipped):,} of {len(source.names):,} files in {source.path}, which cannot be "
        f"read as images: {named}{more}; {'the first' if len(skipped) > 1 else 'it'}: {why}",
        stacklevel=3,
    )


def find_folder(option: str, value: str, places: Places, or_zip: bool = False) -> Path:
    """The image folder, or zip file, that an option names. Raises `ComponentError` with every path that was tried."""
    try:
        given = Path(value).expanduser()
    except RuntimeError as error:
        raise ComponentError(f"{option}: {one_line(repr(value), 60)}: {one_line(error)}") from error
    candidates = list(dict.fromkeys([places.data / given, Path.cwd() / given]))  # a single one if the path is absolute
    for candidate in candidates:
        try:
            if candidate.is_dir():
                return candidate
            if or_zip and candidate.is_file() and candidate.suffix.lower() == ".zip":
                return candidate
            if candidate.exists():
                also = " or a .zip file" if or_zip else ""
                raise ComponentError(f"{option}: {candidate} is not a folder; wanted a folder{also} of images")
        except OSError as error:
            raise ComponentError(f"{option}: {one_line(repr(value), 60)}: cannot be read ({error.strerror})") from error
    tried = " and ".join(one_line(candidate) for candidate in candidates)
    raise ComponentError(f"{option}: {one_line(repr(value), 60)}: no such folder; tried {tried}")


def _classes(names: Sequence[str]) -> tuple[str, ...]:
    """The classes of an image folder: its top-level subfolders, sorted; none if an image is in no subfolder."""
    if any("/" not in name for name in names):
        return ()
    return tuple(sorted({name.split("/")[0] for name in names}))


def _test_classes(folder: Path, test: tuple[str, ...], train: tuple[str, ...]) -> tuple[str, ...]:
    """The training folder's classes, so that labels mean the same in both image folders; none if either has none."""
    if not test or not train:
        return ()
    if strange := sorted(set(test) - set(train)):
        raise ComponentError(f"test_path: {folder} has a class {strange[0]!r}; path has only {', '.join(train)}")
    return train


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("image_folder", ImageFolder)
