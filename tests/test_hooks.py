"""Hooks that change from release to release, held against plugins that were written for the hooks as they were."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ganlab as package
from ganlab.plugin import hookspecs
from ganlab.plugin.hook_checks import release_reached
from ganlab.plugin.hookspecs import Renamed, hookspec
from ganlab.plugin.loader import load_plugins
from support import WEDGE

Ganlab = Callable[..., tuple[int, str, str]]

OLD = (
    WEDGE
    + """
@hookimpl
def tick_done(run, entry):
    with (run.path / "told").open("a") as file: file.write(f"{entry['step']} ")
"""
)
LINE = OLD[: OLD.index("@hookimpl\ndef tick_done")].count("\n") + 1


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin with a hook and an argument that were renamed in the release before this one."""
    monkeypatch.setattr(package, "__version__", "0.3.1")
    monkeypatch.setitem(hookspecs.RENAMED, "tick_done", Renamed("tick_finished", "0.4"))
    monkeypatch.setitem(hookspecs.RENAMED, "tick_finished.entry", Renamed("record", "0.4"))
    path = tmp_path / "old.py"
    path.write_text(OLD)
    return path


def said_of(old: Path) -> list[str]:
    at = f"plugin old ({old}): line {LINE}: hook 'tick_done'"
    return [
        f"{at} is now tick_finished(run, record); the former name works until 0.4",
        f"{at}: argument 'entry' is now 'record', as in tick_finished(run, record); the former name works until 0.4",
    ]


def told(file: Path, hook: str, **what: Any) -> None:
    assert load_plugins([file]).call_hook(hook, **what) == []


def test_former_names_work_and_each_warns_once(old: Path) -> None:
    with pytest.warns(FutureWarning) as caught:
        plugins = load_plugins([old])
    assert [str(warning.message) for warning in caught] == said_of(old)
    assert plugins.failures == []


@pytest.mark.filterwarnings("always::FutureWarning")  # which one process would show once
def test_run_check_and_plugins_say_so(
    old: Path, ganlab: Ganlab, table: dict[str, Any], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = "".join(f"warning: {line}\n" for line in said_of(old))
    experiment = write(table | {"plugins": ["old.py"], "loss": {"name": "wedge"}})
    code, out, err = ganlab("run", experiment, "--out", "r")
    assert (code, err) == (0, warned), out + err
    assert Path("r/told").read_text() == "2 4 ", "the hook is called at every tick nevertheless"
    assert ganlab("plugins", "wedge", "--plugin", old)[2] == warned
    code, out, err = ganlab("plugins", "wedge", "--plugin", old, "--json")
    assert (json.loads(out)["failures"], err) == ([], warned)
    assert ganlab("plugins", "wedge", "--plugin", old, "--no-plugin", "old")[2].startswith("'wedge': no component")
    assert ganlab("check", old)[2] == warned
    monkeypatch.setenv("GANLAB_PLUGINS", str(old.parent))
    (old.parent / "none").mkdir()
    (old.parent / "none" / "other.py").write_text("from ganlab import hookimpl\n@hookimpl\ndef run_finished(): ...\n")
    assert ganlab("check", "none/other.py")[2] == warned, "once, although it loads all plugins twice"


@pytest.mark.parametrize("version", ["0.4.0", "0.4.0rc1", "0.10.0", "1.0.0"])
def test_in_the_release_that_ends_it_a_former_name_is_an_error_that_says_the_new_one(
    old: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "__version__", version)
    (failure,) = load_plugins([old]).failures
    right = "renamed in 0.4; the hook is tick_finished(run, record)"
    assert str(failure) == f"plugin old ({old}): line {LINE}: hook 'tick_done': no such hook: {right}"
    old.write_text(OLD.replace("tick_done", "tick_finished"))
    (failure,) = load_plugins([old]).failures
    right = "renamed to 'record' in 0.4; the hook is tick_finished(run, record)"
    assert failure.cause == f"line {LINE}: hook 'tick_finished': unknown argument 'entry': {right}"


def test_when_a_release_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "__version__", "0.9.3")
    assert [release_reached(release) for release in ("0.8", "0.9", "0.10", "1.0")] == [True, True, False, False]


def test_a_plugin_for_old_and_new_releases_has_both_names(old: Path, tmp_path: Path) -> None:
    """It warns of nothing, and is called once."""
    old.write_text(OLD + "\n@hookimpl\ndef tick_finished(record, run): (run / 'new').touch(exist_ok=False)\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told(old, "tick_finished", run=tmp_path, record={"step": 1})
    assert (tmp_path / "new").exists()


def test_an_argument_that_is_added_breaks_no_plugin(
    wedge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever place the new argument has."""

    @hookspec
    def tick_finished(alarms: Any, run: Any, record: Any, history: Any) -> None:
        """As in a later release."""

    monkeypatch.setattr(hookspecs, "tick_finished", tick_finished)
    wedge.write_text(WEDGE + "@hookimpl\ndef tick_finished(run, record): run.append(record)\n")
    run: list[Any] = []
    told(wedge, "tick_finished", alarms=1, run=run, record="a record", history=3)
    assert run == ["a record"]


def test_a_hook_under_a_name_of_ones_own(tmp_path: Path) -> None:
    """What pluggy calls a specname; its mistakes are named as any other's."""
    file = tmp_path / "named.py"
    file.write_text("import ganlab\n@ganlab.hookimpl(specname='tick_finished')\ndef mine(record): record.append(1)\n")
    record: list[int] = []
    told(file, "tick_finished", run=None, record=record)
    assert record == [1]
    file.write_text(file.read_text().replace("mine(record)", "mine(recrod)"))
    (failure,) = load_plugins([file]).failures
    assert failure.cause.startswith(
        "line 2: hook 'tick_finished': unknown argument 'recrod'; the hook is tick_finished("
    )
