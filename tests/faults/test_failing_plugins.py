"""Plugins that raise during a run: each is named with its hook and line; those who only look on do not end the run.

What fails on import or in registering is in tests/test_plugin_loader.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints
from run_folders import assert_same_bits, records
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
CLASSIFIER = {"name": "classifier", "updates": 20}
EVENTS = ("run_started", "tick_finished", "evaluation_finished", "checkpoint_saved", "run_finished")

HOOKS = "from ganlab import hookimpl\n" + "".join(
    f"""
@hookimpl
def {event}(run):
    import torch; torch.rand(3)
    with (run.path / "NAME.txt").open("a") as file: file.write("{event}\\n")
    if "{event}" == "FAILS": raise ERROR
"""
    for event in EVENTS
)


def hooks(name: str, fails: str = "", error: str = "") -> str:
    return HOOKS.replace("NAME", name).replace("FAILS", fails).replace("ERROR", error or "ValueError()")


@pytest.mark.parametrize("error", spread(4, ["RuntimeError('plugin trouble')", "SystemExit(0)"]))
@pytest.mark.parametrize("event", EVENTS)
def test_a_hook_that_raises_is_named_and_the_rest_goes_on(
    event: str, error: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    table["metric"] = [{"name": "fid", "samples": 16, "features": CLASSIFIER}]
    assert ganlab("run", write(table), "--out", "alone")[0] == 0
    (tmp_path / "bad.py").write_text(hooks("bad", event, error))
    (tmp_path / "good.py").write_text(hooks("good"))
    table["plugins"] = ["bad.py", "good.py"]
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    what = "RuntimeError: plugin trouble" if "Runtime" in error else "SystemExit: 0"
    named = rf"plugin bad \(\S+/bad\.py\): {event}: {what} \(line \d+\)"
    assert len(re.findall(rf"{named}; it is not called again", out)) == 1
    (failure,) = read_info(Path("r"))["plugin_failures"]
    assert re.fullmatch(named, failure)
    assert_same_bits(Path("alone"), Path("r"))
    assert records(Path("alone")) == records(Path("r"))
    good = Path("r/good.txt").read_text().splitlines()
    assert [good.count(event) for event in EVENTS] == [1, 2, 2, 1, 1]
    assert Path("r/bad.txt").read_text().splitlines()[-1] == event


TRACKERS = """
from attrs import frozen
from ganlab import ComponentError, hookimpl

class Writer:
    def __init__(self, run, fails): self.file, self.fails = run.path / "seen.txt", fails
    def _see(self, what):
        if what == self.fails: raise OSError(28, "No space left on device", "tracker.db")
        with self.file.open("a") as file: file.write(what + "\\n")
    def log(self, record): self._see("log")
    def samples(self, step, path): self._see("samples")
    def close(self): self._see("close")

@frozen
class Notes:
    fails: str = ""
    def build(self, run):
        if self.fails == "build": raise KeyError("no key")
        if self.fails == "refuse": raise ComponentError("wanted a server")
        return Writer(run, self.fails)

@hookimpl
def register_trackers(register): register("notes", Notes)
"""


@pytest.mark.parametrize("method", ["log", "samples", "close"])
def test_a_tracker_that_raises_is_named_and_the_others_live(
    method: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "notes.py").write_text(TRACKERS)
    table |= {"plugins": ["notes.py"], "tracker": [{"name": "notes", "fails": method}, {"name": "notes"}]}
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    named = rf"plugin notes \(\S+\): tracker 'notes', {method}: OSError: .*No space left on device.* \(line \d+\)"
    assert len(re.findall(named + "; it is not called again", out)) == 1
    assert len(read_info(Path("r"))["plugin_failures"]) == 1
    seen = Path("r/seen.txt").read_text().splitlines()
    assert [seen.count(what) for what in ("log", "samples", "close")].count(1) + seen.count("log") >= 2
    assert seen[-1] == "close"
    assert read_info(Path("r"))["status"] == "finished"


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("refuse", r"tracker\[0\]: wanted a server\n"),
        ("build", r"tracker\[0\]: plugin notes \(\S+\): tracker 'notes', build: KeyError: 'no key' \(line \d+\)\n"),
    ],
)
def test_a_tracker_that_cannot_be_opened_is_refused_before_anything_is_missed(
    fails: str, message: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "notes.py").write_text(TRACKERS)
    table |= {"plugins": ["notes.py"], "tracker": [{"name": "notes", "fails": fails}]}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 2
    assert re.fullmatch(message, err), err
    assert read_records(Path("r/log.jsonl")) == []


IN_THE_STEP = """
import torch
from attrs import field, frozen
from ganlab import hookimpl

calls = []

@frozen
class Tired:
    error: str = ""
    def discriminator(self, real, fake): return (fake - real).sigmoid().mean()
    def generator(self, real, fake):
        calls.append(1)
        if len(calls) == CALLS: raise eval(self.error)
        return -fake.sigmoid().mean()

@hookimpl
def register_losses(register): register("tired", Tired)
"""


@pytest.mark.parametrize("error", ["RuntimeError('so tired')", "SystemExit(0)", "OSError(5, 'so tired')"])
def test_what_raises_in_the_step_is_named_with_its_line_and_the_run_can_go_on(
    error: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """It is tried once before there is a folder, and called once in each step; the eighth call comes after step 6."""
    (tmp_path / "tired.py").write_text(IN_THE_STEP.replace("CALLS", "8"))
    table |= {"plugins": ["tired.py"], "loss": {"name": "tired", "error": error}}
    table["train"] |= {"steps": 9, "checkpoint_every": 2}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 1
    lines = err.splitlines()
    assert re.fullmatch(
        r"plugin tired \(\S+/tired\.py\) raised after step 6: \w+: .* \(line 14\); the checkpoint of step 6 is kept",
        lines[-1],
    ), err
    assert lines[0].startswith("Traceback")
    assert "tired.py" in lines[1], "the traceback begins in the plugin's own code"
    info = json.loads(Path("r/run.json").read_text())
    assert info["status"] == "failed"
    assert info["error"].startswith("PluginFailed: plugin tired")
    assert max(list_checkpoints(Path("r/checkpoints"))) == 6
    # In another process, or here where it was imported anew, it has been called but four times when the run is over.
    assert ganlab("run", write(table), "--out", "r", "--resume")[0] == 0
    (tmp_path / "tired.py").write_text(IN_THE_STEP.replace("CALLS", "100"))
    assert ganlab("run", write(table), "--out", "alone")[0] == 0
    assert_same_bits(Path("alone"), Path("r"))


METRIC = """
from attrs import frozen
from ganlab import Scores, hookimpl

calls = []

@frozen
class Moody:
    every: int = 2
    bad: int = 2
    def evaluate(self, evaluation):
        calls.append(1)
        if len(calls) == self.bad: raise ZeroDivisionError("a bad day")
        return Scores({"moody": 1.0}, {"metric": "moody"}, {"moody": "lower"})

@hookimpl
def register_metrics(register): register("moody", Moody)
"""


def test_a_metric_that_fails_on_the_way_misses_one_score(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "moody.py").write_text(METRIC)
    table |= {"plugins": ["moody.py"], "metric": [{"name": "moody"}], "floor": False}
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    named = r"plugin moody \(\S+\): metric 'moody', step 2: ZeroDivisionError: a bad day \(line \d+\)"
    assert re.search(named + "; this score is missing", out)
    assert [record["step"] for record in read_records(Path("r/metrics.jsonl"))] == [0, 4]
    (failure,) = read_info(Path("r"))["plugin_failures"]
    assert re.fullmatch(named, failure)


def test_a_metric_that_fails_at_once_ends_the_run_before_the_first_step(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "moody.py").write_text(METRIC)
    table |= {"plugins": ["moody.py"], "metric": [{"name": "moody", "bad": 1}], "floor": False}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 2
    assert re.fullmatch(
        r"plugin moody \(\S+\): metric 'moody', step 0: ZeroDivisionError: a bad day \(line \d+\)\n", err
    )
    assert read_records(Path("r/log.jsonl")) == []


RUDE = """
import os
from ganlab import hookimpl

class Odd(Exception):
    def __str__(self): raise RuntimeError("no words")

@hookimpl
def run_started(run): os.chdir("/")
@hookimpl
def tick_finished(run, record):
    record.clear()
    record["step"] = "x"
@hookimpl
def checkpoint_saved(run, path): raise Odd()
"""


def test_a_rude_hook_changes_nothing(table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> None:
    """It empties the record that it is given, goes elsewhere, and raises what cannot even be printed."""
    assert ganlab("run", write(table), "--out", "alone")[0] == 0
    (tmp_path / "rude.py").write_text(RUDE)
    table["plugins"] = ["rude.py"]
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    assert re.search(r"plugin rude \(\S+\): checkpoint_saved: Odd: … \(line \d+\); it is not called again", out)
    assert_same_bits(Path("alone"), Path("r"))
    assert records(Path("alone")) == records(Path("r"))


BUILT = """
from attrs import frozen
from torch import nn
from ganlab import Scores, hookimpl

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        fail("init")

def fail(place):
    if place == "PLACE": raise ERROR

@frozen
class Data:
    def build(self, places, split): fail("data")
@frozen
class Judge:
    def build(self, images):
        fail("build")
        return Net()
@frozen
class Score:
    every: int = 0
    def prepare(self, evaluation): fail("prepare")
    def evaluate(self, evaluation): return Scores({}, {})

@hookimpl
def register_datasets(register): register("odd", Data)
@hookimpl
def register_discriminators(register): register("odd", Judge)
@hookimpl
def register_metrics(register): register("odd", Score)
"""


@pytest.mark.parametrize("error", ["SystemExit(0)", "KeyError('so')"])
@pytest.mark.parametrize("place", ["data", "build", "init", "prepare"])
def test_what_raises_while_it_is_built_is_named(
    place: str, error: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "built.py").write_text(BUILT.replace("PLACE", place).replace("ERROR", error))
    table["plugins"] = ["built.py"]
    kinds = {"data": {"dataset": "odd"}, "prepare": {"metric": [{"name": "odd"}]}}
    table |= kinds.get(place, {"discriminator": "odd"})
    for more in ([], ["--dry-run"]):
        code, _, err = ganlab("run", write(table), "--out", "r", *more)
        assert code == 1
        last = err.splitlines()[-1]
        assert re.fullmatch(
            r"plugin built \(\S+\) raised before the first step: (SystemExit: 0|KeyError: 'so') \(line 12\)", last
        ), err
    assert not Path("r").exists()


def test_a_refusal_in_the_step_is_named_too(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    source = IN_THE_STEP.replace("CALLS", "4").replace("import hookimpl", "import ComponentError, hookimpl")
    (tmp_path / "tired.py").write_text(source)
    table |= {"plugins": ["tired.py"], "loss": {"name": "tired", "error": "ComponentError('not so')"}}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert (code, len(err.splitlines())) == (2, 1)
    assert re.search(r"plugin tired \(\S+\) raised after step 2: ComponentError: not so \(line 14\); there is no", err)
