"""Memory that really runs out: no second try in silence, a hint that names the batch size, the last save kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from children import Child, Command
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint

Write = Callable[..., Path]

SCARCE = """
import resource
from pathlib import Path
from ganlab import hookimpl

@hookimpl
def tick_finished(run, record):
    if record["step"] == 3:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**24, resource.RLIM_INFINITY))
"""


@pytest.mark.extended
@pytest.mark.large
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_step_that_needs_more_memory_than_there_is(table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    (tmp_path / "scarce.py").write_text(SCARCE)
    table["plugins"] = ["scarce.py"]
    table["dataset"] = {"name": "ring", "count": 40_000}
    table["generator"]["hidden"] = [2048]
    table["train"] |= {"steps": 9, "batch_size": 20_000, "log_every": 1, "checkpoint_every": 2}
    child = Child(Command("run", write(table), "--out", "r"), tmp_path / "log")
    assert child.ended() == 1, child.said
    last = child.said.splitlines()[-1]
    assert re.fullmatch(
        r"memory ran out after step 3 on cpu, with train\.batch_size = 20000: try a smaller one \(.*\); "
        r"the checkpoint of step 2 is kept",
        last,
    ), child.said
    assert "Traceback" not in child.said
    assert read_info(Path("r"))["status"] == "failed"
    assert [record["step"] for record in read_records(Path("r/log.jsonl"))] == [1, 2, 3]
    (saved,) = list_checkpoints(Path("r/checkpoints")).values()
    load_checkpoint(saved)
    smaller = ["--resume", "--anyway", "--set", "train.batch_size=100", "--set", "plugins=[]"]
    again = Child(Command("run", write(table), "--out", "r", *smaller), tmp_path / "log")
    assert again.ended() == 0, again.said
