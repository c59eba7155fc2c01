"""DICOM files, the images of medicine, as an image folder's files: read by pydicom, with all bits that are stored.

Decisions:
- Black and white are 0 and the largest value of the bits that are stored (12 of 16, say), which the file says. Values
  of 32 bits, in a unit of their own, such as the Hounsfield units of CT, and signed ones have neither: `range` says
  them.
- The modality transform is applied: a lookup table, or rescale slope and intercept, of a file with functional groups
  those of each frame. Values are in a unit of their own if there is one other than slope 1 and intercept 0, which the
  file says, so that images of one kind are alike whatever their values.
- Windows in the file are not applied: they are for a screen, and differ between files.
- Where low values are bright (MONOCHROME1) they are turned over. Colour becomes RGB.
- Of a file with several frames a thread keeps the last open, with its header: a frame costs the reading of its own
  bytes. A deflated one has to be read whole, and is kept so.
"""

from __future__ import annotations

import importlib
import io
import struct
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from attrs import define, frozen
from numpy.typing import NDArray

from ganlab.data.image_file import EncodedImage, Samples, UnfitImage
from ganlab.utils.errors import ComponentError, one_line

DICOM = (".dcm", ".dicom")
"""The extensions of DICOM files. Without an extension, or with a UID for a name, they are known by their content."""

HEAD = 132
"""Bytes that a file is known for a DICOM file by: 128 of any content, and DICM."""

# What pydicom raises of files that are damaged, besides what is caught where any image file is read.
_UNREADABLE = (AttributeError, TypeError, RuntimeError, NotImplementedError)
_CUT_OFF = (struct.error, zlib.error)  # of elements of the header, and of deflated files


def may_be_dicom(ending: str) -> bool:
    """Whether the content of a file with this ending says if it is a DICOM file: it has none, or is named by a UID."""
    number = ending.removeprefix(".")
    return not number or number.isdecimal()


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file by its content, and not the directory of a medium."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return is_dicom_head(path.name, stream.read(HEAD))
    except OSError:
        return False


def is_dicom_head(name: str, head: bytes) -> bool:
    """Whether a file of this name that begins with these `HEAD` bytes is as `is_dicom` says."""
    return head[HEAD - 4 : HEAD] == b"DICM" and name.rpartition("/")[2] != "DICOMDIR"


@frozen(eq=False)
class _Source:
    """A DICOM file, its path or what opens its content in memory, which may raise OSError; its number of frames."""

    file: Path | Callable[[], io.BytesIO]
    count: int


@define
class _Position:
    """What a thread has open of a DICOM file: its header, and where in the stream the pixels' element begins.

    `begin` is None where the header has the pixels too.
    """

    source: _Source
    stream: BinaryIO
    header: Any = None
    begin: int | None = None


_opened = threading.local()


def dicom_frames(source: Path | Callable[[], io.BytesIO], name: str) -> list[EncodedImage]:
    """The images of a DICOM file, usually one; of several each is called NAME#INDEX.

    `source` is the file's path, or opens its content in memory. A file that cannot be read is one image, whose reading
    says so. Raises ComponentError without pydicom.
    """
    pydicom = _pydicom(name)
    damaged = pydicom.errors.BytesLengthException, pydicom.errors.InvalidDicomError, *_CUT_OFF
    try:
        with _open(source) as stream:
            about = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
        count = max(1, int(about.get("NumberOfFrames") or 1))
    except (OSError, ValueError, LookupError, EOFError, *damaged, *_UNREADABLE):
        count = 1
    names = [name] if count == 1 else [f"{name}#{index}" for index in range(count)]
    file = _Source(source, count)
    return [
        EncodedImage(shown, _no_bytes, partial(_samples, file, index, pydicom)) for index, shown in enumerate(names)
    ]


def _pydicom(name: str) -> Any:
    try:
        return importlib.import_module("pydicom")
    except ImportError:
        raise ComponentError(f"{name}: DICOM files are read by pydicom; pip install 'ganlab[dicom]'") from None


def _no_bytes() -> bytes:
    raise UnfitImage("is no picture file")


def _open(source: Path | Callable[[], io.BytesIO]) -> BinaryIO:
    """The content of a DICOM file. Raises OSError."""
    if not isinstance(source, Path):
        return source()
    if not source.is_file():  # a pipe would block forever
        raise OSError("there is no such file" if not source.exists() else "is not a file")
    return source.open("rb")


def _samples(source: _Source, index: int, pydicom: Any) -> Samples:
    """The numbers (H, W, n) of one image of a DICOM file. Raises OSError, ValueError and UnfitImage."""
    is_kept = False
    try:
        samples = _frame(_position(source, pydicom), index, pydicom)
        is_kept = index + 1 < source.count
    except pydicom.errors.InvalidDicomError:
        raise ValueError("it is no DICOM file") from None
    except (pydicom.errors.BytesLengthException, *_CUT_OFF) as error:
        raise ValueError(f"it is damaged or cut off: {one_line(error)}") from None
    except _UNREADABLE as error:
        raise ValueError(one_line(error)) from None
    finally:
        if not is_kept:
            _close()
    return samples


def _position(source: _Source, pydicom: Any) -> _Position:
    """A DICOM file, as this thread has it open, or opened now. Raises OSError and what pydicom raises."""
    at: _Position | None = getattr(_opened, "at", None)
    if at is not None and at.source is source:
        return at
    _close()
    stream = _open(source.file)
    at = _opened.at = _Position(source, stream)  # from here on it is closed, whatever is raised
    at.header = pydicom.dcmread(stream, stop_before_pixels=True)
    at.begin = stream.tell()
    if "TransferSyntaxUID" not in at.header.file_meta:
        raise ValueError("its header does not say how its pixels are encoded, or is cut off")
    if at.header.file_meta.TransferSyntaxUID.is_deflated:  # what follows the header is not in this stream
        stream.seek(0)
        at.header, at.begin = pydicom.dcmread(stream), None
    return at


def _close() -> None:
    """Closes the DICOM file that this thread has open."""
    at: _Position | None = getattr(_opened, "at", None)
    _opened.at = None
    if at is not None:
        at.stream.close()


def _frame(at: _Position, index: int, pydicom: Any) -> Samples:
    """The numbers (H, W, n) of one image of an open DICOM file. Raises what pydicom raises, and UnfitImage."""
    header, pixels = at.header, _stored(at, index, pydicom)
    kind, bits = str(header.PhotometricInterpretation), int(header.BitsStored)
    of = f"DICOM ({one_line(str(header.get('Modality') or 'no modality'), 20)})"
    if kind == "PALETTE COLOR":
        pixels = pydicom.pixels.apply_color_lut(pixels, header)
        bits = 8 * pixels.dtype.itemsize
    white = 2**bits - 1 if bits <= 16 else None  # 32 bits are never all used
    if pixels.ndim == 3:
        return Samples(pixels[:, :, :3], white, None, f"{bits}-bit colour", of)
    own = _in_own_unit(pixels, header, index, pydicom)
    signed = bool(header.PixelRepresentation)
    if own is not None or signed or white is None:
        if kind == "MONOCHROME1":
            raise UnfitImage("its low values are bright and have a unit of their own; convert it to MONOCHROME2")
        words = f"{bits}-bit {'signed ' if signed else ''}grey" if own is None else "values in a unit of their own"
        values = pixels if own is None else own
        return Samples(values.astype(np.float64)[:, :, None], None, None, words, of)
    if kind == "MONOCHROME1":
        pixels = white - pixels
    return Samples(pixels[:, :, None], white, None, f"{bits}-bit grey", of)


def _stored(at: _Position, index: int, pydicom: Any) -> NDArray[Any]:
    """The stored values of one image of an open DICOM file, (H, W), or (H, W, 3) as RGB."""
    if at.begin is None:
        return np.asarray(pydicom.pixels.pixel_array(at.header, index=index))
    syntax = at.header.file_meta.TransferSyntaxUID
    decoder = pydicom.pixels.get_decoder(syntax)
    at.stream.seek(at.begin)
    # The header of the pixels' element, as DICOM's part 5 has it (7.1.2): tag, type of value, length.
    head = at.stream.read(8 if syntax.is_implicit_VR else 12)
    if len(head) < 8:
        raise ValueError("there are no pixels in it, or it is cut off before them")
    if struct.unpack(f"{'<' if syntax.is_little_endian else '>'}HH", head[:4]) != (0x7FE0, 0x0010):
        raise UnfitImage("its pixels are floating-point numbers, which are not read; convert it")
    options = {"transfer_syntax_uid": syntax, "pixel_keyword": "PixelData"}
    if not syntax.is_implicit_VR:
        options["pixel_vr"] = head[4:6].decode("latin-1")
    options = pydicom.pixels.as_pixel_options(at.header, **options)
    return np.asarray(decoder.as_array(at.stream, index=index, **options)[0])


def _in_own_unit(pixels: NDArray[Any], header: Any, index: int, pydicom: Any) -> NDArray[Any] | None:
    """Stored values (H, W) after the modality transform; None where there is none, or slope 1 and intercept 0."""
    if header.get("ModalityLUTSequence"):
        # pydicom looks values up in the type that they have, in which the table's limits may have no place.
        return np.asarray(pydicom.pixels.apply_modality_lut(pixels.astype(np.int64), header))
    transform, frames = header, header.get("PerFrameFunctionalGroupsSequence")
    if frames and index >= len(frames):
        raise ValueError(f"it has functional groups for {len(frames)} frames, and none for frame {index}")
    groups = [*([frames[index]] if frames else []), *(header.get("SharedFunctionalGroupsSequence") or [])]
    for found in (group.get("PixelValueTransformationSequence") for group in groups):
        if found:
            transform = found[0]
            break
    slope, intercept = transform.get("RescaleSlope"), transform.get("RescaleIntercept")
    if slope in (None, 1) and intercept in (None, 0):
        return None
    if slope is None or intercept is None:
        raise UnfitImage("has a rescale slope without an intercept, or an intercept without a slope; add the other")
    return pixels.astype(np.float64) * float(slope) + float(intercept)
