"""Timings are of real images, under the caches that a user has: what the other tests hide from theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = {name: os.environ[name] for name in ("GANLAB_DATA", "GANLAB_CACHE") if name in os.environ}


@pytest.fixture(autouse=True)
def real_places(own_folders: None, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips where GANLAB_DATA names no folder of real images."""
    monkeypatch.delenv("GANLAB_CACHE")
    for name, folder in REAL.items():
        monkeypatch.setenv(name, folder)
