"""The cache of decoded images: decodes image files into one memory-mapped .npy file, or finds it.

Decisions:
- A cache entry's key is made of each file's folder, name and state (`file_state`), so no file is decoded to find out
  that nothing has changed. Cached pixels are used only if their hash is the one recorded when they were written.
- An entry is read without a lock, so another user's, or one on a file system that may only be read, is used. It is
  written under a lock: the pixels under a temporary name, then the note with their hash.
- The file is memory-mapped, so a data set larger than memory can be used. Whether the images are copied into memory is
  decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from PIL import Image

from ganlab import (
    ComponentError,
    EncodedImage,
    HighBitDepth,
    ImageArchive,
    ImageHalf,
    ImageSize,
    MappedImages,
    Progress,
    UnreadableImage,
    ValueForm,
    cache_lock,
    file_state,
    flush_folder,
    make_cache_room,
    no_progress,
    note_cache_use,
    one_line,
    paced,
    write_whole,
)
from ganlab_plugins.datasets._decoded_file import NAMED, Options, decode_into, stat_file

__all__ = ["NAMED", "Options", "decode_embedded", "decode_files", "decode_images", "decode_readable_files"]

# To be incremented when a file decodes to other pixels than before, or an entry's note gets another form, so that older
# cache entries are not used.
_VERSION = 4


def decode_files(
    folder: Path,
    names: Sequence[str],
    *,
    size: ImageSize,
    channels: int = 3,
    crop: int | None = None,
    half: ImageHalf | None = None,
    form: ValueForm | None = None,
    cache: Path,
    progress: Progress = no_progress,
) -> MappedImages:
    """Decodes the image files `names` (paths below `folder`) to (N, channels, H, W), or reads the cache.

    `decode_image` describes cropping, halves and resizing, and `form` type and range, uint8 by default. Without a size
    all must have the size of the first. Raises `ComponentError` that names the files which are missing, unreadable or
    decompression bombs, or that half of them hold fewer bits in 16, by their small values. What `progress` raises ends
    the decoding.
    """
    options = Options(size, channels, crop, skips=False, half=half, form=form or ValueForm())
    key = _key(folder, names, options, progress)
    return _cached(key, [folder / name for name in names], options, cache, progress)[0]


def decode_readable_files(
    folder: Path,
    names: Sequence[str],
    *,
    size: int | None,
    channels: int = 3,
    cache: Path,
    progress: Progress = no_progress,
) -> tuple[MappedImages, list[int]]:
    """Decodes image files as `decode_files`, and skips unreadable ones; also returns the indices of those in `names`.

    Raises `ComponentError` if no file is readable.
    """
    options = Options(size, channels, None, skips=True)
    key = _key(folder, names, options, progress)
    return _cached(key, [folder / name for name in names], options, cache, progress)


def decode_images(
    source: ImageArchive, options: Options, cache: Path, progress: Progress = no_progress
) -> tuple[MappedImages, list[int]]:
    """Decodes the image files of a folder or a zip file, or reads the cache: (N, C, H, W) of the form's type.

    Also returns the indices of those that were skipped. Errors are those of `decode_files`.
    """
    if source.is_zip:
        digest = hashlib.sha256(f"{_of(options)}\nzip {source.prefix}\n".encode())
        digest.update(os.fsencode(source.path.resolve()) + f"\0{file_state(stat_file(source.path))}\n".encode())
        digest.update(os.fsencode("\0".join(source.names)))
        key = digest.hexdigest()
    else:
        key = _key(source.path, list(dict.fromkeys(source.file_names)), options, progress)
        if source.frames:
            frames = os.fsencode("\0".join(source.names))
            key = hashlib.sha256(f"{key}\n".encode() + frames).hexdigest()
    return _cached(key, source.files(), options, cache, progress)


def decode_embedded(
    sources: Sequence[Path],
    about: str,
    items: Sequence[EncodedImage],
    options: Options,
    cache: Path,
    progress: Progress = no_progress,
) -> MappedImages:
    """Decodes images that are stored inside other files, such as Parquet tables, as `decode_files` does.

    The cache key is made of the names and states (`file_state`) of those files, `sources`, and of `about`, which must
    identify the selection of `items` from them.
    """
    digest = hashlib.sha256(f"{_of(options)}\n{about}\n".encode())
    for source in sources:
        digest.update(os.fsencode(source.resolve()) + f"\0{file_state(stat_file(source))}\n".encode())
    return _cached(digest.hexdigest(), items, options, cache, progress)[0]


def _of(options: Options) -> str:
    """The part of a decoded cache's key that the options are."""
    skips = " skips" if options.skips else ""
    half = "" if options.half is None else f" {options.half}"
    form = "" if options.form == ValueForm() else f" {options.form}"
    return f"{_VERSION} {options.size} {options.channels} {options.crop}{skips}{half}{form}"


def _key(folder: Path, names: Sequence[str], options: Options, progress: Progress) -> str:
    """The cache key of decoded files: a hash of the options and of each file's name and state."""
    digest, report = hashlib.sha256(f"{_of(options)}\n".encode()), paced(progress)
    digest.update(os.fsencode(folder.resolve()) + b"\0")
    for done, name in enumerate(names):
        try:
            state = file_state(stat_file(folder / name))
        except UnreadableImage:
            state = "none"  # it is named when it is decoded, with all others
        digest.update(os.fsencode(name) + f"\0{state}\n".encode())
        report("image files looked at", done, len(names))
    return digest.hexdigest()


def _cached(
    digest: str, files: Sequence[Path | EncodedImage], options: Options, cache: Path, progress: Progress
) -> tuple[MappedImages, list[int]]:
    """The decoded images under a cache key, decoded now if not cached, and the indices of the skipped files."""
    path = cache / "decoded" / f"{digest[:32]}.npy"
    entry = _read_entry(path, digest, progress)
    if entry is None:
        with cache_lock(path, progress) as problem:
            entry = _read_entry(path, digest, progress)  # another process may have written it meanwhile
            if entry is None:
                try:
                    entry = _make_entry(path, digest, files, options, progress, is_alone=problem is None)
                except OSError as error:
                    cause = one_line(error.strerror or error)
                    raise ComponentError(
                        f"cannot cache decoded images in {path.parent} ({cause}); set GANLAB_CACHE to a folder with "
                        "room that can be written to"
                    ) from error
    note_cache_use(path)
    images, skipped, deep = entry
    if deep is not None:
        warnings.warn(str(deep), stacklevel=4)
    return images, skipped


_Entry = tuple[MappedImages, list[int], HighBitDepth | None]


def _make_entry(
    path: Path,
    digest: str,
    files: Sequence[Path | EncodedImage],
    options: Options,
    progress: Progress,
    is_alone: bool,
) -> _Entry:
    """Decodes files into a new entry of the cache of decoded images; `is_alone`: its lock is held."""
    if is_alone:
        for leftover in path.parent.glob(f".{path.stem}.*"):  # of killed processes
            leftover.unlink()
    skipped, deep = _write(path, files, options, progress)
    images = MappedImages.open(path)
    found: dict[str, Any] = {"skipped": skipped, "deep": None if deep is None else _noted(deep)}
    note = {
        "key": digest,
        "fingerprint": images.fingerprint_with(progress),
        "found": found,
        "found_sha256": _hash_of(found),
    }
    write_whole(path.with_suffix(".json"), json.dumps(note))
    return images, skipped, deep


def _noted(deep: HighBitDepth) -> dict[str, Any]:
    """What is noted of files with 16 bits in the cache of decoded images, as older versions do."""
    return {name: value for name, value in attrs.asdict(deep).items() if name != "kept" or value}


def _hash_of(found: object) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _read_entry(path: Path, digest: str, progress: Progress) -> _Entry | None:
    """A valid entry of the cache of decoded images, or None if there is none under this key or it is damaged."""
    try:
        note = json.loads(path.with_suffix(".json").read_bytes())
        if not isinstance(note, dict) or note.get("key") != digest:
            return None
        # Labels depend on which files were skipped, so that is verified too.
        found = note.get("found")
        if note.get("found_sha256") != _hash_of(found) or not isinstance(found, dict):
            return None
        images = MappedImages.open(path)
    except (OSError, ValueError, RecursionError):
        return None
    if note.get("fingerprint") != images.fingerprint_with(progress):
        return None
    return images, found["skipped"], None if found["deep"] is None else HighBitDepth(**found["deep"])


def _write(
    path: Path, files: Sequence[Path | EncodedImage], options: Options, progress: Progress
) -> tuple[list[int], HighBitDepth | None]:
    """Decodes image files into a cached .npy file, renamed into place once complete; returns what was found."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            found = decode_into(descriptor, files, options, progress, partial(make_cache_room, path))
        os.fsync(descriptor)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        os.close(descriptor)
        Path(temporary).unlink(missing_ok=True)
    return found
