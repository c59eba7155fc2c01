"""Video files as an image folder's files: each frame is an image, read by PyAV (FFmpeg).

Decisions:
- The times of all frames are read first, without decoding. A frame is then found by its time: from the key frame
  before it, or from the frame that was read last by the same thread, so that neighbours cost one decoding each. Where
  a container has no times (AVI), all frames are decoded once to count them, and each is found from the first.
- Frames are upright and have 8 bits a colour. Which pixels FFmpeg makes of them may depend on its version.
- Only containers in files are opened: FFmpeg also knows lists that name other files and addresses.
- A video in a zip file is read into memory whole, once for all threads: packed bytes cannot be opened in their middle.
"""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, frozen

from ganlab.data.image_file import EncodedImage, Samples, UnfitImage
from ganlab.utils.errors import ComponentError, one_line

VIDEO = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
"""The extensions of video files."""

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg"
"""What FFmpeg may take a video file for."""

NEAR = 64
"""How many frames forward are decoded rather than looked for from a key frame."""


@frozen
class Video:
    """A video file, its number of frames, and the time of each in the unit of its stream; none if it has no times.

    `source` is its path, or opens its content in memory, which may raise OSError.
    """

    source: Path | Callable[[], io.BytesIO]
    count: int
    times: tuple[int, ...]


@define
class _Position:
    """What a thread has open of a video: its decoded frames from here on, the first of which is number `index`."""

    video: Video
    container: Any
    frames: Iterator[Any]
    index: int


_opened = threading.local()


def video_frames(source: Path | Callable[[], io.BytesIO], name: str, step: int) -> list[EncodedImage]:
    """Every `step`-th frame of a video file, each called NAME#INDEX.

    `source` is the file's path, or opens its content in memory. A file that cannot be read is one image, whose reading
    says so. Raises ComponentError without PyAV.
    """
    try:
        av = importlib.import_module("av")
    except ImportError:
        raise ComponentError(f"{name}: videos are read by PyAV; pip install 'ganlab[video]'") from None
    try:
        video = _looked_at(av, source)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        why = "there is no video in it" if type(error) is IndexError else one_line(error)
        return [EncodedImage(name, _no_bytes, partial(_refuse, why))]
    if not video.count:
        return [EncodedImage(name, _no_bytes, partial(_refuse, "there is no frame in it"))]
    return [
        EncodedImage(f"{name}#{index}", _no_bytes, partial(_samples, av, video, index))
        for index in range(0, video.count, step)
    ]


def _looked_at(av: Any, source: Path | Callable[[], io.BytesIO]) -> Video:
    """A video's number of frames and their times. Raises what PyAV raises; IndexError where there is no video."""
    with _open(av, source) as container:
        stream = container.streams.video[0]
        # Packets that an edit list leaves out, as trimming does, are decoded and not shown.
        times = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if None not in times and len(set(times)) == len(times):
            return Video(source, len(times), tuple(sorted(times)))
    with _open(av, source) as container:
        return Video(source, sum(1 for _ in container.decode(container.streams.video[0])), ())


def _open(av: Any, source: Path | Callable[[], io.BytesIO]) -> Any:
    if isinstance(source, Path) and not source.is_file():  # a pipe would block forever
        raise OSError("there is no such file" if not source.exists() else "is not a file")
    file = str(source) if isinstance(source, Path) else source()
    return av.open(file, options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})


def _no_bytes() -> bytes:
    raise UnfitImage("is no picture file")


def _refuse(why: str) -> Samples:
    raise ValueError(why)


def _samples(av: Any, video: Video, index: int) -> Samples:
    """The numbers of one frame of a video."""
    try:
        frame, codec = _frame(av, video, index)
        pixels = frame.to_ndarray(format="rgb24")
        turned = round(frame.rotation / 90)
    except (av.FFmpegError, OSError, ValueError) as error:
        _close()
        raise ValueError(one_line(error)) from None
    return Samples(np.rot90(pixels, turned), 255, None, "8-bit colour", f"video ({codec})")


def _frame(av: Any, video: Video, index: int) -> tuple[Any, str]:
    """A decoded frame of a video, and its codec's name. Raises ValueError where the frame is missing."""
    at: _Position | None = getattr(_opened, "at", None)
    if at is None or at.video is not video or (index < at.index and not video.times):
        _close()
        container = _open(av, video.source)
        at = _opened.at = _Position(video, container, container.decode(container.streams.video[0]), 0)
    stream = at.container.streams.video[0]
    if video.times and not at.index <= index < at.index + NEAR:
        at.container.seek(video.times[index], stream=stream, backward=True)
        at.frames = at.container.decode(stream)
    number = at.index
    for frame in at.frames:
        if video.times:
            is_past = frame.pts is not None and frame.pts >= video.times[index]
            is_wanted = frame.pts == video.times[index]
        else:
            is_past = is_wanted = number == index
        number += 1
        if is_past:
            at.index = index + 1
            if is_wanted:
                return frame, stream.codec_context.name
            break
    _close()
    raise ValueError(f"frame {index} cannot be decoded")


def _close() -> None:
    """Closes the video that this thread has open."""
    at: _Position | None = getattr(_opened, "at", None)
    _opened.at = None
    if at is not None:
        at.container.close()
