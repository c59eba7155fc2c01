"""Links that lead out: a run root whose folder is one, an untrusted run folder that holds one, and one that is `--out`.

The last is filled, and so is a mount point, which cannot be replaced either.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab.utils.files import whole_folder

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


def test_a_name_that_is_a_link_out_of_the_run_root(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path("runs").mkdir()
    Path("runs/tiny").symlink_to(tmp_path / "elsewhere")
    code, _, err = ganlab("run", write(table))
    assert code == 2
    assert err == f"runs/tiny: is a link that leads out of {tmp_path / 'runs'}; name a folder with --out\n"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_root_that_is_a_link_itself_is_the_users_own(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """Many keep their runs on another disk."""
    (tmp_path / "disk").mkdir()
    Path("runs").symlink_to(tmp_path / "disk")
    assert ganlab("run", write(table))[0] == 0
    assert len(list((tmp_path / "disk" / "tiny").iterdir())) == 1


@pytest.mark.parametrize(
    "name",
    [
        "log.jsonl",
        "experiment.toml",
        "checkpoints",
        "samples",
        "checkpoints/step-00000004",
        "samples/step-00000000.png",
    ],
)
def test_a_link_in_a_run_folder(
    name: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """Resuming an untrusted run would write to, or delete, what it leads to."""
    file = write(table)
    assert ganlab("run", file, "--out", "r")[0] == 0
    (Path("r") / name).rename(tmp_path / "precious")
    (Path("r") / name).symlink_to(tmp_path / "precious")
    before = (tmp_path / "precious").stat()
    code, _, err = ganlab("run", file, "--out", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert err == f"r/{name}: is a link; a run's files lie in its own folder\n"
    assert (tmp_path / "precious").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("kind", ["link", "mount point"])
def test_an_empty_folder_that_cannot_be_replaced_is_filled(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left in it, or beside it, where what would fill it is not made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    out = tmp_path / "out"
    if kind == "link":
        out.symlink_to(disk)
    else:
        out = disk
        monkeypatch.setattr(Path, "is_mount", lambda path: path == disk)
    before, beside = disk.stat().st_ino, sorted(tmp_path.iterdir())

    def fill(fails: bool) -> None:
        with whole_folder(out) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "a.txt").write_text("a")
            (folder / "b.txt").write_text("b")
            if fails:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fill(fails=True)
    assert list(disk.iterdir()) == []
    fill(fails=False)
    files = {str(path.relative_to(disk)): path.read_text() for path in disk.rglob("*") if path.is_file()}
    assert files == {"inner/a.txt": "a", "b.txt": "b"}
    assert len(list(disk.iterdir())) == 2
    assert sorted(tmp_path.iterdir()) == beside
    assert (disk.stat().st_ino, out.is_symlink()) == (before, kind == "link")
