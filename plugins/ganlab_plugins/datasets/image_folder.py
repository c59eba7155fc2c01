"""A folder of image files as a data set, with or without a subfolder for each class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import frozen

from ganlab import (
    ComponentError,
    DatasetConfig,
    ListedImages,
    Places,
    Progress,
    Register,
    by_ending,
    check_split,
    hookimpl,
    list_images,
    location,
    no_progress,
    one_line,
)

if TYPE_CHECKING:
    from ganlab import ImageDataset


def original_or_size(folder: object, option: attrs.Attribute[Any], value: int | str) -> None:
    """Validates an image size: 1 to 4096 pixels, or "original"."""
    if isinstance(value, int):
        attrs.validators.ge(1)(folder, option, value)
        attrs.validators.le(4096)(folder, option, value)


@frozen
class ImageFolder:
    """Image folder: the images below a folder, in the order of their paths, without hidden files and folders.

    If every image is in a subfolder, the top-level subfolders are the classes, labelled in the order of their names. If
    images are in the folder itself, there are no labels, and all images are used. The files are PNG, JPEG, WebP, AVIF,
    BMP, TIFF, GIF (its first frame) or PPM, by any extension that Pillow knows for these, or by their content if the
    name has no extension. A warning and `dataset.left_out_files` in run.json have the numbers of other files, by
    extension.

    Each image is rotated upright by its EXIF orientation, composited on white if it is transparent, resized (Lanczos,
    antialiased) so that its shorter side is `size` pixels, and cropped to its central square. 16 bits are rounded to 8,
    with a warning; fewer bits stored in 16, recognized by their small values, are refused in half the files or more.

    path: the folder: absolute, or below `~`, or relative to the data folder, or to the current folder.
    test_path: the folder of the test split; its classes have the same labels as in `path`.
    size: height and width in pixels; "original" keeps the images' own size, which must be the same for all.
    channels: 3 for colour or 1 for grey.
    skip_unreadable: skip files that cannot be read as images, and decompression bombs, instead of refusing the folder.
        A warning and `dataset.skipped` in run.json have their number.
    """

    path: str = location(validator=attrs.validators.min_len(1))
    test_path: str | None = location(default=None, validator=attrs.validators.optional(attrs.validators.min_len(1)))
    size: int | Literal["original"] = attrs.field(default=64, validator=original_or_size)
    channels: Literal[1, 3] = 3
    skip_unreadable: bool = False

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        import torch

        from ganlab import ImageDataset
        from ganlab_plugins.datasets._decoded_cache import decode_files, decode_readable_files

        check_split("image_folder", split)
        if split == "test" and self.test_path is None:
            raise ComponentError("there is no test split; set dataset.test_path")
        folder = find_folder("path", self.path, places)
        listed = list_images(folder, progress)
        classes = _classes(listed.names)
        if split == "test" and self.test_path is not None:
            folder = find_folder("test_path", self.test_path, places)
            listed = list_images(folder, progress)
            classes = _test_classes(folder, _classes(listed.names), classes)
        names = listed.names
        if listed.left_out:
            _warn_of_left_out(folder, listed)
        size = None if self.size == "original" else self.size
        skipped: list[int] = []
        if self.skip_unreadable:
            images, skipped = decode_readable_files(
                folder, names, size=size, channels=self.channels, cache=places.cache, progress=progress
            )
            if skipped:
                _warn_of_skipped(folder, names, skipped)
        else:
            images = decode_files(
                folder, names, size=size, channels=self.channels, cache=places.cache, progress=progress
            )
        label = {name: index for index, name in enumerate(classes)}
        gaps = set(skipped)
        labels = [label[name.split("/")[0]] for index, name in enumerate(names) if classes and index not in gaps]
        return ImageDataset(
            images,
            f"image_folder:{folder.resolve().name}",
            split,
            torch.tensor(labels) if classes else None,
            classes,
            len(skipped),
            listed.left_out,
        )


def _warn_of_left_out(folder: Path, listed: ListedImages) -> None:
    """Warns of the files of an image folder that are not taken for images, by the endings of their names."""
    count = sum(listed.left_out.values())
    warnings.warn(
        f"image_folder: left out {count:,} of {count + len(listed.names):,} files in {folder}, which are not in a "
        f"supported image format: {by_ending(listed.left_out)}",
        stacklevel=3,
    )


def _warn_of_skipped(folder: Path, names: list[str], skipped: list[int]) -> None:
    """Warns of the image files that were skipped, also when they are known from the cache."""
    from ganlab_plugins.datasets._decoded_cache import NAMED

    named = ", ".join(names[index] for index in skipped[:NAMED])
    more = f" and {len(skipped) - NAMED:,} more" if len(skipped) > NAMED else ""
    warnings.warn(
        f"image_folder: left out {len(skipped):,} of {len(names):,} files in {folder}, which cannot be read as "
        f"images: {named}{more}",
        stacklevel=3,
    )


def find_folder(option: str, value: str, places: Places) -> Path:
    """The image folder that an option names. Raises `ComponentError` that names every path that was tried."""
    try:
        given = Path(value).expanduser()
    except RuntimeError as error:
        raise ComponentError(f"{option}: {one_line(repr(value), 60)}: {one_line(error)}") from error
    candidates = list(dict.fromkeys([places.data / given, Path.cwd() / given]))  # a single one if the path is absolute
    for candidate in candidates:
        try:
            if candidate.is_dir():
                return candidate
            if candidate.exists():
                raise ComponentError(f"{option}: {candidate} is not a folder; wanted a folder of images")
        except OSError as error:
            raise ComponentError(f"{option}: {one_line(repr(value), 60)}: cannot be read ({error.strerror})") from error
    tried = " and ".join(one_line(candidate) for candidate in candidates)
    raise ComponentError(f"{option}: {one_line(repr(value), 60)}: no such folder; tried {tried}")


def _classes(names: list[str]) -> tuple[str, ...]:
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
