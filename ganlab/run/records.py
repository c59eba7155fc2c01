"""Records: the lines of log.jsonl (ticks) and metrics.jsonl (scores), each with a checksum; reading and summing up."""

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
"""NaN and infinity as records hold them, since JSON has no such numbers."""

TICK_NAMES = (
    "step",
    "images_seen",
    "images_per_second",
    "seconds",
    "sample_spread",
    "alarms",
    "crc32",
)
"""What the record of every tick has, besides the means of the meters and the values of schedules."""


def is_score(record: Mapping[str, Any]) -> bool:
    """Whether a record is a score, from metrics.jsonl; the others are ticks."""
    return "value" in record


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name: "score/fid" of a score, "train/loss_generator" and so on of a tick."""
    if is_score(record):
        return {f"score/{record['name']}": float(record["value"])}
    return {
        f"train/{key}": float(value)
        for key, value in record.items()
        if key != "step" and (isinstance(value, (int, float)) or value in NOT_FINITE)
    }


CHECKED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}')
"""The line of a record in a .jsonl file: all but the closing brace, and the checksum."""


def truncate_to_whole_lines(stream: BinaryIO) -> None:
    """Removes an incomplete last line of a file of records (.jsonl), so that the next record is not appended to it."""
    end = stream.seek(0, os.SEEK_END)
    if end == 0:
        return
    stream.seek(end - 1)
    if stream.read(1) != b"\n":
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


def to_json(value: Any) -> Any:
    """A record's values as JSON can hold them: NaN and infinity become text that float() reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def record_line(record: Mapping[str, Any]) -> str:
    """The line of a .jsonl file for a record: JSON whose last key is the checksum of all before it."""
    text = json.dumps(to_json(record))
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a .jsonl file without an incomplete last line; raises UserError for a damaged line."""
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
    """Sums up records: final and best value of each metric, with their steps, and its floor where the records have one.

    A value that is not finite is never best. Scores that `ganlab eval` added do not count: their protocol may be
    another.
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
