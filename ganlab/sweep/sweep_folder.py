"""The folder of a sweep: its file `sweep.json`, which lists the sweep's variants and seeds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeGuard

from ganlab.config.schema import NAME
from ganlab.run.run_folder import SWEEP_FILE
from ganlab.utils.errors import UserError, one_line


def wanted_runs(folder: Path) -> list[tuple[str, int]]:
    """Returns variant and seed of each run that `sweep.json` in a sweep folder lists.

    Raises UserError where the file cannot be read or is damaged.
    """
    file = folder / SWEEP_FILE
    anew = f"`ganlab sweep` with --out {folder} writes it anew"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged: {one_line(error)}; {anew}") from None
    seeds, variants = (table.get("seeds"), table.get("variants")) if isinstance(table, dict) else (None, None)
    if not isinstance(variants, dict) or not all(re.fullmatch(NAME, name) for name in variants):
        variants = None
    if not variants or not are_seeds(seeds):
        raise UserError(f"{file}: damaged: it holds no seeds and variants; {anew}")
    return [(variant, seed) for variant in variants for seed in seeds]


def are_seeds(seeds: object) -> TypeGuard[list[int]]:
    """Whether the seeds of a sweep folder are a list of different whole numbers from 0 to 2**63 - 1, at least one."""
    if not isinstance(seeds, list) or not seeds:
        return False
    return all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds) and len(set(seeds)) == len(seeds)
