"""Image files that tests write, and what an image folder makes of them."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganlab import Places
from ganlab_plugins.datasets.image_folder import ImageFolder

COUNT, HEIGHT, WIDTH = 40, 32, 48
"""Of the frames of `write_video`."""

RNG = np.random.default_rng(0)


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None) -> np.ndarray:
    pixels = noise(8, 8, 3) if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_idx(path: Path, values: np.ndarray) -> None:
    """MNIST's own format: two zero bytes, the type (8 is uint8), the number of axes, each length, the data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def built(places: Places, split: str = "train", **options: object) -> np.ndarray:
    return ImageFolder(**{"path": "set", "size": 8, **options}).build(places, split).images.numpy()  # type: ignore[arg-type]


def hwc(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)


def pictures() -> list[np.ndarray[Any, Any]]:
    """Frame i is 6 i bright, with a red left upper corner."""
    made = [np.full((HEIGHT, WIDTH, 3), 6 * index, np.uint8) for index in range(COUNT)]
    for picture in made:
        picture[:16, :16] = (255, 0, 0)
    return made


def write_video(av: Any, path: Path) -> None:
    """With key frames that are far apart, and frames that are stored in another order than they are shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30000, 1001), options={"g": "12", "bf": "2", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_dicom(
    pydicom: Any, path: Path, values: np.ndarray[Any, Any], kind: str = "MONOCHROME2", bits: int = 12, **more: Any
) -> None:
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.PhotometricInterpretation, header.Modality = kind, "CT"
    header.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        header.PlanarConfiguration = 0
    frames = values.ndim - (kind == "RGB") == 3
    header.Rows, header.Columns = values.shape[frames : frames + 2]
    if frames:
        header.NumberOfFrames = len(values)
    header.BitsAllocated, header.BitsStored, header.HighBit = 8 * values.itemsize, bits, bits - 1
    header.PixelRepresentation = int(values.dtype.kind == "i")
    header.PixelData = values.tobytes()
    for name, value in more.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
