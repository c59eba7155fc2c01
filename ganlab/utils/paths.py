"""Where files lie that are no run's: the data folder and the cache folder, and the package itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs
from attrs import frozen

PACKAGE = Path(__file__).parent.parent
"""The folder of ganlab's own code, by which a traceback's lines are told from a plugin's."""


@frozen
class Places:
    """Where data sets lie (`$GANLAB_DATA`) and where what can be made again is kept (`$GANLAB_CACHE`)."""

    data: Path
    cache: Path


def places() -> Places:
    """`$GANLAB_DATA` and `$GANLAB_CACHE`, else folders in the user's cache folder."""
    try:
        home = Path(platformdirs.user_cache_dir("ganlab"))
    except RuntimeError:
        home = Path("~")
    if not home.is_absolute():  # a user without a home, as in some containers; earlier platformdirs just say "~"
        home = Path(tempfile.gettempdir()) / f"ganlab-{os.getuid()}"
    data, cache = os.environ.get("GANLAB_DATA"), os.environ.get("GANLAB_CACHE")
    return Places(
        Path(data).expanduser() if data else home / "data", Path(cache).expanduser() if cache else home / "cache"
    )
