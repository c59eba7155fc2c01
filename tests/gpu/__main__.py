"""The GPU script: runs its parts one after another, and writes `results.json` and `page.html` after each."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu import page, wheels
from gpu.plan import PARTS, TOTAL, Planned

REPOSITORY = wheels.REPOSITORY
ABOUT = """
import json, platform, torch
about = {"python": platform.python_version(), "torch": torch.__version__, "gpus": torch.cuda.device_count()}
if about["gpus"]:
    found = torch.cuda.get_device_properties(0)
    about |= {"gpu": found.name, "gigabytes": round(found.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    about["cudnn"] = torch.backends.cudnn.version()
else:
    try:
        from ganlab.testing import pretend
        about["no_pretend_device"] = pretend.why_missing()
    except ImportError as error:
        about["no_pretend_device"] = str(error)
print(json.dumps(about))
"""
SMALLEST = 5.0
"""Seconds under which a part is not begun."""

PATIENCE = 4.0
"""How many times the limit of a part a rehearsal may take, on a machine that may be busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code is 1 where a part failed or was cut off, else 0."""
    parser = argparse.ArgumentParser(prog="bash tests/gpu/run", description="Everything that needs a GPU.")
    parser.add_argument("folder", nargs="?", default=os.environ.get("OUT") or "gpu_results", type=Path)
    parser.add_argument("--parts", help="names, separated by commas: " + ", ".join(part.name for part in PARTS))
    parser.add_argument("--seconds", type=float, default=TOTAL, help="for all parts together")
    given = parser.parse_args(arguments)
    names = given.parts.split(",") if given.parts else [part.name for part in PARTS]
    if unknown := sorted(set(names) - {part.name for part in PARTS}):
        parser.error(f"--parts: no part {', '.join(unknown)}; there are {', '.join(part.name for part in PARTS)}")
    parts = [part for part in PARTS if part.name in names]
    results = run_parts(parts, given.folder.resolve(), given.seconds)
    return int(any(part["status"] in ("failed", "out of time") for part in results["parts"]))


def run_parts(parts: Sequence[Planned], folder: Path, seconds: float) -> dict[str, Any]:
    """Runs parts within a time for all of them; returns what `results.json` in the folder holds."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    site = folder / "site"
    results: dict[str, Any] = {"began": time.strftime("%Y-%m-%d %H:%M:%S"), **_wheels(site), "parts": []}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*filter(None, [str(site), os.environ.get("PYTHONPATH")])]),
        "GANLAB_CACHE": os.environ.get("GANLAB_CACHE") or str(folder / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("GANLAB_PLUGINS", None)
    results["machine"] = _about(environment)
    device = os.environ.get("DEVICE") or "cuda"
    results["rehearsed"] = not (device.startswith("cuda") and results["machine"].get("gpus"))
    if results["rehearsed"]:  # on a machine that may be busy, where two threads would keep waiting for each other
        environment.setdefault("OMP_NUM_THREADS", "1")
    pretend = results["rehearsed"] and results["machine"].pop("no_pretend_device", "none") == ""
    results["device"] = device if not results["rehearsed"] else "the CPU and a pretend device" if pretend else "the CPU"
    results["commit"] = _commit()
    waiting = [{"name": part.name, "about": part.about, "status": "not run"} for part in parts]
    results["parts"] = waiting
    write(results, folder)
    for index, part in enumerate(parts):
        on = device
        if results["rehearsed"]:
            on = "pretend" if pretend and part.rehearsed_on == "pretend" else "cpu"
        left = seconds - (time.monotonic() - began)
        if left < SMALLEST:
            break
        print(f"{part.name}: {part.about}", flush=True)
        limit = min(part.seconds * (PATIENCE if results["rehearsed"] else 1), left)
        found = run_part(part, folder, on, results["rehearsed"], limit, environment)
        waiting[index] = found
        results["seconds"] = round(time.monotonic() - began, 1)
        write(results, folder)
        print(f"  {found['status']} in {found['seconds']} s; {folder / 'page.html'}", flush=True)
    return results


def run_part(
    part: Planned, folder: Path, device: str, rehearsed: bool, seconds: float, environment: dict[str, str]
) -> dict[str, Any]:
    """Runs one part in a child until its time is over; returns what it found and how it ended."""
    file, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    file.unlink(missing_ok=True)
    settings = json.dumps({"device": device, "rehearsed": rehearsed, "seconds": seconds})
    command = [sys.executable, "-m", "gpu.part", part.module, str(file), settings]
    began = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True
        )
        code = _wait(child, seconds)
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    faults = found.get("faults", [])
    if code is None:
        status = "out of time"
    elif code or faults:
        status = "failed"
    elif not found.get("rows"):
        status = "left out" if found.get("left_out") else "failed"
    else:
        status = "rehearsed" if rehearsed else "passed"
    return {
        "name": part.name,
        "about": part.about,
        "status": status,
        "device": device,
        "seconds": round(time.monotonic() - began, 1),
        "limit": round(seconds, 1),
        "exit_code": code,
        **found,
        "log": log.name,
        "last_lines": _last_lines(log) if status in ("failed", "out of time") else [],
    }


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code of a child, or None where it and all that it started were killed since its time was over."""
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def write(results: dict[str, Any], folder: Path) -> None:
    """Writes the JSON file and the page, each whole or not at all."""
    texts: dict[str, Callable[[], str]] = {
        "results.json": lambda: json.dumps(results, indent=1),
        "page.html": lambda: page.page_of(results),
    }
    for name, text in texts.items():
        temporary = folder / f"{name}.part"
        temporary.write_text(text())
        temporary.replace(folder / name)


def _wheels(site: Path) -> dict[str, Any]:
    """Installs what is missing and there as a wheel; what is missing still, and how to have it."""
    wheels_folder = Path(os.environ.get("WHEELS") or Path(__file__).with_name("wheels"))
    lacking, said = wheels.missing(site), ""
    if lacking and wheels_folder.is_dir():
        said = wheels.install(lacking, wheels_folder, site)
        lacking = wheels.missing(site)
    if not lacking:
        return {"missing": []}
    command = wheels.download_command(lacking, wheels_folder)
    print(f"not installed here: {', '.join(lacking)}\nwith a network: {command}\n{said}".strip(), flush=True)
    return {"missing": lacking, "download": command, "installing": said}


def _about(environment: dict[str, str]) -> dict[str, Any]:
    """What a child says of the machine and of torch, or what it fails with."""
    command = [sys.executable, "-c", ABOUT]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        return {"python": sys.version.split()[0], "torch": result.stderr.strip().rpartition("\n")[2]}
    return dict(json.loads(result.stdout))


def _commit() -> str:
    try:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-12:]


if __name__ == "__main__":
    sys.exit(main())
