"""What trackers have in common: a record as numbers with names for a chart."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ganlab.utils.errors import UserError

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


CHECKED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}')
"""A line of a .jsonl file: the record, but for its closing brace, and its checksum."""


def _cut_to_whole_lines(stream: BinaryIO) -> None:
    """Removes a last line that was cut short, so that the next one is not taken for its end."""
    end = stream.seek(0, os.SEEK_END)
    if end == 0:
        return
    stream.seek(end - 1)
    if stream.read(1) != b"\n":
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


def to_json(value: Any) -> Any:
    """Values as JSON has them: there is no NaN or infinity in it, so these become text that float() reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def record_line(record: Mapping[str, Any]) -> str:
    """A record as its line of a .jsonl file: JSON, of which the last key is the checksum of all before it."""
    text = json.dumps(to_json(record))
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file; a last line that was cut short is left out. Raises UserError for a damaged one."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    return [_record(line, f"{path}:{number}") for number, line in enumerate(lines[:-1], 1)]


def _record(line: bytes, where: str) -> dict[str, Any]:
    match = CHECKED.fullmatch(line)
    text = match[1] + b"}" if match else b""
    if match is None or zlib.crc32(text) != int(match[2], 16):
        shown = line[:60].decode(errors="replace")
        raise UserError(f"{where}: damaged, since its checksum does not hold: {shown!r}; remove the line")
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(text)
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            return record
    raise UserError(f"{where}: no record of a run, though its checksum holds; remove the line")


def best_and_final(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """For each metric its final value and its best, each with its step, and its floor where the records have one.

    A value that is not finite is never best. Scores that `ganlab eval` took afterwards do not count: their protocol
    may be another.
    """
    summary: dict[str, Any] = {}
    for record in records:
        if record.get("eval"):
            continue
        value, entry = float(record["value"]), summary.setdefault(record["name"], {})
        point = {"step": record["step"], "value": record["value"]}
        entry["final"] = point
        if "floor" in record:
            entry["floor"] = record["floor"]
        sign = {"lower": 1, "higher": -1}.get(record.get("better") or "")
        if sign and math.isfinite(value) and ("best" not in entry or sign * value < sign * entry["best"]["value"]):
            entry["best"] = point
    return summary
