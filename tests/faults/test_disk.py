"""A full disk and a folder that cannot be written to: path and size are named, and the last save is kept."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saboteur
from children import Child, Command
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.errors import CannotWrite
from ganlab.utils.files import check_disk_space, write_whole
from run_folders import assert_same_run
from tiers import spread

Write = Callable[..., Path]

FULL = """
import resource
from ganlab import hookimpl

@hookimpl
def tick_finished(run, record):
    if record["step"] == FULL and not (run.path / "was_full").exists():
        (run.path / "was_full").touch()
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, resource.RLIM_INFINITY))
"""


def test_too_little_room_for_a_checkpoint_is_refused_before_the_first_step(
    table: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    child = Child(
        Command("run", write(table), "--out", "r", before=functools.partial(saboteur.small_files, 5_000)),
        tmp_path / "log",
    )
    assert child.ended() == 2, child.said
    assert re.fullmatch(
        r"r/checkpoints: [\d,]+ bytes cannot be written: File too large\n",
        child.said,
    ), child.said
    assert not Path("r/run.json").exists()
    again = Child(Command("run", write(table), "--out", "r"), tmp_path / "log2")
    assert again.ended() == 0, again.said


@pytest.mark.parametrize("most", spread(1, [9_000, 900]), ids=["checkpoint", "run.json"])
def test_a_disk_that_gets_full_names_path_and_size_and_keeps_the_last_save(
    most: int, table: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    """Of a checkpoint some files fit and some do not; run.json, records and grids may not fit either."""
    table["train"] |= {"steps": 8, "checkpoint_every": 2, "log_every": 1}
    (tmp_path / "full.py").write_text(FULL.replace("MOST", str(most)).replace("FULL", "5"))
    table["plugins"] = ["full.py"]
    file = write(table)
    assert Child(Command("run", file, "--out", "whole"), tmp_path / "log").ended() == 1
    assert Child(Command("run", file, "--out", "whole", "--resume"), tmp_path / "log").ended() == 0
    child = Child(Command("run", file, "--out", "r"), tmp_path / "log-r")
    assert child.ended() == 1, child.said
    last = child.said.splitlines()[-1]
    assert re.fullmatch(
        r"r/\S+: [\d,]+ bytes cannot be written: File too large; the checkpoint of step 4 is kept",
        last,
    ), child.said
    assert "Traceback" not in child.said
    saved = list_checkpoints(Path("r/checkpoints"))
    assert max(saved) == 4
    load_checkpoint(saved[4])
    again = Child(Command("run", file, "--out", "r", "--resume"), tmp_path / "log-r2")
    assert again.ended() == 0, again.said
    assert_same_run(Path("whole"), Path("r"))
    del table["plugins"]
    alone = Child(Command("run", write(table), "--out", "alone"), tmp_path / "log")
    assert alone.ended() == 0
    assert_same_run(Path("alone"), Path("r"))


def test_a_folder_that_cannot_be_written_to(table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    """Root may write wherever the file system lets anybody write."""
    folder = Path("/sys/kernel") if os.getuid() == 0 else tmp_path / "locked"
    if os.getuid() != 0:
        folder.mkdir(mode=0o500)
    child = Child(Command("run", write(table), "--out", folder / "r"), tmp_path / "log")
    assert child.ended() == 2, child.said
    assert re.fullmatch(rf"{folder}/r: cannot be written to: [\w -]+\n", child.said), child.said


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the machine loses what no fsync has written, and leaves an empty file of the right name."""
    done: list[str] = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, call=call: (done.append(name), call(*given)))
    write_whole(tmp_path / "x.bin", b"new")
    assert done == ["fsync", "replace", "fsync"], "the file, its name, the folder"


def test_what_could_not_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    def work() -> None:
        saboteur.small_files(1000)
        with pytest.raises(CannotWrite, match=r"x.bin: 2,000 bytes cannot be written: File too large"):
            write_whole(tmp_path / "x.bin", bytes(2000))
        with pytest.raises(CannotWrite, match=r"3,000 bytes cannot be written"):
            check_disk_space(tmp_path, {"a": 500, "b": 2500})

    write_whole(tmp_path / "x.bin", b"before")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "x.bin").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
