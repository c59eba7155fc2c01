"""A live pickle: bytes that make a file where they are unpickled, to show that something does not unpickle them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any


class Malicious:
    """What touches a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def live_pickle(target: Path, protocol: int | None = None) -> bytes:
    """The bytes, after a proof that they do what they should."""
    content = pickle.dumps(Malicious(target), protocol)
    pickle.loads(content)  # noqa: S301 - it is our own, and must be live
    target.unlink()
    return content
