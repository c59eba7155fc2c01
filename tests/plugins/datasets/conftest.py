"""Folders for the data sets' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganlab import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "data" / "set").mkdir(parents=True)
    return Places(tmp_path / "data", tmp_path / "cache")


@pytest.fixture
def folder(places: Places) -> Path:
    return places.data / "set"
