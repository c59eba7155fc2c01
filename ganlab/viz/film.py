"""Films: images one after the other as an .mp4, .webp or .gif file, or a folder of PNG files, of exact length.

Decisions:
- Small images are enlarged by a whole factor, without smoothing: a player would smooth pixels that are to be seen. The
  PNG files of a folder have the images' own size and type.
- A file has a duration for each frame in its own unit, which frames a second seldom are a multiple of: 1/100 s in GIF,
  1/1000 s in WebP. Ends of frames are rounded, not durations, so that the errors do not add up. Both forms may keep
  equal frames as one that lasts longer.
- Transparency is laid on white, which all players show alike.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
import math
import numbers
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import torch
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ganlab.utils.errors import UserError, did_you_mean, printable, quote
from ganlab.utils.files import check_parents, raise_cannot_write, whole_file, whole_folder
from ganlab.utils.from_python import from_python
from ganlab.utils.progress import Progress, no_progress
from ganlab.viz.data_picture import Limits, as_pixels
from ganlab.viz.image_grid import PNG_CHANNELS, encode_pixels

ENDINGS = (".mp4", ".webp", ".gif")
"""The endings of files that films are written to; a folder has none."""

FASTEST = {".mp4": 240, ".webp": 240, ".gif": 50, "": 240}
"""The most frames a second of a film; browsers show a GIF slowly whose frames last less than 1/50 s."""

SMALLEST = 128
"""The longer side in pixels to which smaller images of a film are enlarged at least."""

MOST_FRAMES = 1_000_000

Batches = Iterable[Tensor]
"""Images of the data's type (n, C, H, W), or signals (n, C, T), in the order of a film's frames."""


def check_film(path: Path, frames: int, fps: float) -> None:
    """Raises UserError where no film of this many frames can be written to `path`."""
    if path.suffix not in ENDINGS and path.suffix and not path.is_dir():
        near = did_you_mean(path.suffix, ENDINGS)
        raise UserError(f"--out {path}: expected FILE.mp4, FILE.webp, FILE.gif or a folder without a suffix{near}")
    if path.suffix in ENDINGS and path.is_dir():
        raise UserError(f"--out {path}: is a folder; expected a file, or a folder without a suffix")
    if path.suffix == "" and path.is_file():
        raise UserError(f"--out {path}: is a file; expected FILE.mp4, FILE.webp, FILE.gif or a folder")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"--out {path}: a folder that is not empty; choose another")
    check_parents("--out", path)
    check_length(frames, fps, path.suffix)
    if path.suffix == ".mp4" and importlib.util.find_spec("av") is None:
        raise UserError(f"--out {path}: needs av: pip install 'ganlab[video]'; .webp and .gif files need nothing")


def check_length(frames: int, fps: float, ending: str = "") -> None:
    """Raises UserError for a number of frames, or of frames a second, that no film of this ending has."""
    most = FASTEST.get(ending, FASTEST[""])
    if isinstance(fps, bool) or not isinstance(fps, numbers.Real):
        raise UserError(f"--fps {quote(fps)}: expected a number")
    if not 0.1 <= fps <= most:
        raise UserError(f"--fps {fps:g}: expected 0.1 to {most} frames a second{' of a GIF' if most == 50 else ''}")
    if not 1 <= frames <= MOST_FRAMES:
        raise UserError(f"--frames {frames}: expected 1 to {MOST_FRAMES:,}")


def write_film(
    batches: Batches,
    path: Path,
    frames: int,
    fps: float = 30.0,
    limits: Limits = None,
    progress: Progress = no_progress,
) -> None:
    """Writes a film of `frames` images to a file or a folder, whole or not at all.

    batches: images in the type of the data; `limits` are the lowest and highest value of float32 data. fps: frames a
    second. GIF and WebP files begin again where they end. Raises UserError as `check_film` does, and CannotWrite.
    """
    check_film(path, frames, fps)
    if path.suffix not in ENDINGS:
        _write_folder(batches, path, frames, limits, progress)
        return
    with whole_file(path, 0) as stream:
        _encode(_counted(_pictures(batches, limits), frames, progress), stream, path.suffix, frames, fps)


@frozen
class Film:
    """A film in memory: `frames` are its images (N, C, H, W), of the type of the data, shown at `fps` a second.

    A notebook shows it as WebP; `save` writes .mp4, .webp or .gif files or a folder of PNG files.
    """

    frames: Tensor = field(repr=lambda frames: f"{frames.dtype} {tuple(frames.shape)}")
    fps: float = 30.0
    limits: Limits = None

    @from_python
    def save(self, path: str | Path) -> None:
        """Writes a film to a file, in the form of its ending, or to a folder. Raises UserError for another ending."""
        write_film(self.frames.split(128), Path(path), len(self.frames), self.fps, self.limits)

    def _repr_html_(self) -> str:
        stream = io.BytesIO()
        _encode(_pictures(self.frames.split(128), self.limits), stream, ".webp", len(self.frames), self.fps)
        return f'<img alt="film" src="data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def _encode(pictures: Iterator[NDArray[Any]], stream: Any, ending: str, frames: int, fps: float) -> None:
    """Writes a film's pictures, uint8 (H, W, 1 or 3), to a stream in the form of this ending."""
    if ending == ".mp4":
        _write_mp4(pictures, stream, fps)
        return
    unit = 10 if ending == ".gif" else 1  # milliseconds
    options: dict[str, Any] = {"loop": 0, "duration": _durations(frames, fps, unit), "save_all": True}
    if ending == ".webp":
        options |= {"method": 0}
    images = (Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels) for pixels in pictures)
    first = next(images)
    if ending == ".webp":
        # Enlarged pixels are sharp squares, small without loss; quality then is the time that is spent, from 0 to 100.
        small = max(first.size) < 2 * SMALLEST
        options |= {"lossless": True, "quality": 0} if small else {"quality": 90}
    try:
        first.save(stream, ending[1:].upper(), append_images=images, **options)
    except struct.error:  # Pillow joins equal frames, and a GIF file counts hundredths of a second up to 65,535
        raise UserError("a GIF file cannot hold equal frames of more than 655 s together; use .webp or .mp4") from None


def _durations(frames: int, fps: float, unit: int) -> list[int]:
    """How long each frame of a film lasts, in milliseconds: multiples of `unit` whose sum is nearest to the length."""
    ends = [round(index * 1000 / fps / unit) * unit for index in range(frames + 1)]
    return [after - before for before, after in itertools.pairwise(ends)]


def _write_mp4(pictures: Iterator[NDArray[Any]], stream: BinaryIO, fps: float) -> None:
    """Writes a film's pictures as H.264 with even sides, which players want: the last row and column are repeated."""
    import av

    with av.open(stream, "w", format="mp4") as container:
        video: Any = None
        for pixels in pictures:
            height, width = (side + side % 2 for side in pixels.shape[:2])
            if video is None:
                video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                video.width, video.height, video.pix_fmt = width, height, "yuv420p"
                video.options = {"crf": "16", "preset": "veryfast"}
            rows = torch.arange(height).clamp(max=pixels.shape[0] - 1).numpy()
            columns = torch.arange(width).clamp(max=pixels.shape[1] - 1).numpy()
            even = pixels[rows][:, columns].repeat(3 // pixels.shape[2], axis=2)
            container.mux(video.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(video.encode())


def _write_folder(batches: Batches, path: Path, frames: int, limits: Limits, progress: Progress) -> None:
    """Writes a film's images as PNG files, by their numbers, of their own size."""
    digits = max(5, len(str(frames - 1)))
    done = 0
    with whole_folder(path) as folder, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:

        def write(index: int, pixels: NDArray[Any]) -> None:
            data = encode_pixels(pixels)
            file = folder / f"{index:0{digits}}.png"
            with raise_cannot_write(path / file.name, len(data)):
                file.write_bytes(data)

        for batch in batches:
            own = batch.dtype == torch.uint8 or (batch.dtype == torch.uint16 and batch.shape[1] == 1)
            images = _drawable(batch.cpu() if own and batch.ndim == 4 else as_pixels(batch.cpu(), limits))
            pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
            list(pool.map(write, range(done, done + len(pixels)), pixels))
            done += len(pixels)
            progress("frames", done, frames)


def _counted(pictures: Iterator[NDArray[Any]], frames: int, progress: Progress) -> Iterator[NDArray[Any]]:
    """A film's pictures, which report how many there were."""
    for done, picture in enumerate(pictures):
        progress("frames", done, frames)
        yield picture


def _pictures(batches: Batches, limits: Limits) -> Iterator[NDArray[Any]]:
    """Yields the frames of a film as uint8 (H, W, 1 or 3), enlarged if they are small, without opacity."""
    for batch in batches:
        images = _drawable(as_pixels(batch.cpu(), limits))
        if images.shape[1] == 4:
            colour, opacity = images[:, :3].float(), images[:, 3:].float() / 255
            images = (colour * opacity + 255 * (1 - opacity)).round().to(torch.uint8)
        factor = max(1, math.ceil(SMALLEST / max(images.shape[2:])))
        images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        yield from images.permute(0, 2, 3, 1).contiguous().numpy()


def _drawable(images: Tensor) -> Tensor:
    """The images of a film as PNG files have them: of other numbers of channels these side by side, in grey."""
    return images if images.shape[1] in PNG_CHANNELS else images.movedim(1, 2).flatten(2)[:, None]


def said(path: Path, frames: int, fps: float) -> str:
    """What a film is, in words, as in "600 frames, 20 s: walk.mp4"."""
    length = "" if path.suffix not in ENDINGS else f", {frames / fps:.4g} s"
    return printable(f"{frames:,} frame{'' if frames == 1 else 's'}{length}: {path}")
