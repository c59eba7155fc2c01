"""What commands print in a pipe, with NO_COLOR, and on narrow terminals: through real pipes and pseudo-terminals."""

from __future__ import annotations

import os
import re
import select
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import quick_timing
from children import Child, Command

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]

ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([a-zA-Z])")
COLOUR = re.compile(r"(3|4|9|10)\d")


def environment(**more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    return inherited | {"TERM": "xterm-256color"} | more


def piped(*arguments: object) -> str:
    """What a command prints where there is no terminal; it must end well."""
    log = Path(tempfile.mkdtemp(dir=".")) / "log"
    with mock.patch.dict(os.environ, environment(), clear=True):
        child = Child(Command(*arguments, before=quick_timing.shorten), log)
    assert child.ended() == 0, child.said
    assert "\x1b" not in child.said
    return child.said


def on_terminal(columns: int, *arguments: object, **more: str) -> str:
    """All that a terminal of so many columns is sent; the command must end well."""
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (40, columns))
    with mock.patch.dict(os.environ, environment(**more), clear=True):
        child = Child(Command(*arguments, before=quick_timing.shorten), Path(os.ttyname(terminal)))
    sent = b""
    while True:
        ended = child.process.exitcode is not None
        while select.select([screen], [], [], 0.05)[0]:
            sent += os.read(screen, 65_536)
        if ended:
            break
    os.close(terminal)
    os.close(screen)
    text = sent.decode()
    assert child.process.exitcode == 0, text
    assert "Traceback" not in text
    return text


def colours(text: str) -> list[str]:
    codes = [code for match in ESCAPE.finditer(text) if match[2] == "m" for code in match[1].split(";")]
    return [code for code in codes if COLOUR.fullmatch(code)]


def joined(text: str) -> str:
    """The letters alone: what is folded reads like what is not."""
    return re.sub(r"\s", "", ESCAPE.sub("", text))


@pytest.fixture
def runs(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    """Two variants of two steps each."""
    table["train"] |= {"steps": 2, "log_every": 1}
    table["metric"] = [{"name": "fid", "samples": 16, "features": {"name": "classifier", "updates": 20}}]
    base = write(table)
    for loss in ("bce", "least_squares"):
        settings = ["--set", f"loss.name={loss}", "--set", f"name={loss}"]
        assert ganlab("run", base, *settings, "--out", f"runs/s/{loss}/seed0")[0] == 0
    return Path("runs/s")


@pytest.mark.extended
@pytest.mark.slow
def test_a_pipe_gets_each_line_whole(runs: Path, ganlab: Ganlab, tmp_path: Path) -> None:
    (line,) = [line for line in piped("compare", runs).splitlines() if line.startswith("│ least_squares")]
    assert line.count("│") == 10, "a row of nine cells"
    listing = piped("plugins")
    assert re.search(r"^ +CSV tables in the run folder: .* and `scores\.csv`, a row a score\.$", listing, re.MULTILINE)
    assert re.search(r"^ +features +the name of features or a table += 'inception'$", listing, re.MULTILINE)
    assert not re.search(r" $", listing, re.MULTILINE)
    assert re.search(r"^ +--out PATH: The run folder, exactly\. Default: .*seedSEED\.$", piped("run", "--help"), re.M)
    lines = piped("eval", runs / "bce" / "seed0").splitlines()
    assert len([line for line in lines if re.fullmatch(r"step 2  fid .* plain weights", line)]) == 1
    bench = piped("bench", tmp_path / "tiny.toml", "--seconds", 0.1)
    assert len([line for line in bench.splitlines() if "tutorial" in line and "times as fast" in line]) == 1


@pytest.mark.extended
@pytest.mark.slow
def test_no_colour_where_none_is_wanted(runs: Path, tmp_path: Path) -> None:
    """A terminal is coloured otherwise, so that the test can fail. Bold and dim are not colours."""
    for arguments in (
        ("plugins", "csv"),
        ("plugins", "--json", "csv"),
        ("run", "--help"),
        ("run", tmp_path / "tiny.toml", "--set", "train.steps=100"),
    ):
        assert colours(on_terminal(100, *arguments)), arguments
        assert not colours(on_terminal(100, *arguments, NO_COLOR="1")), arguments
    for arguments in (("compare", runs), ("eval", runs / "bce" / "seed0")):
        assert not colours(on_terminal(100, *arguments, NO_COLOR="1")), arguments


@pytest.mark.extended
@pytest.mark.slow
def test_a_narrow_terminal_loses_nothing(runs: Path, tmp_path: Path) -> None:
    columns = 20
    shown = joined(on_terminal(columns, "compare", runs))
    assert "…" not in shown
    for cell in ("least_squares", "bce", "variant:", "verdict:", "1of1", "lowerisbetter", "realimages"):
        assert cell in shown, cell
    shown = joined(on_terminal(columns, "plugins"))
    assert "…" not in shown
    for word in ("subset_size", "weight_decay", "skip_unreadable", "alistofwholenumbers", "[256,512,1024]"):
        assert word in shown, word
    assert joined(piped("plugins")) == shown
    shown = joined(on_terminal(columns, "bench", tmp_path / "tiny.toml", "--seconds", 0.1))
    assert "…" not in shown
    assert all(word in shown for word in ("byhand", "ganlab", "times", "fast"))
    shown = joined(on_terminal(columns, "run", tmp_path / "tiny.toml", "--set", "train.steps=60"))
    assert "…" not in shown
    for word in ("step60/60", "lossD", "lossG", "D(real)", "D(fake)", "img/s", "(floor", "runfolder:"):
        assert word in shown, word
    for command in ("run", "compare", "score"):
        shown = joined(on_terminal(columns, command, "--help"))
        assert "…" not in shown
        assert shown == joined(piped(command, "--help"))


@pytest.mark.extended
@pytest.mark.slow
def test_a_terminal_that_cannot_redraw_gets_plain_lines(table: dict[str, Any], write: Write) -> None:
    shown = on_terminal(80, "run", write(table), "--out", "r", TERM="dumb")
    assert not ESCAPE.search(shown)
    assert shown.count("step 4/4") == 1
