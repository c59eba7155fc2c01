"""Pairs of image files for image translation: pictures with both halves, or two folders with equal names.

Decisions:
- A pair must match, since a game would learn a wrong one in silence. So what has no partner is refused with its name,
  and so are partners of other proportions, whose squares would show different parts.
- Both images of a pair are decoded, resized and cached as in `image_folder`.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import ge, le, min_len, optional

from ganlab import (
    ComponentError,
    DatasetConfig,
    NoSplit,
    Places,
    Progress,
    Register,
    check_split,
    hookimpl,
    list_images,
    location,
    no_progress,
    paced,
)
from ganlab_plugins.datasets.image_folder import (
    check_background,
    check_range,
    find_folder,
    original_or_size,
    value_form,
    warn_of_left_out,
)

if TYPE_CHECKING:
    from ganlab import EncodedImage, ImageDataset, MappedImages

NAMED = 5
"""How many files without a partner an error names."""


@frozen
class ImagePairs:
    """Image pairs: an image and a condition image each, from pictures with both halves or from two folders.

    A picture with both halves is twice as wide as high. Of two folders, files of equal names are a pair, whatever their
    extension; both have the same proportions. Subfolders are no classes. How an image becomes a square is as in
    `image_folder`.

    path: the folder of the images, or of pictures with both halves: absolute, or below `~`, or relative to the data
        folder, or to the current folder.
    condition_path: the folder of the condition images; unset for pictures with both halves.
    test_path, test_condition_path: the same of the test split.
    half: which half of a picture is the image; the other is its condition.
    size: height and width in pixels, or [height, width]; "original" keeps the images' own size, which must be the same
        for all images, and for all conditions.
    channels: of the images, 3 for colour, 1 for grey, 4 or 2 for these with opacity, or that of the files.
    condition_channels: of the condition images.
    dtype, range, clip, background: of both, as in `image_folder`.
    """

    path: str = location(validator=min_len(1))
    condition_path: str | None = location(default=None, validator=optional(min_len(1)))
    test_path: str | None = location(default=None, validator=optional(min_len(1)))
    test_condition_path: str | None = location(default=None, validator=optional(min_len(1)))
    half: Literal["left", "right"] = "right"
    size: int | Literal["original"] | tuple[int, int] = field(default=64, validator=original_or_size)
    channels: int = field(default=3, validator=[ge(1), le(256)])
    condition_channels: int = field(default=3, validator=[ge(1), le(256)])
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    range: tuple[float, float] | None = None
    clip: bool = False
    background: str = "white"

    def __attrs_post_init__(self) -> None:
        check_range(self.range, self.clip)
        check_background(self.background)
        if self.test_path and bool(self.condition_path) != bool(self.test_condition_path):
            given, missing = "condition_path", "test_condition_path"
            if self.test_condition_path:
                given, missing = missing, given
            raise ValueError(
                f"{missing}: is not set, and {given} is; set both, or neither for pictures with both halves"
            )
        if self.test_condition_path and not self.test_path:
            raise ValueError("test_path: is not set, and test_condition_path is; set both")

    form = property(value_form)

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        from ganlab import ImageDataset

        check_split("image_pairs", split)
        if split == "test" and self.test_path is None:
            raise NoSplit("there is no test split; set dataset.test_path")
        prefix = "" if split == "train" else "test_"
        path, condition_path = (getattr(self, f"{prefix}{name}") for name in ("path", "condition_path"))
        folder = find_folder(f"{prefix}path", path, places)
        listed = list_images(folder, progress)
        names, left_out = listed.names, Counter(listed.left_out)
        warn_of_left_out("image_pairs", folder, len(names), listed.left_out)
        if condition_path is None:
            other: Literal["left", "right"] = "right" if self.half == "left" else "left"
            images = self._decoded(folder, names, self.channels, places, progress, self.half)
            conditions = self._decoded(folder, names, self.condition_channels, places, progress, other)
        else:
            other_folder = find_folder(f"{prefix}condition_path", condition_path, places)
            others = list_images(other_folder, progress)
            warn_of_left_out("image_pairs", other_folder, len(others.names), others.left_out)
            left_out += Counter(others.left_out)
            pairs = _pairs(folder, names, other_folder, others.names)
            check_proportions(pairs, progress)
            partners = [str(partner.relative_to(other_folder)) for _, partner in pairs]
            images = self._decoded(folder, names, self.channels, places, progress)
            conditions = self._decoded(other_folder, partners, self.condition_channels, places, progress)
        name = f"image_pairs:{folder.resolve().name}"
        return ImageDataset(images, name, split, conditions, left_out=dict(left_out))

    def _decoded(
        self,
        folder: Path,
        names: Sequence[str],
        channels: int,
        places: Places,
        progress: Progress,
        half: Literal["left", "right"] | None = None,
    ) -> MappedImages:
        from ganlab_plugins.datasets._decoded_cache import decode_files

        size = None if self.size == "original" else self.size
        try:
            return decode_files(
                folder,
                names,
                size=size,
                channels=channels,
                half=half,
                form=self.form,
                cache=places.cache,
                progress=progress,
            )
        except ComponentError as error:
            if half is None or "side by side" not in str(error):
                raise
            first = str(error).splitlines()[0]
            raise ComponentError(f"{first}; for two folders with equal names set condition_path") from error


def _pairs(folder: Path, names: list[str], other: Path, other_names: list[str]) -> list[tuple[Path, Path]]:
    """The image pairs of two folders by name, without extensions; ComponentError for what has no partner."""
    stems, partners = _by_stem(folder, names), _by_stem(other, other_names)
    for of, left, at, lacking in ((folder, stems, other, partners), (other, partners, folder, stems)):
        if alone := [name for stem, name in left.items() if stem not in lacking]:
            more = f" and {len(alone) - NAMED:,} more" if len(alone) > NAMED else ""
            raise ComponentError(
                f"image_pairs: {of} has {len(left):,} images and {at} {len(lacking):,}; there is no partner of "
                f"{', '.join(alone[:NAMED])}{more}, which are in {of.name} alone"
            )
    return [(folder / name, other / partners[stem]) for stem, name in stems.items()]


def _by_stem(folder: Path, names: list[str]) -> dict[str, str]:
    """The image files of one folder of pairs, by their names without extension; each only once."""
    found: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        if stem in found:
            raise ComponentError(f"image_pairs: {folder}: {found[stem]} and {name} have one name; remove one of them")
        found[stem] = name
    return found


def check_proportions(pairs: Sequence[tuple[Path | EncodedImage, Path | EncodedImage]], progress: Progress) -> None:
    """Checks that the images of each pair have equal proportions, up to rounding; what is no image is named later."""
    report = paced(progress)
    for done, (image, condition) in enumerate(pairs):
        report("pairs compared", done, len(pairs))
        sizes = _upright_size(image), _upright_size(condition)
        if None in sizes:
            continue
        (width, height), (other_width, other_height) = sizes  # type: ignore[misc]
        if abs(width * other_height - height * other_width) > max(width, height, other_width, other_height):
            raise ComponentError(
                f"pairs: {image} has {width}x{height} pixels and its condition {condition} "
                f"{other_width}x{other_height}; wanted the same proportions"
            )


def _upright_size(file: Path | EncodedImage) -> tuple[int, int] | None:
    """The width and height of an image file, rotated upright, from its header; None if it cannot be read."""
    from PIL import ExifTags, Image

    from ganlab import image_formats

    try:
        content = file if isinstance(file, Path) else io.BytesIO(file.read())
        with Image.open(content, formats=image_formats()) as image:
            tags = getattr(image, "tag_v2", {})  # of TIFF, whose sides some versions of Pillow have exchanged already
            width, height = (tags.get(tag, side) for tag, side in zip((256, 257), image.size, strict=True))
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return None
    return (height, width) if turned else (width, height)


@frozen
class Unpaired:
    """Unpaired images: one of two domains of a folder with `trainA`, `trainB`, `testA`, `testB`, as CycleGAN's are.

    A game with a second data set takes one domain for each. How an image becomes a square is as in `image_folder`.

    path: the folder that has these folders: absolute, or below `~`, or relative to the data folder, or to the current
        folder.
    domain: which of the two.
    size: height and width in pixels, or [height, width]; "original" keeps the images' own size, which must be the same
        for all.
    channels: 3 for colour, 1 for grey, 4 or 2 for these with opacity, or that of the files.
    dtype, range, clip, background: as in `image_folder`.
    """

    path: str = location(validator=min_len(1))
    domain: Literal["a", "b"] = "a"
    size: int | Literal["original"] | tuple[int, int] = field(default=64, validator=original_or_size)
    channels: int = field(default=3, validator=[ge(1), le(256)])
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    range: tuple[float, float] | None = None
    clip: bool = False
    background: str = "white"

    def __attrs_post_init__(self) -> None:
        check_range(self.range, self.clip)
        check_background(self.background)

    form = property(value_form)

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        from ganlab import ImageDataset
        from ganlab_plugins.datasets._decoded_cache import decode_files

        check_split("unpaired", split)
        folder = find_folder("path", self.path, places)
        wanted = folder / f"{split}{self.domain.upper()}"
        if not wanted.is_dir():
            raise ComponentError(
                f"unpaired: {folder} has no folder {wanted.name}; wanted trainA, trainB, testA and testB, of images"
            )
        listed = list_images(wanted, progress)
        warn_of_left_out("unpaired", wanted, len(listed.names), listed.left_out)
        size = None if self.size == "original" else self.size
        images = decode_files(
            wanted,
            listed.names,
            size=size,
            channels=self.channels,
            form=self.form,
            cache=places.cache,
            progress=progress,
        )
        name = f"unpaired:{folder.resolve().name}/{wanted.name}"
        return ImageDataset(images, name, split, left_out=listed.left_out)


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("image_pairs", ImagePairs)
    register("unpaired", Unpaired)
