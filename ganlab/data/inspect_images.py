"""What is in a folder or zip file of images, and the data set that a run would make of it: for `ganlab data`.

Decisions:
- Every file is decoded whole: a header says nothing of a broken end, and not which values there are.
- Images are duplicates if their upright pixels are equal, whatever their format and name.
- The proposed options lose nothing that most of the files have. Whether a run would take the files with them is tried:
  one file of each kind is decoded so. Where files are refused for want of a range, one is looked for.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from PIL import Image

from ganlab.data.image_archive import ImageArchive
from ganlab.data.image_file import DARK, MAX_16_BIT, EncodedImage, decode_image, naming_image
from ganlab.data.image_values import ValueForm, decode_values, is_plain, read_samples
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.progress import Progress

SHARE = 64
"""How many image files a thread inspects at a time."""

PAUSE = 0.1
"""Seconds between two reports of progress."""

LARGEST_SIDE = 256
"""The largest size that is proposed for images to be trained on."""


@frozen
class ImageFound:
    """One image file, inspected: its format and kind of values, width and height, lowest and highest value.

    `white` is as in `Samples`, `bands` the number of channels without opacity, and `digest` equal for equal pixels.
    """

    name: str
    format: str
    mode: str
    size: tuple[int, int]
    lowest: float
    highest: float
    white: int | None
    bands: int
    is_array: bool
    is_grey: bool
    is_transparent: bool
    digest: bytes


@frozen
class Inspection:
    """All image files of a folder or zip file, inspected, and the `[dataset]` table that is proposed for a run.

    `unreadable` and `refused` are names and reasons: of what cannot be decoded at all, and of what a run with these
    options would not take.
    """

    source: ImageArchive
    images: Sequence[ImageFound]
    unreadable: Mapping[str, str]
    refused: Mapping[str, str]
    table: Mapping[str, Any]
    notes: Sequence[str]

    @property
    def duplicates(self) -> list[list[str]]:
        """The names of image files with equal pixels, those of each group together."""
        groups: dict[bytes, list[str]] = {}
        for image in self.images:
            groups.setdefault(image.digest, []).append(image.name)
        return [names for names in groups.values() if len(names) > 1]

    @property
    def classes(self) -> dict[str, int]:
        """How many images each top-level folder has; none if an image is in no folder."""
        names = self.source.names
        if any("/" not in name for name in names):
            return {}
        return dict(sorted(Counter(name.partition("/")[0] for name in names).items()))

    def as_json(self) -> dict[str, Any]:
        """The inspection of image files as `ganlab data --json` prints it."""
        return {
            "path": str(self.source.path),
            "files": len(self.source.names),
            "readable": len(self.images),
            "formats": dict(Counter(image.format for image in self.images).most_common()),
            "modes": dict(Counter(image.mode for image in self.images).most_common()),
            "sizes": [
                {"width": width, "height": height, "count": count}
                for (width, height), count in Counter(image.size for image in self.images).most_common()
            ],
            "ranges": {mode: list(limits) for mode, limits in self.ranges.items()},
            "transparent": sum(image.is_transparent for image in self.images),
            "duplicates": self.duplicates,
            "unreadable": dict(self.unreadable),
            "refused": dict(self.refused),
            "left_out": dict(self.source.left_out),
            "classes": self.classes,
            "notes": list(self.notes),
            "dataset": dict(self.table),
        }

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and highest value of each kind of image files."""
        found: dict[str, tuple[float, float]] = {}
        for image in self.images:
            low, high = found.get(image.mode, (image.lowest, image.highest))
            found[image.mode] = min(low, image.lowest), max(high, image.highest)
        return found

    def examples(self, count: int) -> list[np.ndarray[Any, Any]]:
        """At most `count` images (C, H, W), evenly spread, decoded as a run would with the proposed options."""
        taken = [image.name for image in self.images if image.name not in self.refused]
        every = max(1, -(-len(taken) // count))
        files = dict(zip(self.source.names, self.source.files(), strict=True))
        return [_decoded(files[name], self.table) for name in taken[::every]]


def inspect_images(source: ImageArchive, progress: Progress) -> Inspection:
    """Decodes all image files of a folder or zip file, in threads, and proposes a data set. `progress` may raise."""
    files = dict(zip(source.names, source.files(), strict=True))
    names, stopped = source.names, threading.Event()
    found: dict[str, ImageFound] = {}
    unreadable: dict[str, str] = {}

    def inspect(begin: int) -> None:
        for name in names[begin : begin + SHARE]:
            if stopped.is_set():
                return
            try:
                found[name] = _inspected(name, files[name])
            except ComponentError as error:
                unreadable[name] = str(error).removeprefix(f"{files[name]}: ")

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            shares = [pool.submit(inspect, begin) for begin in range(0, len(names), SHARE)]
            for share in shares:
                while not wait([share], timeout=PAUSE).done:
                    progress("images inspected", len(found) + len(unreadable), len(names))
                share.result()
                progress("images inspected", len(found) + len(unreadable), len(names))
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    images = [found[name] for name in names if name in found]
    table = {"name": "image_folder", "path": str(source.path.absolute()), **proposed_options(images)}
    refused = _refused(images, files, table)
    advice: list[str] = []
    if refused:
        table, refused, advice = _with_range(images, files, table, refused)
    if unreadable or refused:
        table["skip_unreadable"] = True
    ordered = {name: unreadable[name] for name in names if name in unreadable}
    return Inspection(source, images, ordered, refused, table, _notes(images, source, table) + advice)


def _inspected(name: str, file: Path | EncodedImage) -> ImageFound:
    """One image file, decoded and measured. Raises `UnreadableImage`, and `ComponentError` without a package."""
    with naming_image(file):
        if isinstance(file, Path) and not file.is_file():  # reading a pipe would block forever
            raise OSError("there is no such file" if not file.exists() else "is not a file")
        samples = read_samples(file)
        values, alpha = samples.values, samples.alpha
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError("has values that are NaN or infinite")
    digest = hashlib.blake2b(f"{values.shape} {values.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    if alpha is not None:
        digest.update(alpha.tobytes())
    is_last = not samples.is_array or values.shape[2] < values.shape[0]  # of arrays (H, W, C), else (C, H, W)
    height, width, bands = values.shape if is_last else (values.shape[1], values.shape[2], values.shape[0])
    return ImageFound(
        name,
        samples.format,
        samples.mode,
        (width, height),
        float(values.min()),
        float(values.max()),
        samples.white,
        bands,
        samples.is_array,
        bands == 1 or (bands == 3 and not samples.is_array and bool((values == values[:, :, :1]).all())),
        alpha is not None and bool((alpha < 1).any()),
        digest.digest(),
    )


def proposed_options(images: Sequence[ImageFound]) -> dict[str, Any]:
    """Options of an image folder that lose nothing of most of these images: size, channels, type, range."""
    if not images:
        return {}
    sizes, options = {image.size for image in images}, dict[str, Any]()
    if len(sizes) == 1 and max(images[0].size) <= LARGEST_SIDE:
        options["size"] = "original"
    else:
        shorter = min(LARGEST_SIDE, int(statistics.median(min(image.size) for image in images)))
        options["size"] = 2 ** (max(1, shorter).bit_length() - 1)
    kinds = Counter(image.white for image in images)
    white = kinds.most_common(1)[0][0]
    alike = [image for image in images if image.white == white]
    bands, is_array = Counter((image.bands, image.is_array and image.bands > 1) for image in alike).most_common(1)[0][0]
    options["channels"] = bands if is_array else 1 if all(image.is_grey for image in alike) else 3
    lowest, highest = min(image.lowest for image in alike), max(image.highest for image in alike)
    if white is None:
        options |= {"dtype": "float32", "range": [lowest, highest if highest > lowest else lowest + 1.0]}
    elif white > 255:
        options["dtype"] = "uint16"
        if white == MAX_16_BIT and 0 < highest < DARK:
            options["range"] = [0.0, float(2 ** int(highest).bit_length() - 1)]
    return options


def _refused(
    images: Sequence[ImageFound], files: Mapping[str, Path | EncodedImage], table: Mapping[str, Any]
) -> dict[str, str]:
    """The image files that a run with these options would not take, with reasons: one file of each kind is tried."""
    reasons: dict[Any, str | None] = {}
    refused: dict[str, str] = {}
    for image in images:
        kind = image.mode, image.bands
        if kind not in reasons:
            try:
                reasons[kind] = None
                _decoded(files[image.name], table)
            except ComponentError as error:
                reasons[kind] = str(error).removeprefix(f"{files[image.name]}: ")
        if (reason := reasons[kind]) is not None:
            refused[image.name] = reason
    return refused


def _with_range(
    images: Sequence[ImageFound],
    files: Mapping[str, Path | EncodedImage],
    table: dict[str, Any],
    refused: dict[str, str],
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Options with a range that takes image files which are refused without, what is refused then, and notes.

    The range is proposed where it changes nothing for the others; else a note names it, since units may differ.
    """
    own = [image for image in images if image.name not in refused]
    white = max((image.white or 0 for image in own), default=0)
    low, high = min(0.0, *(image.lowest for image in images)), max(float(white), *(image.highest for image in images))
    wider = {**table, "range": [low, high]}
    still = _refused(images, files, wider)
    taken = [image for image in images if image.name in refused and image.name not in still]
    if not taken or still.keys() - refused.keys():
        return table, refused, []
    named = one_line(taken[0].name, 60) + (f" and {len(taken) - 1:,} more" if len(taken) > 1 else "")
    if max(image.highest - image.lowest for image in taken) < (high - low) / 16 or 0 < 16 * white < high:
        values = f"{min(image.lowest for image in taken):g} to {max(image.highest for image in taken):g}"
        note = f"{named}: values from {values}, in another unit than other files; a run takes them from a folder apart"
        return table, refused, [note]
    if "range" not in table and (low, high) == (0.0, white):
        return wider, still, [f"{named}: black and white, which they do not say, are those of the other files"]
    return table, refused, [f"{named}: with range = [{low:g}, {high:g}], the values of all files, they are taken too"]


def _decoded(file: Path | EncodedImage, table: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """An image file, decoded with the proposed options. Raises `ComponentError`, mostly `UnreadableImage`."""
    limits = table.get("range")
    form = ValueForm(table.get("dtype", "uint8"), None if limits is None else (limits[0], limits[1]))
    size, channels = None if table["size"] == "original" else table["size"], table["channels"]
    if is_plain(file, channels, form):
        return decode_image(file, size, channels, None).pixels
    return decode_values(file, size, channels, form).pixels


def _notes(images: Sequence[ImageFound], source: ImageArchive, table: Mapping[str, Any]) -> list[str]:
    """What a user should know of the proposed data set, in lines."""
    notes = []
    if transparent := sum(image.is_transparent for image in images):
        notes.append(f"{transparent:,} with transparency: laid on white, or on `background`; channels = 4 keeps it")
    if table.get("size", "original") != "original":
        side = [min(image.size) ** 2 / (image.size[0] * image.size[1]) for image in images]
        if cut := sum(share < 0.5 for share in side):
            notes.append(f"{cut:,} of which less than half is in the central square; size = [height, width] keeps more")
        if small := sum(min(image.size) < table["size"] for image in images):
            notes.append(f"{small:,} smaller than {table['size']} pixels, which are enlarged")
    deep = sum((image.white or 0) > 255 for image in images)
    if deep and "dtype" not in table:
        notes.append(f"{deep:,} with more than 8 bits, rounded to 8")
    if "range" in table and "float32" in table.values():
        notes.append("range is what the files have; values of other files outside it would be refused")
    # A file of one image, or one that is broken, has its own name.
    holders = [file for name, file in zip(source.names, source.file_names, strict=True) if name != file]
    if holders:
        count = len(set(holders))
        notes.append(f"{len(holders):,} frames of {count:,} file{'s' * (count > 1)}; frame_step = k takes every k-th")
    for ending in (".csv", ".tsv"):
        if source.left_out.get(ending):
            notes.append(f"a {ending} file may have classes or attributes: `table` names it")
    return notes
