"""DICOM files, the images of medicine, as an image folder's files: read by pydicom, with all bits that are stored.

Decisions:
- Black and white are 0 and the largest value of the bits that are stored (12 of 16, say), which the file says. Values
  of 32 bits, in a unit of their own, such as the Hounsfield units of CT, and signed ones have neither: `range` says
  them.
- Windows in the file are not applied: they are for a screen, and differ between files.
- Where low values are bright (MONOCHROME1) they are turned over. Colour becomes RGB.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ganlab.data.image_file import EncodedImage, Samples, UnfitImage
from ganlab.utils.errors import ComponentError, one_line

DICOM = (".dcm", ".dicom")
"""The extensions of DICOM files. Without an extension they are known by their content."""

# What pydicom raises of files that are damaged, besides what is caught where any image file is read.
_UNREADABLE = (AttributeError, TypeError, RuntimeError, NotImplementedError)

Opened = Callable[[], "Path | io.BytesIO"]


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file by its content, and not the directory of a medium."""
    try:
        if path.name == "DICOMDIR" or not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_frames(name: str, opened: Opened) -> list[EncodedImage]:
    """The images of a DICOM file, usually one; of several each is called NAME#INDEX.

    A file that cannot be read is one image, whose reading says so. Raises ComponentError without pydicom.
    """
    pydicom = _pydicom(name)
    try:
        about = pydicom.dcmread(opened(), stop_before_pixels=True, specific_tags=["NumberOfFrames"])
        count = int(about.get("NumberOfFrames") or 1)
    except (OSError, ValueError, LookupError, EOFError, pydicom.errors.InvalidDicomError, *_UNREADABLE):
        count = 1
    names = [name] if count == 1 else [f"{name}#{index}" for index in range(count)]
    return [
        EncodedImage(shown, _no_bytes, partial(_samples, opened, index, pydicom)) for index, shown in enumerate(names)
    ]


def _pydicom(name: str) -> Any:
    try:
        return importlib.import_module("pydicom")
    except ImportError:
        raise ComponentError(f"{name}: DICOM files are read by pydicom; pip install 'ganlab[dicom]'") from None


def _no_bytes() -> bytes:
    raise UnfitImage("is no picture file")


def _samples(opened: Opened, index: int, pydicom: Any) -> Samples:
    """The numbers of one image of a DICOM file."""
    try:
        header = pydicom.dcmread(opened())
        pixels = pydicom.pixels.pixel_array(header, index=index)
        kind, bits = str(header.PhotometricInterpretation), int(header.BitsStored)
        of = f"DICOM ({one_line(str(header.get('Modality') or 'no modality'), 20)})"
        if kind == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, header)
            bits = 8 * pixels.dtype.itemsize
        rescaled = pydicom.pixels.apply_modality_lut(pixels, header) if pixels.ndim == 2 else pixels
    except pydicom.errors.InvalidDicomError:
        raise ValueError("it is no DICOM file") from None
    except _UNREADABLE as error:
        raise ValueError(one_line(error)) from None
    white = 2**bits - 1 if bits <= 16 else None  # 32 bits are never all used
    values, signed = np.asarray(rescaled), bool(header.PixelRepresentation)
    is_own = values.dtype.kind == "f" and not np.array_equal(values, np.asarray(pixels))
    if pixels.ndim == 3:
        return Samples(values[:, :, :3], white, None, f"{bits}-bit colour", of)
    if is_own or signed or white is None:
        if kind == "MONOCHROME1":
            raise UnfitImage("its low values are bright and have a unit of their own; convert it to MONOCHROME2")
        words = "values in a unit of their own" if is_own else f"{bits}-bit {'signed ' if signed else ''}grey"
        return Samples(values.astype(np.float64)[:, :, None], None, None, words, of)
    values = np.asarray(pixels)
    if kind == "MONOCHROME1":
        values = white - values
    return Samples(values[:, :, None], white, None, f"{bits}-bit grey", of)
