"""Sample files of `ganlab sample`: a stream of generated images is written to a folder of PNG files.

Decisions:
- Memory does not depend on the number of images: they are generated, encoded and written batch by batch.
- A picture is written under a temporary name and renamed, so that a file is whole unless the machine loses power. Only
  the folders are flushed to disk, once. `.samples.json` says what determines the images; where it is the same, pictures
  that are there are not generated again, unless their checksums do not hold.
- Batches are generated whole or not at all, so that the last bits of an image do not depend on where a command ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ganlab.protocols import labels_in, named_conditions
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import CannotWrite, UserError, quote
from ganlab.utils.files import check_room, flush_folder, raise_cannot_write, write_whole
from ganlab.viz.image_grid import encode_pixels

ABOUT = ".samples.json"
"""The file of a folder of samples that says which samples they are."""

THREADS = 4
"""Pictures are encoded by at most as many threads, and by no more than there are processors."""

LONGEST_NAME = 150
"""The most bytes of a class's name that a file name repeats."""

Inputs = Iterator[tuple[Tensor, Condition]]
"""Latents (n, latent_dim) and conditions (n,), (n, C, H, W), … or None of one batch of samples after another."""

Generate = Callable[[Tensor, Condition], Tensor]
"""Makes images (n, C, H, W), or other data, on the CPU of latents and conditions."""

Progress = Callable[[str, int, int], None]


@define
class SampleFolder:
    """A folder of sample files, NUMBER.png, or NUMBER-CLASS.png where there are classes.

    `about` holds what determines the images. `classes` are names of classes for files, one for each label. `by_class`
    puts a class's pictures into a folder of its own. `count` is the number of images.
    """

    path: Path
    about: Mapping[str, Any]
    count: int
    classes: Sequence[str] = ()
    by_class: bool = False
    _folders: set[str] = field(factory=set)

    def write(self, inputs: Inputs, generate: Generate, progress: Progress) -> int:
        """Writes a folder's sample files, and returns how many were there before.

        Raises UserError for a folder that holds anything else, or on whose disk the files will not fit, and CannotWrite
        where one cannot be written.
        """
        resumed, begun = self.is_begun(), False
        done = kept = 0
        threads = min(THREADS, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(threads)
        try:
            for z, condition in inputs:
                files = self._files(done, len(z), condition)
                missing = [*range(len(z))]
                if resumed:
                    missing = [index for index, there in enumerate(pool.map(_is_whole, files)) if not there]
                kept += len(files) - len(missing)
                if missing:
                    pixels = as_array(generate(z, condition))
                    if not begun:
                        begun = True
                        self._begin([encode_pixels(pixels[index]) for index in missing], self.count - done)
                    self._make_folders(files[index] for index in missing)
                    # Waited for, since torch's threads would take the processors from these.
                    parts = [missing[first::threads] for first in range(threads)]
                    deque(pool.map(partial(_write_pictures, pixels, files), parts), maxlen=0)
                self._folders.update(map(os.path.dirname, files))  # an interrupted command did not flush them
                done += len(files)
                if done < self.count:
                    progress("images", done, self.count)
        finally:
            pool.shutdown(cancel_futures=True)
        with raise_cannot_write(self.path, 0):
            for folder in self._folders | {str(self.path)}:
                flush_folder(Path(folder))
        return kept

    def is_begun(self) -> bool:
        """Whether the folder holds some of these sample files already; UserError where it holds anything else."""
        if not self.path.is_dir():
            return False
        with os.scandir(self.path) as entries:
            if next(entries, None) is None:
                return False
        try:
            earlier = json.loads((self.path / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            earlier = None
        if not isinstance(earlier, dict):
            raise UserError(f"--out {self.path}: a folder that is not empty; choose another")
        for key in {**self.about, **earlier}:  # also what only the earlier samples depend on, such as given latents
            was, now = earlier.get(key), self.about.get(key)
            if was != now:
                raise UserError(
                    f"--out {self.path}: holds other samples: {key} was {quote(was)}, and is {quote(now)} now; choose "
                    "another folder"
                )
        return True

    def _files(self, first: int, count: int, condition: Condition) -> list[str]:
        """The sample files of images number `first` on."""
        digits = max(5, len(str(self.count - 1)))
        names = [f"{index:0{digits}}" for index in range(first, first + count)]
        labels = labels_in(condition)
        if labels is None:
            return [os.path.join(self.path, f"{name}.png") for name in names]
        classes = [self.classes[label] for label in labels.tolist()]
        if not self.by_class:
            return [os.path.join(self.path, f"{name}-{of}.png") for name, of in zip(names, classes, strict=True)]
        return [os.path.join(self.path, of, f"{name}.png") for name, of in zip(names, classes, strict=True)]

    def _begin(self, encoded: Sequence[bytes], left: int) -> None:
        """Makes the folder, if as many sample files as are left, of the size of the first, fit on the disk."""
        whole = [-(-len(data) // _BLOCK) * _BLOCK for data in encoded]
        refuse_without_room(self.path, sum(whole) * left // len(whole), self.count, left)
        write_whole(self.path / ABOUT, json.dumps(dict(self.about), indent=2) + "\n")

    def _make_folders(self, files: Iterable[str]) -> None:
        """Makes the folders that these sample files lie in: of classes without an image there is none."""
        with raise_cannot_write(self.path, 0):
            for folder in {os.path.dirname(file) for file in files} - self._folders:
                os.makedirs(folder, exist_ok=True)
                self._folders.add(folder)


def refuse_without_room(path: Path, size: int, count: int, files: int = 1) -> None:
    """Raises UserError if `files` sample files of `size` bytes together, of `count` images, do not fit on the disk."""
    try:
        check_room(path, size, files)
    except CannotWrite as error:
        raise UserError(f"--count {count}: {error}") from None


_BLOCK = 4096
"""The bytes that file systems round the size of a file up to."""


def as_array(images: Tensor) -> NDArray[Any]:
    """Samples as files hold them: images (n, C, H, W) as (n, H, W, C), other data in their own shape."""
    array: NDArray[Any] = (images.permute(0, 2, 3, 1) if images.ndim == 4 else images).contiguous().numpy()
    return array


def _write_pictures(pixels: NDArray[Any], files: Sequence[str], which: Sequence[int]) -> None:
    """Writes some sample files of a batch."""
    for index in which:
        data = encode_pixels(pixels[index])
        folder, name = os.path.split(files[index])
        temporary = os.path.join(folder, f".{name}.part")
        with raise_cannot_write(Path(files[index]), len(data)):
            try:
                with open(temporary, "wb") as stream:
                    stream.write(data)
                os.replace(temporary, files[index])
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise


def _is_whole(file: str) -> bool:
    """Whether a sample file is there and its checksums hold."""
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def file_names_of_classes(count: int, names: Sequence[str]) -> list[str]:
    """For sample files: a text for each of `count` classes, its name as a file name can hold it, or its number.

    Where two names would be the same on some file system, each begins with the number of its class.
    """
    numbers = [f"{label:0{len(str(count - 1))}}" for label in range(count)]
    if len(names) < count:
        return numbers
    parts = [_as_file_name(name) for name in names[:count]]
    if all(parts) and len({part.casefold() for part in parts}) == count:
        return parts
    return [f"{number}-{part}" if part else number for number, part in zip(numbers, parts, strict=True)]


def _as_file_name(name: str) -> str:
    """The part of a sample's file name for a class's name: letters, digits and a few signs, the others as "_"."""
    text = re.sub(r"[^\w .+()-]", "_", name).strip(" .-")
    return text.encode()[:LONGEST_NAME].decode(errors="ignore")


def condition_record(condition: Condition) -> str | None:
    """What tells the conditions of one folder of samples from another's: the crc32 of their tensors, None for none."""
    if condition is None:
        return None
    crc = 0
    for name, tensor in named_conditions(condition, "").items():  # one alone has no name
        crc = zlib.crc32(f"{name}{tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        for part in tensor.split(4096):
            crc = zlib.crc32(part.contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
