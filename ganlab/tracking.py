"""What trackers have in common: a record as numbers with names for a chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_FINITE = ("nan", "inf", "-inf")
"""How such numbers stand in records that were read from a file."""


def is_score(record: Mapping[str, Any]) -> bool:
    """Whether a record is one of `metrics.jsonl` (a value); the others are ticks."""
    return "value" in record


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """A record's numbers by name: "score/fid" of a score; "train/loss_generator" and so on, but the step, of a tick."""
    if is_score(record):
        return {f"score/{record['name']}": float(record["value"])}
    return {
        f"train/{key}": float(value)
        for key, value in record.items()
        if key != "step" and (isinstance(value, (int, float)) or value in NOT_FINITE)
    }
