"""A third-party distribution, that of docs/publishing.md, held against pip: built, installed with ganlab's wheel,
found, trained with, removed.

The environment is a fresh one with nothing in it but ganlab's wheel. What ganlab needs is too large to install again: a
path file lends it the packages of the tests' own environment, which come after its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import forked_python
import ganlab
from pages import files
from support import REPOSITORY, WEDGE, until

pytestmark = pytest.mark.xdist_group("distribution")

PAGE = files((REPOSITORY / "docs" / "publishing.md").read_text())

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_", "GANLAB_"))}


def done(*command: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, check=False, **more)


def well_done(*command: object) -> str:
    result = done(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Fresh:
    """An environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        well_done(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin" / "python"
        self.packages = next((folder / "lib").glob("python*")) / "site-packages"

    def pip(self, *arguments: object) -> str:
        return well_done(sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def script(self, *arguments: object, cwd: Path) -> tuple[int, str, str]:
        """The command that pip has installed."""
        result = done(self.folder / "bin" / "ganlab", *arguments, cwd=cwd)
        return result.returncode, result.stdout, result.stderr

    @cached_property
    def forked(self) -> Path:
        """An executable file of this environment, for `-m ganlab`: torch is imported once, what is installed is not."""
        sockets = Path(tempfile.mkdtemp(prefix="ganlab-"))  # a socket's path must be short
        modules = ("ganlab.run.train", "torch._dynamo", "sklearn.datasets", "matplotlib.figure")
        command = [self.python, "-P", forked_python.__file__, sockets, *modules]
        self.server = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, env=ENVIRONMENT)
        until(lambda: forked_python.executable(sockets).exists() or self.server.poll() is not None)
        return forked_python.executable(sockets)

    def ganlab(self, *arguments: object, cwd: Path) -> tuple[int, str, str]:
        result = done(self.forked, "-m", "ganlab", *arguments, cwd=cwd)
        return result.returncode, result.stdout, result.stderr

    def close(self) -> None:
        if "forked" in vars(self):
            self.server.communicate()  # which closes its stdin
            shutil.rmtree(self.forked.parent)


def wheel(project: Path, to: Path) -> Path:
    """Builds it; offline, with the build backend that is here."""
    well_done(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", to, project
    )
    (made,) = to.glob("*.whl")
    return made


def third_party(folder: Path, name: str = "ganlab-wedge", version: str = "0.1.0", source: str = WEDGE) -> Path:
    """The wheel of the page's distribution, with its loss `wedge` or another plugin, under another name or version."""
    module = name.replace("-", "_")
    project = PAGE["pyproject.toml"].replace("ganlab-wedge", name).replace("ganlab_wedge", module)
    folder.mkdir()
    (folder / f"{module}.py").write_text(source)
    (folder / "pyproject.toml").write_text(project.replace("0.1.0", version))
    return wheel(folder, folder / "dist")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """ganlab's wheel, and nothing else of its own."""
    made = Fresh(tmp_path_factory.mktemp("fresh"))
    made.pip("install", "--no-deps", "--no-index", wheel(REPOSITORY, tmp_path_factory.mktemp("wheel")))
    # The directory is only added to the path: path files in it, such as an editable ganlab's, are not read.
    (made.packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    where = well_done(
        made.python, "-P", "-c", "import ganlab, ganlab_plugins; print(ganlab.__file__, ganlab_plugins.__file__)"
    )
    assert all(Path(file).is_relative_to(made.packages) for file in where.split()), "not the wheel"
    yield made
    made.close()


@pytest.mark.packaging
def test_the_wheel_holds_every_file_of_both_packages(tmp_path: Path) -> None:
    made = wheel(REPOSITORY, tmp_path)
    held = {name for name in zipfile.ZipFile(made).namelist() if ".dist-info/" not in name}
    packages = {"ganlab": REPOSITORY / "ganlab", "ganlab_plugins": REPOSITORY / "plugins" / "ganlab_plugins"}
    wanted = {
        f"{name}/{file.relative_to(folder).as_posix()}"
        for name, folder in packages.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {"ganlab/py.typed", "ganlab/__init__.pyi", "ganlab_plugins/losses/bce.py"} <= wanted
    assert held == wanted


@pytest.mark.extended
@pytest.mark.packaging
def test_a_distribution_of_its_own(
    fresh: Fresh, tmp_path: Path, table: dict[str, Any], write: Callable[..., Path]
) -> None:
    fresh.pip("install", "--no-index", third_party(tmp_path / "one"))

    code, out, err = fresh.script("plugins", "wedge", "--json", cwd=tmp_path)
    assert code == 0, err
    (found,) = json.loads(out)["components"]
    assert found["origin"]["distribution"] == "ganlab-wedge"
    assert found["origin"]["version"] == "0.1.0"
    assert found["origin"]["location"] == f"{fresh.packages / 'ganlab_wedge.py'}:6"

    table["dataset"] = {"name": "ring", "count": 64}  # whose import takes no time
    table["train"] |= {"steps": 2, "log_every": 1, "checkpoint_every": 0}
    table["metric"] = [{"name": "fid", "samples": 16, "features": "pixels"}]
    table["floor"] = False
    base = write(table)
    variants = {"bce": {}, "wedge": {"loss": {"name": "wedge", "margin": 0.5}}}
    sweep = tmp_path / "losses.toml"
    sweep.write_text(tomli_w.dumps({"base": base.name, "seeds": [0, 1], "variants": variants}))
    code, out, err = fresh.ganlab("sweep", sweep, "--out", "s", "--jobs", 2, cwd=tmp_path)
    assert code == 0, out + err
    runs = [tmp_path / "s" / "wedge" / f"seed-{seed}" for seed in (0, 1)]
    for run in runs:
        record = json.loads((run / "run.json").read_text())
        plugin = record["components"]["loss.wedge"]
        assert (plugin["distribution"], plugin["version"]) == ("ganlab-wedge", "0.1.0")
        assert record["versions"]["ganlab"] == ganlab.__version__
    code, out, err = fresh.ganlab("compare", "s", "--metric", "fid", "--baseline", "bce", "--json", cwd=tmp_path)
    assert code == 0, err
    (compared,) = json.loads(out)
    assert {row["variant"]: row["final"]["count"] for row in compared["rows"]} == {"bce": 2, "wedge": 2}

    fresh.pip("install", "--no-index", third_party(tmp_path / "other", "ganlab-zwedge", "0.3"))
    again = runs[0] / "experiment.toml"
    code, _, err = fresh.ganlab("run", again, "--dry-run", cwd=tmp_path)
    assert (code, err) == (
        2,
        f"{again}: loss.name: the loss 'wedge' is registered by more than one plugin: ganlab-wedge:wedge (ganlab-wedge "
        "0.1.0), ganlab-zwedge:wedge (ganlab-zwedge 0.3); --no-plugin ganlab-zwedge:wedge excludes one\n",
    )

    fresh.pip("uninstall", "-y", "ganlab-wedge", "ganlab-zwedge")
    code, _, err = fresh.ganlab("run", again, "--dry-run", cwd=tmp_path)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"{again}: loss.name: unknown loss 'wedge'")
    code, out, err = fresh.ganlab("sample", runs[0], cwd=tmp_path)
    assert code == 0, out + err  # samples need no loss


@pytest.mark.extended
@pytest.mark.packaging
def test_a_game_of_a_distribution(fresh: Fresh, tmp_path: Path, write: Callable[..., Path]) -> None:
    """CycleGAN from a package: trained, resumed to the bit, sampled, scored, compared, and removed."""
    source = (REPOSITORY / "tests" / "methods" / "cyclegan.py").read_text()
    fresh.pip("install", "--no-index", third_party(tmp_path / "game", "ganlab-cycle", source=source))
    table = {
        "game": {"name": "small_cyclegan", "width": 4, "pool": 16},
        "dataset": "digits",
        "source": "digits",
        "train": {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2},
        "metric": [{"name": "fid", "samples": 16, "features": "pixels"}],
        "floor": False,
    }
    file = write(table, "cycle.toml")

    def done(*arguments: object) -> str:
        code, out, err = fresh.ganlab(*arguments, cwd=tmp_path)
        assert code == 0, out + err
        return out

    done("run", file, "--out", "whole/a")
    done("run", file, "--out", "whole/b", "--set", "seed=1")
    done("run", file, "--out", "parts", "--set", "train.steps=2")
    done("run", file, "--out", "parts", "--resume")
    one, other = (
        sorted((tmp_path / run / "checkpoints" / "step-00000004").glob("*.safetensors")) for run in ("whole/a", "parts")
    )
    assert {file.name: file.read_bytes() for file in one} == {file.name: file.read_bytes() for file in other}
    origin = json.loads((tmp_path / "whole" / "a" / "run.json").read_text())["components"]["game.small_cyclegan"]
    assert (origin["distribution"], origin["version"]) == ("ganlab-cycle", "0.1.0")
    done("sample", "parts", "--count", 4, "--out", "grid.png")
    assert "fid" in done("eval", "parts")
    (compared,) = json.loads(done("compare", "whole", "--metric", "fid", "--json"))
    assert [row["final"]["count"] for row in compared["rows"]] == [2]
    fresh.pip("uninstall", "-y", "ganlab-cycle")
    code, _, err = fresh.ganlab("run", file, "--dry-run", cwd=tmp_path)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"{file}: game.name: unknown game 'small_cyclegan'")
    code, out, err = fresh.script("report", "parts", "--html", "page.html", cwd=tmp_path)
    assert code == 0, out + err


@pytest.mark.extended
@pytest.mark.docs
def test_the_pages_own_test(tmp_path: Path) -> None:
    ((name, text),) = [(name, text) for name, text in PAGE.items() if name.startswith("test_")]
    (tmp_path / name).write_text(text)
    # The page's module is the README's loss.
    (loss,) = [text for file, text in files((REPOSITORY / "README.md").read_text()).items() if file == "wedge.py"]
    (tmp_path / name.removeprefix("test_")).write_text(loss)
    assert "1 passed" in well_done(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", tmp_path, tmp_path)
