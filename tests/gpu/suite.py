"""Part of the GPU script: the tests of the suite that are marked `cuda`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from gpu.part import Part

TESTS = Path(__file__).parents[1]
MARK = "mark.cuda"


def run(part: Part) -> None:
    files = [str(file) for file in sorted(TESTS.rglob("test_*.py")) if MARK in file.read_text()]
    report = part.folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    code = subprocess.run([*command, "--rootdir", str(TESTS.parent)], cwd=TESTS.parent, check=False).returncode
    if not report.exists():
        part.fault(f"pytest ended with exit code {code} and no report")
        return
    skipped = 0
    for case in ElementTree.parse(report).iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if case.find("skipped") is not None:
            skipped += 1
            continue
        name = f"{case.get('classname', '').removeprefix('tests.')}: {case.get('name')}"
        part.row(test=name, result="failed" if problem is not None else "ok", seconds=float(case.get("time", 0)))
        if problem is not None:
            part.fault(f"{name}: {' '.join((problem.get('message') or '').split())[:300]}")
    if skipped:
        part.leave_out(f"{skipped} tests of {len(files)} files, which need CUDA")
