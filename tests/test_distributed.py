"""Training on several processes (gloo), held against one process on the same batch, and against itself resumed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from children import Child, Command, set_environment
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.errors import PluginFailed
from image_files import save
from support import until

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]


def torchrun(processes: int, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`ganlab` on several processes of this machine, on one thread each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*launcher, "-m", "ganlab", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def environments(processes: int) -> list[dict[str, str]]:
    """What torchrun would give each of several processes of this machine in its environment."""
    with socket.create_server(("localhost", 0)) as found:
        port = found.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    local = {"LOCAL_WORLD_SIZE": str(processes)}
    return [rendezvous | local | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def started(processes: int, folder: Path, *arguments: object, first: dict[str, str] | None = None) -> list[Child]:
    """Starts `ganlab` on several processes with the environment that torchrun gives them, without its own start.

    `first`: what the first process's environment has besides.
    """
    children = []
    for rank, environment in enumerate(environments(processes)):
        own = environment | (first or {}) if rank == 0 else environment
        command = Command(*arguments, "--device", "cpu", before=partial(set_environment, own))
        children.append(Child(command, folder / f"rank{rank}.log"))
    return children


def forked(processes: int, folder: Path, *arguments: object, code: int = 0) -> None:
    """As `started`, to the end."""
    children = started(processes, folder, *arguments)
    assert [child.ended() for child in children] == [code] * processes, [child.said for child in children]


def weights(run: Path) -> torch.Tensor:
    """All weights of a run's last checkpoint."""
    state = load_checkpoint(list(list_checkpoints(run / "checkpoints").values())[-1])
    return torch.cat([v.double().flatten() for part in ("generator", "discriminator") for v in state[part].values()])


@pytest.mark.torchrun
def test_two_processes_train_what_one_does(table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path) -> None:
    """A summed loss, one that compares real with fake, penalties of weights, an average, scores; without dropout."""
    table["discriminator"] = {"name": "mlp", "hidden": [16]}
    table["loss"] = {"name": "relativistic"}
    table["penalty"] = [{"name": "l2_generator", "weight": 0.1}]
    table["optimizer"] = {"name": "sgd", "lr": 0.05, "momentum": 0.5}
    table["train"] |= {"steps": 12, "ema": 0.5, "discriminator_steps": 2}
    table["metric"] = [{"name": "fid", "samples": 33, "features": {"name": "classifier", "updates": 20}}]
    file = write(table)
    assert ganlab("run", file, "--out", "one")[0] == 0
    forked(2, tmp_path, "run", file, "--out", "two")
    said = [(tmp_path / f"rank{rank}.log").read_text() for rank in range(2)]
    assert "finished at step 12" in said[0]
    assert said[1] == ""
    one, two = weights(Path("one")), weights(Path("two"))
    assert not torch.equal(one, torch.zeros_like(one))
    assert (one - two).abs().max() < 1e-5
    assert read_info(Path("two"))["world_size"] == 2
    for mine, other in zip(read_records(Path("one/log.jsonl")), read_records(Path("two/log.jsonl")), strict=True):
        for key in ("images_seen", "loss_generator", "loss_discriminator", "d_real", "penalty_l2_generator"):
            assert mine[key] == pytest.approx(other[key], rel=1e-4), key
    (_, fid), (_, other) = (read_records(Path(run) / "metrics.jsonl") for run in ("one", "two"))
    assert other["value"] == pytest.approx(fid["value"], rel=1e-4)
    assert other["protocol"] == fid["protocol"]


@pytest.mark.torchrun
def test_a_summed_loss_is_that_of_the_whole_batch(
    table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    table["discriminator"] = {"name": "mlp", "hidden": [16]}
    table["loss"] = {"name": "bce", "reduction": "sum"}
    table["optimizer"] = {"name": "sgd", "lr": 1e-3}
    file = write(table)
    assert ganlab("run", file, "--out", "one")[0] == 0
    forked(2, tmp_path, "run", file, "--out", "two")
    assert (weights(Path("one")) - weights(Path("two"))).abs().max() < 1e-5


@pytest.mark.torchrun
def test_two_processes_stop_clip_and_take_parts_as_one_does(
    table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """The gradient is clipped when it is everybody's, and all stop at the same updates."""
    table["discriminator"] = {"name": "mlp", "hidden": [16]}
    table["optimizer"] = {"name": "sgd", "lr": 0.05, "momentum": 0.5}
    balance = {"accumulate": 4, "clip_norm": 0.2, "stop_discriminator_under": 1.3, "stop_generator_under": 0.77}
    table["train"] |= {"steps": 12, "log_every": 12, **balance}
    file = write(table)
    assert ganlab("run", file, "--out", "one")[0] == 0
    forked(2, tmp_path, "run", file, "--out", "two")
    assert (weights(Path("one")) - weights(Path("two"))).abs().max() < 1e-5
    (mine,), (other,) = (read_records(Path(run) / "log.jsonl") for run in ("one", "two"))
    for player in ("discriminator", "generator"):
        assert 0 < mine[f"stopped_{player}"] == other[f"stopped_{player}"] < 1
        assert mine[f"grad_norm_{player}"] == pytest.approx(other[f"grad_norm_{player}"], rel=1e-4)


@pytest.mark.extended
@pytest.mark.torchrun
def test_one_stopped_process_stops_all_and_resuming_is_exact(
    table: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    """With dropout, batch norm, momentum and an average: all that differs between processes is in the checkpoint."""
    table["dataset"] = {"name": "digits", "size": 16}
    table["generator"] = {"name": "dcgan", "latent_dim": 8, "channels": 4}
    table["discriminator"] = {"name": "mlp", "hidden": [16], "dropout": 0.3}
    table["train"] |= {"steps": 120, "batch_size": 18, "ema": 0.9, "checkpoint_every": 0, "log_every": 1}
    file = write(table)
    forked(2, tmp_path, "run", file, "--out", "whole")
    children = started(2, tmp_path, "run", file, "--out", "parts")
    until(lambda: read_records(Path("parts/log.jsonl")))
    os.kill(children[1].pid, signal.SIGTERM)
    assert [child.ended() for child in children] == [75, 75]
    info = read_info(Path("parts"))
    assert info["status"] == "interrupted"
    assert 0 < info["step"] < 120
    forked(2, tmp_path, "run", file, "--out", "parts", "--resume")
    assert torch.equal(weights(Path("whole")), weights(Path("parts")))
    assert len(read_records(Path("parts/log.jsonl"))) == 120

    forked(3, tmp_path, "run", file, "--out", "parts", "--resume", "--set", "train.steps=121", code=2)
    assert "world_size: was 2, is now 3" in (tmp_path / "rank0.log").read_text()


@pytest.mark.extended
@pytest.mark.torchrun
def test_a_batch_that_cannot_be_shared_is_refused(table: dict[str, Any], write: Write, tmp_path: Path) -> None:
    table["train"]["batch_size"] = 15
    forked(2, tmp_path, "run", write(table), "--out", "r", code=2)
    for rank in range(2):
        said = (tmp_path / f"rank{rank}.log").read_text()
        assert "train.batch_size: 15 cannot be shared equally by 2 processes" in said
    assert not Path("r").exists()


def test_shares_do_not_overlap(monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], tmp_path: Path) -> None:
    """Each process's part of a batch, put side by side, is the batch."""
    from ganlab.data.loader import BatchLoader
    from ganlab.utils import distributed

    images = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1)
    loader = BatchLoader(images, 12, 0, torch.device("cpu"))
    whole = loader.batch(4).images
    parts = []
    for number in range(3):
        monkeypatch.setattr(distributed, "world_size", lambda: 3)
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        parts.append(loader.batch(4).images)
    assert torch.equal(torch.cat(parts), whole)
    assert json.dumps([len(part) for part in parts]) == "[4, 4, 4]"


def test_a_process_without_rows_need_not_know_their_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a split has fewer images than there are processes."""
    from ganlab.utils import distributed

    rows = torch.arange(6.0).view(2, 3)
    of_the_other = [torch.tensor([2, 3, -1, -1, -1, -1, -1, -1]), rows]

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        parts[0].copy_(own)
        parts[1].copy_(of_the_other.pop(0))

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    assert torch.equal(distributed.all_gather_rows(torch.empty(0)), rows)


@pytest.mark.extended
@pytest.mark.torchrun
def test_nothing_of_the_group_outlives_it(tmp_path: Path) -> None:
    """A thread of gloo's that still lives as Python ends aborts the process now and then."""
    script = tmp_path / "joins.py"
    script.write_text("""
import os
from pathlib import Path
import torch
from ganlab.utils import distributed

with distributed.process_group(torch.device("cpu")):
    import torch.distributed.nn
    assert distributed.any_process(distributed.rank() == 1)
tasks = Path("/proc/self/task").glob("*/comm")
assert not [task.read_text() for task in tasks if "gloo" in task.read_text()]
""")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ended = subprocess.run(launcher, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


BAD = "train.batch_sise: unknown key; did you mean 'batch_size'?"


@pytest.mark.parametrize(
    ("rank", "has_file", "printed"), [("0", True, True), ("1", True, False), ("1", False, True), ("0", False, True)]
)
def test_of_several_processes_one_prints_an_error(
    rank: str,
    has_file: bool,
    printed: bool,
    table: dict[str, Any],
    write: Write,
    ganlab: Ganlab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others leave it where torchrun reads it, as torch's own class does; it is printed where that is not so."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / ("error.json" if has_file else "none/error.json")))
    table["train"]["batch_sise"] = 3
    code, out, err = ganlab("run", write(table), "--dry-run")
    assert (code, out) == (2, "")
    assert (BAD in err) == printed
    assert err.count("\n") == printed
    if has_file:
        failure = ProcessFailure(0, 1, 2, str(tmp_path / "error.json"))
        table_of_torchrun = ChildFailedError("ganlab", {0: failure}).format_msg()
        assert f"traceback : {tmp_path / 'tiny.toml'}: {BAD}\n" in table_of_torchrun
        assert abs(failure.timestamp - time.time()) < 60


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "--jsn"),
        (PluginFailed("losses.py, line 3: failed", "Traceback of the plugin\n"), "plugin\nlosses.py, line 3: failed"),
        (SystemExit(0), "ended by SystemExit"),
        (KeyboardInterrupt(), "ended at once"),
    ],
    ids=["a command line", "a plugin", "its SystemExit", "a second Ctrl-C"],
)
def test_every_error_that_ends_a_command_is_left_for_torchrun(
    error: BaseException | None, said: str, ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        assert error is not None
        raise error

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setattr("ganlab.plugin.loader.load_plugins", load)
    code, _, err = ganlab("plugins", *(["--jsn"] if error is None else []))
    assert code != 0
    assert said in json.loads((tmp_path / "error.json").read_text())["message"]["message"]
    assert err == ""


@pytest.mark.torchrun
def test_what_only_the_first_process_refuses_ends_all_with_its_error(
    table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """A folder that holds a run, one that cannot be made, one that another process has locked."""
    file = write(table)
    assert ganlab("run", file, "--out", "there")[0] == 0
    Path("file").write_text("")
    Path("locked").mkdir()
    with FileLock("locked/.lock"):
        for out, said in (
            ("there", "--out there: holds an earlier run (finished); go on with it by --resume"),
            ("file/inside", "file/inside: "),
            ("locked", "locked: "),
        ):
            for log in tmp_path.glob("rank*.log"):
                log.unlink()
            forked(2, tmp_path, "run", file, "--out", out, code=2)
            for rank in range(2):
                (line,) = (tmp_path / f"rank{rank}.log").read_text().splitlines()
                assert line.startswith(said), line


@pytest.mark.torchrun
def test_a_process_that_loses_another_one_says_only_that(
    table: dict[str, Any], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path / "data"))
    for number in range(16):
        save(tmp_path / "data" / "set" / f"{number}.png")
    table["dataset"] = {"name": "image_folder", "path": "set", "size": 8}
    table["metric"] = []
    children = started(2, tmp_path, "run", write(table), "--out", "r", first={"GANLAB_DATA": str(tmp_path / "none")})
    assert [child.ended() for child in children] == [2, 1]
    assert "set': no such folder" in children[0].said
    assert children[1].said == "another process of this job has ended, as its own message says\n"


@pytest.mark.extended
@pytest.mark.torchrun
@pytest.mark.usefixtures("forked_processes")
def test_under_torchrun_a_refusal_is_printed_once_and_repeated_in_its_table(
    table: dict[str, Any], write: Write
) -> None:
    table["train"]["batch_sise"] = 3
    file = write(table)
    process = torchrun(2, "run", file, "--device", "cpu")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    line = f"{file}: {BAD}"
    lines = err.splitlines()
    assert lines.count(line) <= 1  # torchrun may end the first process, where the other failed before it
    repeated = [at for at, text in enumerate(lines) if text == f"  traceback : {line}"]
    assert repeated
    assert repeated[-1] == len(lines) - 2, "all but the last line of the table"
