"""The wheels that a GPU machine without network lacks: what to bring, and their installation beside all else."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

NEEDED_BY = {
    "cattrs": ("typing-extensions",),
    "cyclopts": ("docstring-parser", "rich-rst"),
    "lazy-loader": ("packaging",),
    "matplotlib": (
        *("contourpy", "cycler", "fonttools", "kiwisolver", "packaging", "pillow", "pyparsing", "python-dateutil"),
    ),
    "pytest": ("iniconfig", "packaging", "pluggy", "pygments"),
    "python-dateutil": ("six", "tzdata"),
    "rich": ("markdown-it-py", "pygments"),
    "markdown-it-py": ("mdurl",),
    "rich-rst": ("docutils", "pygments", "rich"),
    "scikit-learn": ("joblib", "threadpoolctl"),
    "torch-fidelity": ("tqdm",),
}
"""What ganlab's dependencies need in their turn, which cannot be asked of what is not installed; a test holds it.

Without torch and torchvision, which the machine has, and what these need.
"""


def wanted() -> list[str]:
    """The requirements of ganlab and of its CUDA tests, as pyproject.toml has them."""
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    tests = [text for text in table["optional-dependencies"]["test"] if name_of(text) == "pytest"]
    return [*table["dependencies"], *tests]


def missing(site: Path | None = None) -> list[str]:
    """The requirements that are not installed, neither here nor in the folder `site`, or are too old.

    With each comes what it needs in its turn, if that is missing too.
    """
    versions: dict[str, str] = {}
    for one in importlib.metadata.distributions(path=[*([str(site)] if site else []), *sys.path]):
        versions.setdefault(name_of(one.metadata["Name"] or ""), one.version)
    found: dict[str, str] = {}
    waiting = wanted()
    for text in waiting:
        name = name_of(text)
        if name not in found and not _satisfied(text, versions.get(name)):
            found[name] = text
            waiting += NEEDED_BY.get(name, ())
    return list(found.values())


def _satisfied(requirement: str, version: str | None) -> bool:
    least = re.search(r">=([\d.]+)", requirement)
    return version is not None and (least is None or _numbers(version) >= _numbers(least[1]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))


def name_of(requirement: str) -> str:
    """The name of a distribution in a requirement, as indices spell it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement.strip(), maxsplit=1)[0]).lower()


def download_command(requirements: list[str], folder: Path) -> str:
    """The command that downloads wheels for this machine, to be run on one that has a network."""
    machine = sysconfig.get_platform().rpartition("-")[2].replace("-", "_")
    platforms = [f"manylinux{version}_{machine}" for version in ("2014", "_2_17", "_2_28")]
    options = [
        *("--dest", str(folder), "--no-deps", "--only-binary=:all:"),
        *("--python-version", f"{sys.version_info.major}.{sys.version_info.minor}"),
        *(part for platform in platforms for part in ("--platform", platform)),
    ]
    return " ".join(["python -m pip download", *options, *(f"'{text}'" for text in requirements)])


def install(requirements: list[str], wheels: Path, site: Path) -> str:
    """Installs wheels of a folder into a folder of their own; returns what pip said of those that it could not.

    One by one, so that one that does not fit here keeps no other from being installed.
    """
    said = []
    options = ["--no-index", "--no-deps", "--quiet", "--find-links", str(wheels), "--target", str(site), "--upgrade"]
    for text in requirements:
        command = [sys.executable, "-m", "pip", "install", *options, text]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            said.append(f"{text}: {' '.join(result.stderr.split())[-300:]}")
    return "; ".join(said)
