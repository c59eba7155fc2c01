"""Damaged records, by hypothesis, held against those that were written: named, or left out, and never used."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder
from ganlab.utils.errors import UserError

RECORDS = [
    {"step": 100, "name": "fid", "value": 12.25, "protocol": {"generated": 100, "text": 'a "quoted" {brace}'}},
    {"step": 200, "name": "fid", "value": 9.5, "list": [1, None, True], "crc32": "deadbeef"},
    {"step": 300, "name": "fid", "value": "nan", "empty": {}},
]


SPOIL = """
import ganlab
@ganlab.hookimpl
def checkpoint_saved(run, path): (run.path / "metrics.jsonl").write_text("nothing\\n{}\\n")
"""


@settings(deadline=None, max_examples=500)
@given(
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    kind=st.sampled_from(["flip", "cut", "empty", "change", "more"]),
    other=st.binary(min_size=1, max_size=5),
)
def test_what_is_read_is_what_was_written(place: float, bit: int, kind: str, other: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        for record in RECORDS:
            run.append("metrics.jsonl", record)
        path = Path(folder) / "metrics.jsonl"
        assert read_records(path) == RECORDS
        data = path.read_bytes()
        at = int(place * len(data))
        path.write_bytes(
            {
                "flip": data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :],
                "cut": data[:at],
                "empty": b"",
                "change": data[:at] + other + data[at + len(other) :],
                "more": data[:at] + other + data[at:],
            }[kind]
        )
        found, refusal = [], ""
        try:
            found = read_records(path)
        except UserError as error:
            refusal = str(error)
    if refusal:
        assert re.fullmatch(rf"{re.escape(str(path))}:\d+: damaged, since its checksum does not hold: .*", refusal)
    # What lacks its end is as good as never written: that is what a crash leaves.
    assert found == RECORDS[: len(found)]


@pytest.mark.parametrize("text", ["{}\n", "[1]\n", '{"step": 1}\n', "\n", '{"step": 1, "crc32": "00000000"}\n'])
def test_what_no_run_wrote_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"log\.jsonl:1: damaged"):
        read_records(tmp_path / "log.jsonl")


def test_a_run_whose_records_are_damaged_meanwhile_has_failed(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    """And is not "running" for ever, since they are read where it ends."""
    Path("spoil.py").write_text(SPOIL)
    code, _, err = ganlab("run", write(table | {"plugins": ["spoil.py"]}), "--out", "r")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("r/metrics.jsonl:1: damaged")
    info = json.loads(Path("r/run.json").read_text())
    assert info["status"] == "failed"
    assert "r/metrics.jsonl:1: damaged" in info["error"]
