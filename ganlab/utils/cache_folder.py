"""The cache folder as a whole: its entries, their removal, and the bound on its size, `$GANLAB_CACHE_GB`.

Decisions:
- An entry is the files of one key, `KIND/NAME.safetensors` or `KIND/NAME.npy` with its note and lock. The modification
  time of its note is that of its last use.
- An entry is removed only while its lock is held, so never while another process writes it. A process that reads it
  without the lock keeps what it has opened, also what it has mapped into memory, or makes the entry again.
- Over the bound the least recently used entries are removed, before something is stored and when something is used. Not
  removed are entries that this process has used, and whatever is not an entry, such as downloaded weights.
- Lock files stay: two processes could otherwise hold the lock of one entry. They are empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from ganlab.utils.files import remove_path
from ganlab.utils.paths import cache_bound, places

GB = 10**9
NOT_IN_A_FOLDER = "other"
"""The kind of what lies directly in the cache folder, such as the names for shell completion."""

_ENTRY_FILE = re.compile(r"\.?(?P<name>(?:[^.]+-)?[0-9a-f]{32})\.(?P<suffix>safetensors|npy|json|lock)(?:\..+)?")
"""The name of a file of an entry; temporary files begin with a dot and end with random letters."""


@frozen
class CacheEntry:
    """Something in the cache folder: `size` in bytes, `used` in seconds since 1970, the time of its last use.

    What cannot be recomputed, such as downloaded weights, is removed only on request.
    """

    kind: str
    name: str
    folder: Path
    files: tuple[Path, ...]
    size: int
    used: float
    recomputable: bool


def cache_entries(cache: Path) -> list[CacheEntry]:
    """Everything in the cache folder, the least recently used first; links are not followed."""
    found = [*_entries_in(cache, NOT_IN_A_FOLDER)]
    for folder in _listed(cache):
        if _is_folder(folder):
            found += _entries_in(folder, folder.name)
    return sorted(found, key=lambda entry: (entry.used, entry.kind, entry.name))


def cache_kinds(cache: Path) -> list[str]:
    """The kinds of entries that the cache folder has, or had: the names of its folders, and `NOT_IN_A_FOLDER`."""
    paths = _listed(cache)
    folders = [path.name for path in paths if _is_folder(path)]
    return folders + [NOT_IN_A_FOLDER] * (len(folders) < len(paths))


def remove_entry(entry: CacheEntry) -> bool:
    """Removes an entry from the cache folder; returns False, and leaves it, where a process holds its lock."""
    from filelock import FileLock, Timeout

    try:
        with contextlib.ExitStack() as held:
            if entry.recomputable:
                held.enter_context(FileLock(str(entry.folder / f"{entry.name}.lock"), timeout=0))
            for file in entry.files:
                with contextlib.suppress(FileNotFoundError):
                    remove_path(file)
    except (Timeout, OSError, NotImplementedError):  # NotImplementedError: the file system has no locks
        return False
    return True


def note_cache_use(path: Path) -> None:
    """Notes that this process uses the cache entry of the file `path`, and keeps the bound of the cache folder."""
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(path.with_suffix(".json"))
    make_cache_room(path, 0)


def make_cache_room(path: Path, size: int) -> None:
    """Removes the least recently used cache entries until `size` more bytes, of the file `path`, are within the bound.

    Warns once where the bound cannot be kept. Does nothing without `$GANLAB_CACHE_GB`, or outside the cache folder.
    Raises UserError where that variable is not a number above 0.
    """
    cache, bound = places().cache.resolve(), cache_bound()
    path = path.resolve()
    if not path.is_relative_to(cache):
        return
    _used.add((path.parent, path.stem))
    if bound is None:
        return
    entries = cache_entries(cache)
    total = size + sum(entry.size for entry in entries)
    for entry in entries:
        if total <= bound:
            return
        if entry.recomputable and (entry.folder, entry.name) not in _used and remove_entry(entry):
            total -= entry.size
    if total > bound and cache not in _warned_of:
        _warned_of.add(cache)
        kept = sum(entry.size for entry in entries if not entry.recomputable)
        downloads = f", nor {size_text(kept)} that cannot be recomputed" if kept else ""
        warnings.warn(
            f"{cache} takes {size_text(total)}, over GANLAB_CACHE_GB = {bound / GB:g}: what this command or another "
            f"one uses is not removed{downloads}; `ganlab cache` lists it",
            stacklevel=2,
        )


def size_text(size: int) -> str:
    """A size in bytes as text, of the cache folder or of a part of it, to three digits: "64.5 kB", "1.2 GB"."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= 0.9995 * length:  # what would be rounded to 1,000 of the next smaller unit
            return f"{size / length:.3g} {unit}"
    return f"{size} B"


def _entries_in(folder: Path, kind: str) -> Iterator[CacheEntry]:
    """The cache entries whose files lie directly in one folder; where that is the cache itself, kinds are left out."""
    files: dict[str, list[Path]] = {}
    for path in _listed(folder):
        if kind == NOT_IN_A_FOLDER and _is_folder(path):
            continue
        found = None if _is_folder(path) else _ENTRY_FILE.fullmatch(path.name)
        if found is None:
            tree = [*_tree(path)]
            used = max((status.st_mtime for status in tree), default=0.0)
            yield CacheEntry(kind, path.name, folder, (path,), sum(s.st_size for s in tree), used, recomputable=False)
        else:
            files.setdefault(found["name"], []).append(path)
    for name, paths in files.items():
        content = tuple(path for path in sorted(paths) if path.suffix != ".lock")
        tree = [status for path in content for status in _tree(path)]
        if tree:
            used = max(status.st_mtime for status in tree)
            yield CacheEntry(kind, name, folder, content, sum(s.st_size for s in tree), used, recomputable=True)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # it does not exist, may not be read, or was removed just now
        return ()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _tree(path: Path) -> Iterator[os.stat_result]:
    """The status of a path in the cache folder, and of everything below it; of links themselves."""
    with contextlib.suppress(OSError):
        if _is_folder(path):
            for inner in _listed(path):
                yield from _tree(inner)
        else:
            yield path.lstat()


def since(used: float) -> str:
    """How long ago a cache entry was last used, in words: "3 days ago"."""
    seconds = max(0.0, time.time() - used)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


_used: set[tuple[Path, str]] = set()
"""The folders and names of the cache entries that this process has used."""

_warned_of: set[Path] = set()
"""The cache folders of which a warning has said that their bound is not kept."""
