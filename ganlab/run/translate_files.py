"""`ganlab translate`: a picture, a folder of pictures or an .npz file through a trained run, to one of the same kind.

Decisions:
- Pictures are decoded as the run's data set decodes them: upright, transparency on its colour, by its range; without a
  range 16 bits are rounded to 8. They keep their names, and are written as PNG, which loses nothing.
- Files are read, translated and written a few at a time, those that follow each other and have one size together. A
  thread reads ahead and another writes behind. So memory depends on the size of one picture and not on their number.
- Nothing is left half-written: a folder is filled under a temporary name beside its place, and renamed.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast

import attrs
import numpy as np
import torch
from attrs import define, field
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ganlab.data.image_file import decode_image, high_bit_depth
from ganlab.data.image_values import DataType, decode_values
from ganlab.data.list_images import by_ending, list_images
from ganlab.data.npz import check_no_single_array, read_npz
from ganlab.run.sample_arrays import write_npz
from ganlab.run.sample_files import as_array
from ganlab.run.translate import Translator
from ganlab.utils.errors import ComponentError, Interrupted, UserError, counted, printable
from ganlab.utils.files import check_parents, raise_cannot_write, whole_folder, write_whole
from ganlab.utils.progress import Progress
from ganlab.utils.signals import signals_as_keyboard_interrupt
from ganlab.viz.image_grid import encode_pixels, fits_png
from ganlab.viz.progress import progress_bar

T = TypeVar("T")


def translate_files(way: Translator, given: Path, out: Path) -> str:
    """Translates a picture, a folder or an .npz file `given` to `out`, for `ganlab translate`; says how many, in words.

    Raises UserError for what cannot be translated or written there, and Interrupted where SIGINT or SIGTERM ends it;
    then nothing is written. Only for the main thread.
    """
    is_array = given.suffix == ".npz" and not given.is_dir()
    if not given.exists():
        raise UserError(f"{given}: no such file or folder")
    if not is_array:
        if given.is_file():
            check_no_single_array(given)
        _check_pictures(way, given)
    _check_out(given, out, is_array)
    try:
        with signals_as_keyboard_interrupt(), progress_bar() as progress_of:
            progress = progress_of(str(out))
            if is_array:
                return _translate_array(way, given, out, progress)
            if given.is_dir():
                return _translate_folder(way, given, out, progress)
            ((_, (pixels,)),) = _Pictures([given]).translated(way, progress)
            write_whole(_file_of(given, out), encode_pixels(pixels))
            return f"1 image, {pixels.shape[1]}x{pixels.shape[0]} pixels,"
    except KeyboardInterrupt:
        raise Interrupted(f"{out}: nothing is written; the same command starts again") from None
    except ComponentError as error:
        raise UserError(*str(error).splitlines()) from None


def _check_pictures(way: Translator, given: Path) -> None:
    """Refuses a translation of pictures where the run's data are no pictures."""
    if not given.is_dir() and not given.is_file():
        raise UserError(f"{given}: is no file; expected a picture, a folder of pictures or FILE.npz")
    for what, data in (("translates", way.given), ("makes", way.made)):
        # Pictures that are read have 8 bits, whatever the run takes.
        read = attrs.evolve(data, dtype="uint8") if data is not way.made and data.dtype == "uint16" else data
        if not fits_png(read):
            raise UserError(f"{given}: the run {what} {data.in_words}, which picture files do not hold; use FILE.npz")


def _check_out(given: Path, out: Path, is_array: bool) -> None:
    """Refuses a place that a translation of `given` cannot be written to."""
    check_parents("--out", out)
    if given.is_dir():
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file, and {given} a folder; expected a folder")
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"--out {out}: a folder that is not empty; choose another")
        if out.suffix in (".png", ".npz"):
            raise UserError(f"--out {out}: {given} is a folder; expected a folder")
    elif is_array:
        if out.suffix != ".npz" or out.is_dir():
            raise UserError(f"--out {out}: expected FILE.npz, as {given.name} is one")
    elif out.suffix != ".png" and (out.suffix and not out.is_dir()):
        raise UserError(f"--out {out}: expected FILE.png or a folder")
    elif not out.suffix and out.is_file():
        raise UserError(f"--out {out}: is a file; expected FILE.png or a folder")
    written = out if is_array or given.is_dir() else _file_of(given, out)
    if written.exists() and written.samefile(given):
        raise UserError(f"--out {out}: is the input itself; choose another")
    if given.is_dir() and given.resolve() in out.resolve().parents:
        raise UserError(f"--out {out}: lies in the input {given}; choose a folder beside it")


def _file_of(given: Path, out: Path) -> Path:
    """The file that a translated picture is written to: `out`, or one of its name in the folder `out`."""
    if out.suffix == ".png" and not out.is_dir():
        return out
    return out / _png(given.name)


def _png(name: str) -> str:
    """The name of a translated picture: that of the input, with the ending of a PNG file."""
    return str(PurePath(name).with_suffix(".png"))


@define
class _Pictures:
    """The picture files of a translation, in their order; `_deep` is the largest value of those with 16 bits."""

    files: Sequence[Path]
    _deep: dict[int, int] = field(factory=dict)

    def translated(self, way: Translator, progress: Progress) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yields the number of a picture and the translations (n, H, W, C) of it and of those of its size that follow.

        Raises UserError or ComponentError for the first that does not fit.
        """
        z = way.latents(len(self.files))
        # Filters of warnings are those of all threads, so they are set once, and not where each picture is read.
        with warnings.catch_warnings(), _one_ahead(self._given(way)) as batches:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for first, given in batches:
                end = first + len(given)
                yield first, as_array(way(given, z[first:end], str(self.files[first])))
                progress("images", end, len(self.files))
        found = high_bit_depth(self._deep, self.files, len(self.files))
        if found is not None:
            found.check()
            warnings.warn(str(found), stacklevel=2)

    def _given(self, way: Translator) -> Iterator[tuple[int, Tensor]]:
        """Yields the pictures to translate (n, C, H, W), those of one size together, and the first's number."""
        waiting: list[NDArray[Any]] = []
        shape, most = (0, 0, 0), 0
        for number, file in enumerate(self.files):
            pixels = self._read(number, file, way)
            if waiting and (pixels.shape != shape or len(waiting) >= most):
                yield number - len(waiting), _stacked(waiting, way)
                waiting = []
            if not waiting:
                shape, most = pixels.shape, way.at_once(pixels.shape)
            waiting.append(pixels)
        yield len(self.files) - len(waiting), _stacked(waiting, way)

    def _read(self, number: int, file: Path, way: Translator) -> NDArray[Any]:
        """One picture that the translation takes: (C, H, W), grey ones with one channel."""
        if not file.is_file():
            raise UserError(f"{file}: is no file; remove it")
        channels, form = way.given.channels, way.form
        if form.range is not None:
            wanted = attrs.evolve(form, dtype=cast("DataType", way.given.dtype), clip=True)
            return decode_values(file, None, channels, wanted).pixels
        taken = None if channels in (1, 3) else channels
        decoded = decode_image(file, None, taken, None, background=form.background)
        if decoded.largest is not None:
            self._deep[number] = decoded.largest
        if len(decoded.pixels) != channels:  # with this file's name
            way.fitted(_stacked([decoded.pixels], way), str(file))
        return decoded.pixels


def _stacked(pixels: Sequence[NDArray[Any]], way: Translator) -> Tensor:
    """Pictures of one size as the translation takes them: (n, C, H, W) of its type."""
    images = torch.from_numpy(np.stack(pixels))
    if way.given.dtype == "uint16" and images.dtype == torch.uint8:
        return images.int().mul(257).to(torch.uint16)  # 255 becomes 65535
    return images


@contextmanager
def _one_ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Yields an iterator of what one of pictures yields, of which a thread makes one ahead while the body lasts."""
    with ThreadPoolExecutor(1, "ganlab-reader") as reader:

        def read_ahead() -> Iterator[T]:
            following = reader.submit(next, items, None)
            while (item := following.result()) is not None:
                following = reader.submit(next, items, None)
                yield item

        yield read_ahead()


def _translate_folder(way: Translator, given: Path, out: Path, progress: Progress) -> str:
    """Translates a folder of pictures; those below it keep their folders and names."""
    listed = list_images(given, progress)
    made = [_png(name) for name in listed.names]
    if twice := [name for name, count in Counter(map(str.casefold, made)).items() if count > 1]:
        both = [name for name, new in zip(listed.names, made, strict=True) if new.casefold() == twice[0]]
        raise UserError(f"{given}: {' and '.join(both)} would both become {_png(both[0])}; rename one of them")
    pictures, sizes = _Pictures([given / name for name in listed.names]), set()
    with whole_folder(out) as folder, ThreadPoolExecutor(1, "ganlab-writer") as writer:
        for parent in {PurePath(name).parent for name in made}:
            with raise_cannot_write(out / parent, 0):
                (folder / parent).mkdir(parents=True, exist_ok=True)

        def write(first: int, translated: NDArray[Any]) -> None:
            for number, pixels in enumerate(translated, start=first):
                encoded = encode_pixels(pixels)
                file = os.path.join(folder, made[number])
                with raise_cannot_write(out / made[number], len(encoded)), open(file, "wb") as stream:
                    stream.write(encoded)

        writing = writer.submit(write, 0, np.empty(0))
        for first, translated in pictures.translated(way, progress):
            writing.result()
            writing = writer.submit(write, first, translated)
            sizes.add((translated.shape[2], translated.shape[1]))
        writing.result()
    if listed.left_out:
        warnings.warn(
            f"{given}: left out {counted(sum(listed.left_out.values()), 'file')} that {_are(listed.left_out)} in a "
            f"supported image format: {by_ending(listed.left_out)}",
            stacklevel=2,
        )
    (width, height), *others = sorted(sizes)
    size = "of several sizes" if others else f"{width}x{height} pixels"
    return f"{counted(len(made), 'image')}, {size},"


def _are(left_out: dict[str, int]) -> str:
    return "is not" if sum(left_out.values()) == 1 else "are not"


def _translate_array(way: Translator, given: Path, out: Path, progress: Progress) -> str:
    """Translates the images of an .npz file, or what else its array `images` holds."""
    images, _ = read_npz(given, way.given.shape, way.given.dtype)
    images = way.fitted(images, str(given))
    size = way.at_once(tuple(images.shape[1:]))
    z = way.latents(len(images))
    rows = ((part, None) for part in torch.arange(len(images)).split(size))

    def made(part: Tensor, condition: object) -> Tensor:
        return way(images[part], z[part], str(given))

    write_npz(out, len(images), rows, made, lambda condition: condition, (), progress)
    return f"{counted(len(images), way.given.noun)}, {printable(tuple(images.shape[1:]))},"
