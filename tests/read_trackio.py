"""Reads the database of the tracker trackio, in a child, by the package itself."""

from __future__ import annotations

import json
import os
from pathlib import Path


def read_trackio(variables: dict[str, str], file: str) -> None:
    os.environ.update(variables)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    names = [run.name for run in trackio.Api().runs("tiny")]
    logs, config = SQLiteStorage.get_logs("tiny", names[0]), SQLiteStorage.get_run_config("tiny", names[0])
    Path(file).write_text(json.dumps([names, logs, config]))
