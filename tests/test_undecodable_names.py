"""Paths with bytes that are not UTF-8, which Linux allows: every command takes them, or refuses them in one line.

A shell that reads what was printed or written must come to the same path; bash is asked.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from child_work import call_main
from children import Child
from ganlab import load_run
from ganlab.cli import main
from ganlab.run.run_folder import read_info
from ganlab.utils.errors import printable, quote
from ganlab.utils.files import write_whole
from ganlab.utils.paths import shell_word
from ganlab.utils.stdio import fail_safe_stream
from image_files import save

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

ODD = os.fsdecode(b"r\xe9")


@pytest.fixture
def ganlab(monkeypatch: pytest.MonkeyPatch) -> Ganlab:
    """Runs a command as the entry point does, whose standard output takes any name."""

    def call(*arguments: object) -> tuple[int, str, str]:
        raw = io.BytesIO(), io.BytesIO()
        streams = [fail_safe_stream(io.TextIOWrapper(stream, encoding="utf-8")) for stream in raw]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = main.call([str(argument) for argument in arguments])
            for stream in streams:
                stream.flush()
        return code, *(stream.getvalue().decode(errors="surrogateescape") for stream in raw)  # type: ignore[return-value]

    return call


@pytest.fixture(autouse=True)
def such_names(tmp_path: Path) -> None:
    try:
        (tmp_path / f"{ODD}-tried").mkdir()
    except OSError:
        pytest.skip("this file system has only names in UTF-8")


def scored(table: dict[str, Any]) -> dict[str, Any]:
    return table | {"metric": [{"name": "fid", "samples": 64, "features": "pixels"}]}


def test_commands_on_a_run_in_such_a_folder(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    file = write(scored(table))
    assert ganlab("run", file, "--out", ODD)[0] == 0
    assert ganlab("run", file, "--out", ODD, "--set", "train.steps=6", "--resume")[0] == 0
    for command in (
        ["report", ODD, "--html", f"{ODD}.html"],
        ["compare", ODD, "--html", "c.html", "--csv", f"{ODD}.csv", "--json"],
        ["eval", ODD],
        ["sample", ODD, "--count", 4, "--out", os.path.join(ODD, "a", ODD)],
        ["sample", ODD, "--count", 4, "--out", f"{ODD}.npz"],
        ["sample", ODD, "--count", 4, "--out", f"{ODD}.png"],
        ["score", os.path.join(ODD, "a", ODD), "--against", "digits", "--features", "pixels"],
        ["sample", f"{ODD}-none"],
        ["report", f"{ODD}-none"],
        ["compare", f"{ODD}-none"],
    ):
        code, _, err = ganlab(*command)
        assert (code, "Traceback" in err) == (2 if command[-1] == f"{ODD}-none" else 0, False), (command, err)
    shown = printable(Path(ODD) / "experiment.toml")
    assert shown == r"r\xe9/experiment.toml"
    for page in (Path(f"{ODD}.html"), Path("c.html")):
        assert r"ganlab run $&#39;r\xe9/experiment.toml&#39;" in page.read_text(encoding="utf-8")
    assert load_run(ODD).sample(2).shape == (2, 1, 8, 8)


def test_plugin_files(table: dict[str, Any], write: Write, ganlab: Ganlab, wedge: Path) -> None:
    """One that is used would have to be in the run's experiment.toml; one that is not may be anywhere."""
    odd = wedge.with_name(f"{ODD}.py")
    wedge.rename(odd)
    assert ganlab("run", write(table), "--plugin", odd, "--out", "r")[0] == 0
    assert ganlab("plugins", "--plugin", odd)[0] == 0
    assert ganlab("plugins", "--plugin", odd, "--json")[0] == 0
    table["loss"] = {"name": "wedge"}
    for more in ([], ["--dry-run"]):
        code, out, err = ganlab("run", write(table), "--plugin", odd, "--out", "s", *more)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert r"r\xe9.py' is not UTF-8, so the run's experiment.toml cannot hold it; rename it" in err
        assert err.startswith("plugins[0]: ")
        assert not Path("s").exists()


def test_such_words_on_the_command_line_are_shown_as_bytes(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    r"""`\xe9`, as file names are shown, and not Python's `\udce9`; a text of these letters is left as it is."""
    assert quote([ODD, "\\udce9", f"\\{ODD[1:]}"]) == r"['r\xe9', '\\udce9', '\\\xe9']"
    file = write(table)
    for command in (
        ["plugins", ODD],
        ["plugins", "--plugin", f"{ODD}.py"],
        ["new", "loss", ODD],
        ["new", ODD, "mine"],
        ["run", file, "--dry-run", "--set", ODD],
        ["run", file, "--dry-run", "--set", f"loss={ODD}"],
        ["run", file, "--dry-run", "--set", f"train.steps={ODD}"],
        ["run", file, "--dry-run", "--plugin", f"{ODD}.py"],
        ["cache", "--clear", "--kind", ODD],
    ):
        code, _, err = ganlab(*command)
        assert code == 2, command
        assert r"r\xe9" in err or ODD in err, (command, err)
        assert "udce9" not in err, (command, err)


@pytest.mark.parametrize("key", ["dataset.path", "dataset.test_path", "tracker.0.file"])
def test_options_are_refused(table: dict[str, Any], write: Write, ganlab: Ganlab, key: str) -> None:
    for index in range(20):
        save(Path(ODD) / f"{index}.png")
        save(Path("set") / f"{index}.png")
    table["dataset"] = {"name": "image_folder", "path": str(Path("set").absolute()), "size": 8}
    table["tracker"] = [{"name": "mlflow"}]
    code, out, err = ganlab("run", write(table), "--out", "r", "--set", f"{key}={Path(ODD).absolute()}")
    assert (code, out) == (2, "")
    assert err.startswith(f"{key.replace('.0', '[0]')}: "), err
    assert err.count("\n") == 1
    assert not Path("r").exists()


def test_a_sweep_of_a_base_with_such_a_plugin(table: dict[str, Any], write: Write, ganlab: Ganlab, wedge: Path) -> None:
    Path(ODD).mkdir()
    shutil.move(wedge, Path(ODD) / "wedge.py")
    shutil.move(write(table | {"loss": "wedge", "plugins": ["wedge.py"]}), Path(ODD) / "tiny.toml")
    (Path(ODD) / "sweep.toml").write_text('base = "tiny.toml"\n[variants.a]\n[variants.b]\ntrain.checkpoint_keep = 2\n')
    code, out, err = ganlab("sweep", Path(ODD) / "sweep.toml", "--out", "s")
    assert (code, out) == (2, "")
    assert all("is not UTF-8" in line or "same experiment" in line for line in err.splitlines())
    assert not Path("s").exists()


def test_images_in_such_folders(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    """The classes of an image folder are names of folders, and its images names of files."""
    for name in ("a", ODD):
        for index in range(10):
            save(Path("set") / name / f"{ODD}{index}.png")
    table["dataset"] = {"name": "image_folder", "path": str(Path("set").absolute()), "size": 8}
    table["generator"] = {"name": "conditional", "network": table["generator"]}
    table["discriminator"] = {"name": "conditional", "network": table["discriminator"]}
    table["train"]["batch_size"] = 4
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    assert read_info(Path("r"))["classes"] == ["a", ODD]
    code, _, err = ganlab("sample", "r", "--label", ODD, "--count", 3, "--out", "d")
    assert code == 0, err
    assert sorted(path.name for path in Path("d").glob("*.png")) == [f"{index:05}-r_.png" for index in range(3)]
    assert ganlab("sample", "r", "--count", 3, "--out", "d.npz")[0] == 0
    code, _, err = ganlab("score", "set", "--against", ODD)
    assert (code, err.count("\n")) == (2, 1)


def test_a_score_file_is_a_variant(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    assert ganlab("run", write(scored(table)), "--out", "r")[0] == 0
    assert ganlab("sample", "r", "--count", 64, "--out", "d.npz")[0] == 0
    code, out, err = ganlab("score", "d.npz", "--against", "digits", "--features", "pixels", "--json")
    assert code == 0, err
    Path(f"{ODD}.json").write_text(out)
    arguments = ["compare", f"{ODD}.json", "r", "--split", "--baseline", ODD]
    code, out, err = ganlab(*arguments, "--html", "c.html", "--csv", "c.csv")
    assert code == 0, err
    assert r"r\xe9" in out
    assert r"r\xe9" in Path("c.html").read_text(encoding="utf-8")
    assert r"r\xe9" in Path("c.csv").read_text(encoding="utf-8")


@pytest.mark.extended
@pytest.mark.slow
def test_mlflow_names_the_folder(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    pytest.importorskip("mlflow")
    table["tracker"] = ["mlflow", "tensorboard", "csv"]
    code, _, err = ganlab("run", write(table), "--out", ODD)
    assert code == 0, err
    assert "plugin_failures" not in read_info(Path(ODD))


def test_the_terminal_is_given_the_bytes(table: dict[str, Any], write: Write) -> None:
    """What `ls` writes to it; and "?" where the terminal's encoding has no other character."""
    raw = io.BytesIO()
    stream = fail_safe_stream(io.TextIOWrapper(raw, encoding="ascii"))
    print(f"{ODD} é \ud800", file=stream, flush=True)
    assert raw.getvalue() == b"r\xe9 ? ?\n"
    child = Child(partial(call_main, ["sample", f"{ODD}/none"]), Path("log"))
    assert child.ended() == 2
    assert Path("log").read_bytes() == b"r\xe9/none: not a run folder (it has no run.json)\n"


@pytest.mark.parametrize(
    "name", [b"r\xe9/x", b"plain", b"a b", b"it's", b"$HOME", b"new\nline", b"\xe9'\\x41", b"-x", "é".encode()]
)
def test_bash_reads_the_path_that_is_written(name: bytes) -> None:
    word = shell_word(Path(os.fsdecode(name)))
    assert subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout == name


def test_json_and_texts_keep_what_they_can() -> None:
    assert json.loads(json.dumps(ODD)) == ODD
    assert printable(f"{ODD} \ud800 é") == r"r\xe9 \ud800 é"
    write_whole(Path("x.txt"), f"{ODD} é")
    assert Path("x.txt").read_text(encoding="utf-8") == r"r\xe9 é"
