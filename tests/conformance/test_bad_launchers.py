"""The conformance checks of trackers and launchers, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, launcher, tracker

pytestmark = pytest.mark.usefixtures("quick_timing")


BAD: dict[str, BadPlugin] = {
    "tracker changes": (tracker('record["mine"] = 1'), "# log", "records", "changes the record"),
    "tracker raises": (tracker('record["no such"]  # here'), "# here", "records", "KeyError"),
    "tracker close": (tracker(close="pass"), "# build", "empty run", "lacks close()"),
    "tracker resumed": (
        tracker().replace(
            "return Log()", "return Log() if run.resumed_from is None else Log(run.resumed_from)  # here"
        ),
        "# here",
        "resumes",
        "TypeError: Log() takes no arguments",
    ),
    "launcher at once": (
        launcher("process.returncode", "process.terminate(); process.wait()", jobs="9"),
        "# launch",
        "launches",
        "runs 3 tasks at a time where it is asked for 2",
    ),
    "launcher overwrites": (
        launcher("process.returncode", "process.terminate(); process.wait()", mode="wb"),
        "# launch",
        "launches",
        "overwrites a task's log",
    ),
    "launcher codes": (launcher("0", "process.terminate(); process.wait()"), "# launch", "launches", "ended with"),
    "launcher leaves": (launcher("process.returncode", "pass"), "# launch", "stops", "leaves a task running"),
    "launcher kills": (
        launcher("process.returncode", "process.kill(); process.wait()"),
        "# launch",
        "stops",
        "without letting it save",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
