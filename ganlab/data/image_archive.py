"""Where image files lie: below a folder, or in a zip file, which is read as it is and never unpacked.

Decisions:
- What an image in a zip file is called, and which class it has, is as if the file were unpacked; a single folder that
  holds all the rest, as archives have, is no class. What macOS adds (`__MACOSX`) and hidden files are left out.
- Members without an extension are looked into as files are: they are opened, and read as far as a header goes.
- The files of both kinds are opened by `decode_image` and `decode_values` in the same way.
- A file with several images, a video or a DICOM file, is as many images as it has frames, called FILE#INDEX.
"""

from __future__ import annotations

import io
import lzma
import os
import threading
import warnings
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import define, evolve, field, frozen
from PIL import Image

from ganlab.data.dicom import DICOM, HEAD, dicom_frames, is_dicom, is_dicom_head, may_be_dicom
from ganlab.data.image_file import EncodedImage, UnreadableImage, image_extensions, image_formats, naming_image
from ganlab.data.list_images import NO_ENDING, OTHERS, chosen_kind, list_images, no_images, other_kind
from ganlab.data.video import VIDEO, video_frames
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.progress import Progress, paced

LARGEST = 2**31
"""Bytes of a member of a zip file, unpacked, above which it is not read: a picture is smaller, a bomb is not."""

# What zipfile and the decompressors that it uses raise for members that are damaged, encrypted or of an unknown method,
# or whose names are flagged as UTF-8 and are not.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError),
)


@frozen
class ImageArchive:
    """Image files below a folder or in a zip file: their sorted relative POSIX paths, and how many others there are.

    `left_out` counts files that are no images by the endings of their names. `prefix` is the folder in the zip file
    that holds all, with a slash; "" without. `frames` are the images that are no picture files, by their names, and
    `holders` the files of those that are in a file with several.
    """

    path: Path
    names: Sequence[str] = field(repr=False)
    left_out: Mapping[str, int]
    prefix: str = ""
    _zip: zipfile.ZipFile | None = None
    frames: Mapping[str, EncodedImage] = field(factory=dict, repr=False)
    holders: Mapping[str, str] = field(factory=dict, repr=False)
    _members: Mapping[str, str] = field(factory=dict, repr=False)  # of the zip file: their own names by ours

    @property
    def is_zip(self) -> bool:
        """Whether the image files are in a zip file."""
        return self._zip is not None

    def files(self) -> list[Path | EncodedImage]:
        """What each of the image files is read by."""
        return [self.frames.get(name) or self._file(name) for name in self.names]

    @property
    def file_names(self) -> list[str]:
        """For each image file the name of the file that it is in: its own, or that of the file with several."""
        return [self.holders.get(name, name) for name in self.names]

    def _file(self, name: str) -> Path | EncodedImage:
        if self._zip is None:
            return self.path / name
        return EncodedImage(f"{self.path}/{name}", partial(_read, self._zip, self._member(name)))

    def _member(self, name: str) -> str:
        """What the zip file itself calls a member. Raises KeyError where it has none of that name."""
        return self._members[self.prefix + name]

    def _source(self, name: str) -> Path | _InMemory:
        """What a file with frames is opened by."""
        return self.path / name if self._zip is None else _InMemory(self._zip, self._member(name))

    def _is_dicom(self, name: str) -> bool:
        """Whether a file is a DICOM file by its name, or, where that does not say it, by its content."""
        ending = os.path.splitext(name)[1].lower()
        if ending in DICOM or not may_be_dicom(ending):
            return ending in DICOM
        return is_dicom(self.path / name) if self._zip is None else _is_dicom(self._zip, self._member(name))

    def with_frames(self, step: int, progress: Progress) -> ImageArchive:
        """The images of videos and DICOM files, every `step`-th of those with several, in the place of the files.

        Raises ComponentError where the package that reads them is not installed.
        """
        frames: dict[str, EncodedImage] = {}
        holders: dict[str, str] = {}
        names: list[str] = []
        report = paced(progress)
        for done, name in enumerate(self.names):
            ending = os.path.splitext(name)[1].lower()
            found, shown = [], str(self.path / name)
            if ending in VIDEO:
                found = video_frames(self._source(name), shown, step)
            elif self._is_dicom(name):
                found = dicom_frames(self._source(name), shown)[::step]
            own = {name + frame.name.removeprefix(shown): frame for frame in found}
            frames |= own
            holders |= {frame: name for frame in own if frame != name}
            names += own or [name]
            report("image files opened", done, len(self.names))
        return evolve(self, names=names, frames=frames, holders=holders) if frames else self

    def read(self, name: str) -> bytes:
        """The content of any file below the image folder, or in the zip file. Raises OSError."""
        if self._zip is None:
            return (self.path / name).read_bytes()
        if not self.has(name):
            raise FileNotFoundError(2, os.strerror(2))
        return _read(self._zip, self._member(name))

    def has(self, name: str) -> bool:
        """Whether there is such a file below the image folder, or in the zip file."""
        return (self.path / name).is_file() if self._zip is None else self.prefix + name in self._members


def open_images(path: Path, progress: Progress, frame_step: int = 1) -> ImageArchive:
    """Lists the image files below a folder or in a zip file: pictures; else arrays (.npy), DICOM files or videos.

    Of files with several frames every `frame_step`-th is an image. Raises ComponentError where there are none, or if a
    folder or the file cannot be read.
    """
    if path.is_dir():
        listed = list_images(path, progress, others=True)
        return ImageArchive(path, listed.names, listed.left_out).with_frames(frame_step, progress)
    if os.path.splitext(path)[1].lower() in (*image_extensions(), *VIDEO, *DICOM):
        raise ComponentError(f"{path}: is one file; expected a folder or a zip file of images")
    try:
        opened = zipfile.ZipFile(path)
    except UnicodeDecodeError as error:
        raise ComponentError(
            f"{path}: cannot be read as a zip file: a member's name is marked as UTF-8 and is not"
        ) from error
    except (OSError, *_UNREADABLE) as error:
        raise ComponentError(f"{path}: cannot be read as a zip file ({one_line(error)})") from error
    names: list[str] = []
    others: dict[str, list[str]] = {kind: [] for kind in OTHERS}
    left_out, report = Counter[str](), paced(progress)
    members = {_unpacked_name(file.filename): file.filename for file in opened.infolist() if not file.is_dir()}
    shown = [name for name in members if not _is_hidden(name)]
    prefix = _shared_folder(shown)
    for name in shown:
        report("image files found", len(names), 0)
        ending = os.path.splitext(name)[1].lower().removesuffix(".")
        if ending in image_extensions() or (not ending and _looks_like_image(opened, members[name])):
            names.append(name.removeprefix(prefix))
        elif kind := other_kind(ending):
            others[kind].append(name.removeprefix(prefix))
        elif may_be_dicom(ending) and _is_dicom(opened, members[name]):
            others["DICOM"].append(name.removeprefix(prefix))
        else:
            left_out[ending or NO_ENDING] += 1
    names = chosen_kind(names, others, left_out)
    if not names:
        raise no_images(path, left_out)
    found = ImageArchive(path, sorted(names), dict(sorted(left_out.items())), prefix, opened, members=members)
    return found.with_frames(frame_step, progress)


@define(eq=False)
class _InMemory:
    """A file with frames in a zip file: unpacked in memory, once for all who have it open at the same time."""

    _zip: zipfile.ZipFile
    _name: str
    _lock: threading.Lock = field(factory=threading.Lock)
    _last: weakref.ReferenceType[io.BytesIO] | None = None

    def __call__(self) -> io.BytesIO:
        with self._lock:
            last = None if self._last is None else self._last()
            # Streams of the same bytes share them.
            stream = io.BytesIO(_read(self._zip, self._name) if last is None or last.closed else last.getvalue())
            self._last = weakref.ref(stream)
            return stream


def _looks_like_image(opened: zipfile.ZipFile, member: str) -> bool:
    """Whether the header of a member of a zip file is a picture's, as `looks_like_image` says of files."""
    try:
        with opened.open(member) as stream, warnings.catch_warnings(), naming_image(EncodedImage(member, bytes)):
            # Bombs are pictures, which are refused when they are decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with suppress(Image.DecompressionBombError):
                Image.open(stream, formats=image_formats()).close()
    except (OSError, UnreadableImage, *_UNREADABLE):
        return False
    return True


def _is_dicom(opened: zipfile.ZipFile, member: str) -> bool:
    """Whether a member of a zip file is a DICOM file by its content, as `is_dicom` says of files."""
    try:
        with opened.open(member) as stream:
            return is_dicom_head(member, stream.read(HEAD))
    except (OSError, *_UNREADABLE):
        return False


def _unpacked_name(member: str) -> str:
    """What a member of a zip file is called once it is unpacked: bsdtar puts ./ before its name."""
    while member.startswith("./"):
        member = member.removeprefix("./").lstrip("/")
    return member


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _shared_folder(names: Sequence[str]) -> str:
    """The folder of a zip file that holds all of its members, with a slash; "" where there is none."""
    first = names[0].partition("/") if names else ("", "", "")
    prefix = first[0] + first[1]
    return prefix if first[1] and all(name.startswith(prefix) for name in names) else ""


def _read(opened: zipfile.ZipFile, name: str) -> bytes:
    """The content of a member of a zip file. Raises OSError, whatever is wrong with it."""
    try:
        size = opened.getinfo(name).file_size
        if size > LARGEST:
            raise OSError(f"{size:,} bytes when it is unpacked; at most {LARGEST:,} are read of a zip file; unpack it")
        return opened.read(name)
    except _UNREADABLE as error:
        raise OSError(one_line(error)) from error
