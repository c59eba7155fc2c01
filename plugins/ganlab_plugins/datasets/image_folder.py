"""A folder of image files as a data set, with or without a subfolder for each class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import frozen

from ganlab import (
    ComponentError,
    DatasetConfig,
    Places,
    Register,
    check_split,
    hookimpl,
    location,
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
    images are in the folder itself, there are no labels, and all images are used. The files are PNG, JPEG, WebP, BMP,
    TIFF, GIF (its first frame), PPM or PGM. Each is rotated upright by its EXIF orientation, composited on white if it
    is transparent, resized (Lanczos, antialiased) so that its shorter side is `size` pixels, and cropped to its central
    square.

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

    def build(self, places: Places, split: str) -> ImageDataset:
        import torch

        from ganlab import ImageDataset
        from ganlab_plugins.datasets._decoded_cache import decode_files, decode_readable_files

        check_split("image_folder", split)
        if split == "test" and self.test_path is None:
            raise ComponentError("there is no test split; set dataset.test_path")
        folder = find_folder("path", self.path, places)
        names = _listed(folder)
        classes = _classes(names)
        if split == "test" and self.test_path is not None:
            folder = find_folder("test_path", self.test_path, places)
            names = _listed(folder)
            classes = _test_classes(folder, _classes(names), classes)
        size = None if self.size == "original" else self.size
        skipped: list[int] = []
        if self.skip_unreadable:
            images, skipped = decode_readable_files(
                folder, names, size=size, channels=self.channels, cache=places.cache
            )
            if skipped:
                _warn_of_skipped(folder, names, skipped)
        else:
            images = decode_files(folder, names, size=size, channels=self.channels, cache=places.cache)
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


def _listed(folder: Path) -> list[str]:
    """Lists the image files below a folder as sorted relative POSIX paths. Links are followed; a cycle is an error."""
    from ganlab_plugins.datasets._image_decoding import EXTENSIONS

    names: list[str] = []
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while waiting:
        below, above = waiting.pop()
        here = folder / below
        try:
            real = os.path.realpath(here)
            if real in above:
                raise ComponentError(f"{here}: is a link to a folder that contains it; remove it")
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        waiting.append((f"{below}{entry.name}/", (*above, real)))
                    elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                        names.append(f"{below}{entry.name}")
        except OSError as error:
            raise ComponentError(f"{here}: cannot be listed ({error.strerror})") from error
    if not names:
        raise ComponentError(f"{folder}: contains no images; wanted files such as {', '.join(sorted(EXTENSIONS))}")
    return sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of an image folder is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


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
