"""`bash tests/gpu/run` where there is no GPU: parts that fail, that run out of time, that are rehearsed; its page."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from gpu import page, wheels
from gpu.__main__ import run_parts
from gpu.plan import PARTS, TOTAL, Planned
from support import REPOSITORY

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a rehearsal is for machines without a GPU")

FAILING = """
def run(part):
    part.row(step=1, loss=0.5)
    part.fault("<weights> differ")
    raise RuntimeError("no kernel image is available")
"""
SLOW = """
import subprocess, sys, time
from pathlib import Path

def run(part):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (part.folder / "pid").write_text(str(child.pid))
    part.row(step=1, seconds=part.seconds)
    time.sleep(600)
"""
WHOLE = """
def run(part):
    part.row(step=1, rehearsed=part.rehearsed, device=part.device)
"""


@no_gpu
@pytest.mark.extended
@pytest.mark.slow
def test_a_part_that_fails_and_one_that_runs_out_of_time_keep_no_other_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("failing", FAILING), ("slow", SLOW), ("whole", WHOLE)):
        (tmp_path / f"{name}_part.py").write_text(text)
    source = os.pathsep.join(map(str, (tmp_path, REPOSITORY / "tests", REPOSITORY, REPOSITORY / "plugins")))
    monkeypatch.setenv("PYTHONPATH", source)
    monkeypatch.delenv("DEVICE", raising=False)
    limits = {"failing": 60.0, "slow": 1.0, "whole": 60.0}
    out = tmp_path / "out"
    parts = [Planned(name, f"{name}_part", f"the {name} one", limit) for name, limit in limits.items()]
    found = run_parts(parts, out, 200)

    assert json.loads((out / "results.json").read_text()) == found
    by_name = {part["name"]: part for part in found["parts"]}
    assert {name: part["status"] for name, part in by_name.items()} == {
        "failing": "failed",
        "slow": "out of time",
        "whole": "rehearsed",
    }
    assert by_name["failing"]["rows"] == [{"step": 1, "loss": 0.5}]
    assert by_name["failing"]["faults"] == ["<weights> differ"]
    assert "RuntimeError: no kernel image is available" in by_name["failing"]["last_lines"][-1]
    assert by_name["slow"]["rows"] == [{"step": 1, "seconds": 4.0}], "what it had found is kept"
    assert by_name["whole"]["rows"] == [{"step": 1, "rehearsed": True, "device": "cpu"}]
    child = (out / "slow" / "pid").read_text()
    assert ended(int(child)), "what a part has started ends with it"
    shown = (out / "page.html").read_text()
    assert "of 3 parts 1 failed, 1 out of time, 1 rehearsed" in shown
    assert "&lt;weights&gt; differ" in shown
    assert "passed" not in shown


def ended(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@no_gpu
@pytest.mark.extended
@pytest.mark.slow
def test_the_script_without_a_gpu_is_a_rehearsal(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment.pop("DEVICE", None)
    command = ["bash", str(REPOSITORY / "tests/gpu/run"), str(tmp_path / "out"), "--parts", "kernels"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["rehearsed"]
    (part,) = found["parts"]
    assert (part["status"], part["faults"]) == ("rehearsed", [])
    assert {row["float32, deterministic"] for row in part["rows"]} <= {"same", "refused"}
    assert len(part["rows"]) == 5
    assert any("kernels of a GPU" in text for text in part["left_out"])
    shown = (tmp_path / "out/page.html").read_text()
    assert "ganlab, rehearsed on" in shown
    assert "passed" not in shown


def results(**changes: Any) -> dict[str, Any]:
    part = {
        "name": "resume",
        "about": "resumed against whole",
        "status": "passed",
        "device": "cuda",
        "seconds": 3.0,
        "limit": 40,
        "rows": [{"run": "captured", "steps": 12345, "share": 0.5, "none": None, "same": True}],
    }
    machine = {"gpu": "H200", "torch": "2.11"}
    table = {"began": "2026-01-01", "rehearsed": False, "device": "cuda", "machine": machine, "parts": [part]}
    return table | changes


def test_a_page_says_what_a_gpu_passed_and_what_is_missing() -> None:
    shown = page.page_of(results(missing=["cattrs"], download="python -m pip download 'cattrs>=24.1'"))
    assert "ganlab, tested on H200: of 1 parts 1 passed" in shown
    for cell in ("<td>captured</td>", '<td class="number">12,345</td>', '<td class="number">0.5</td>', "<td>yes</td>"):
        assert cell in shown
    assert "pip download &#x27;cattrs&gt;=24.1&#x27;" in shown
    assert "rehearsed" not in shown.partition("<body>")[2]


def test_the_parts_fit_in_the_time_that_the_script_has() -> None:
    """But the last, which takes what the others leave."""
    *others, last = PARTS
    assert sum(part.seconds for part in others) <= TOTAL - 50
    assert last.name == "training"
    assert len({part.name for part in PARTS}) == len(PARTS)


HAS = ("torch", "torchvision", "torchmetrics", "attrs", "pluggy", "rich", "scipy", "scikit-learn", "safetensors")
"""What the machine has that the script is for."""


def needed_by(name: str) -> set[str]:
    """What an installed distribution needs, by its metadata, and what that needs."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for text in importlib.metadata.requires(waiting.pop()) or []:
            requirement = Requirement(text)
            other = wheels.name_of(requirement.name)
            if other not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(other)
                waiting.append(other)
    return found


def test_what_to_bring_is_what_the_metadata_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wheels.missing() == [], "all of it is installed here"
    own = [wheels.name_of(text) for text in wheels.wanted()]
    here = set(HAS).union(*map(needed_by, HAS))
    wanted = set(own).union(*map(needed_by, own)) - here
    monkeypatch.setattr(sys, "path", [])  # nothing is installed
    lacking = wheels.missing()
    assert wanted - {wheels.name_of(text) for text in lacking} == set()
    command = wheels.download_command([text for text in lacking if wheels.name_of(text) in wanted], Path("wheels"))
    assert command.startswith("python -m pip download --dest wheels --no-deps ")
    assert "'cyclopts>=5'" in command
    assert "'docstring-parser'" in command
    assert "'torch>=" not in command


def test_a_distribution_that_is_too_old_is_missing() -> None:
    assert not wheels._satisfied("attrs>=25.4", "24.2.0")
    assert wheels._satisfied("attrs>=25.4", "25.4.0")
    assert wheels._satisfied("torch>=2.11", "2.11.0+cu130")
    assert not wheels._satisfied("cattrs>=24.1", None)
