"""The data folder (`$GANLAB_DATA`), the cache (`$GANLAB_CACHE`) and its bound, the package; paths in commands."""

from __future__ import annotations

import math
import os
import shlex
import tempfile
from pathlib import Path

import platformdirs
from attrs import frozen

from ganlab.utils.errors import UserError, quote

PACKAGE = Path(__file__).parent.parent
"""The folder of ganlab's own code; frames of a traceback outside it may be a plugin's."""


@frozen
class Places:
    """The paths of the data folder (`$GANLAB_DATA`) and the cache of what can be recomputed (`$GANLAB_CACHE`)."""

    data: Path
    cache: Path


def places() -> Places:
    """Returns the paths of the data and cache folders: `$GANLAB_DATA` and `$GANLAB_CACHE`, or in the user's cache.

    Raises UserError for a wrong `$GANLAB_CACHE_GB`, so that a command refuses it before it computes anything.
    """
    cache_bound()
    try:
        home = Path(platformdirs.user_cache_dir("ganlab"))
    except RuntimeError:
        home = Path("~")
    if not home.is_absolute():  # the user has no home folder, as in some containers; old platformdirs return "~"
        home = Path(tempfile.gettempdir()) / f"ganlab-{os.getuid()}"
    data, cache = os.environ.get("GANLAB_DATA"), os.environ.get("GANLAB_CACHE")
    return Places(expand_home(data) if data else home / "data", expand_home(cache) if cache else home / "cache")


def expand_home(path: str | Path) -> Path:
    """Expands `~` in a path; `~name` of no user stays as it is, so that the path is not found, where pathlib raises."""
    return Path(os.path.expanduser(path))


def cache_bound() -> int | None:
    """The most bytes that the cache folder may take, from `$GANLAB_CACHE_GB` in 10^9 bytes; None without a bound."""
    text = os.environ.get("GANLAB_CACHE_GB")
    if not text:
        return None
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        raise UserError(f"GANLAB_CACHE_GB = {quote(text)}: expected a number of GB above 0")
    return int(gigabytes * 1e9)


def shell_word(path: Path) -> str:
    """Writes a path so that a shell reads it as one word, in ASCII where it has bytes that are not printable text."""
    text = str(path)
    if text.isprintable():  # lone surrogates, which stand for such bytes, are not
        return shlex.quote(text)
    quoted = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\\\" else f"\\x{byte:02x}" for byte in os.fsencode(text)
    )
    return f"$'{''.join(quoted)}'"
