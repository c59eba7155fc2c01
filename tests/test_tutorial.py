"""The tutorial, walked as it stands: its files are written and its commands run in order, with fewer steps.

What each command prints is held against what the tutorial says that it prints, but for numbers, times and verdicts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ganlab.run.load_run import load_run
from ganlab.run.run_folder import read_info
from pages import BLOCK, FILE, commands
from support import HERE, REPOSITORY, with_tests_modules

Ganlab = Callable[..., tuple[int, str, str]]
PAGE, GAME_PAGE = ((REPOSITORY / "docs" / f"tutorial{part}.md").read_text() for part in ("", "_game"))

FEWER = [
    *("--set", "train.steps=20"),
    *("--set", "metric.0.samples=64"),
    *("--set", 'metric.0.features={name="classifier",updates=20}'),
]


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\bbetter\b|\bworse\b|\bcannot tell\b", "VERDICT", line)
    line = re.sub(r"/\S*/(?=\w+\.py)", "FOLDER/", line)
    line = re.sub(r"\b[0-9a-f]{12}\b", "HASH", line)
    line = re.sub(r"torch [\w.+]+", "torch", line)
    line = re.sub(r"[+-]?\d[\d,.:]*( ms| s\b)?", "#", line)
    return re.sub(r"[━ ─]+", " ", line).strip()


class Reader:
    """Who does what the tutorial says; `seen` are the commands given."""

    def __init__(self, ganlab: Ganlab) -> None:
        self.ganlab = ganlab
        self.seen: list[str] = []

    def gives(self, command: str) -> str:
        """What a command prints, which must succeed."""
        self.seen.append(command)
        words = shlex.split(command)
        match words[:3]:
            case ["python", "-m", "pip"]:
                return ""
            case ["python", file]:
                done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
                assert (done.returncode, done.stderr) == (0, "")
                return done.stdout
            case ["python", "-m", "pytest"]:
                rest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "quick_timing", *words[3:]]
                done = subprocess.run(rest, env=with_tests_modules(), capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stdout
                return done.stdout
            case ["mkdir", folder, "&&"] if words[3:] == ["cd", folder]:
                Path(folder).mkdir()
                os.chdir(folder)
                return ""
            case ["ganlab", name, _]:
                # A continued run takes more steps than before.
                fewer = FEWER[:2] if "letters.toml" in words else FEWER  # which scores without samples and features
                extra = [*(fewer if name in ("run", "sweep") else []), *(["--launcher", "here"] * (name == "sweep"))]
                extra = [word.replace("steps=20", "steps=25") for word in extra] if "--resume" in words else extra
                code, out, err = self.ganlab(*words[1:], *extra)
                slow = [line for line in err.splitlines() if "images: " not in line]  # progress, on a slow machine
                assert (code, slow) == (0, []), out + err
                return out
        raise AssertionError(f"the tutorial gives a command that nobody here can: {command}")


@pytest.fixture
def walk(ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Does what a page says, in a folder of its own; returns the names of the commands of ganlab that it gives."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))  # where nothing is: the classifier is trained
    monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path / "plugins"))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "here.py").write_text(HERE)
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)  # pytest's options are those of the folder above

    def walk(page: str) -> list[str]:
        reader = Reader(ganlab)
        for language, text in BLOCK.findall(page):
            if name := FILE.match(text):
                Path(name[1]).write_text(text)
            elif language == "console":
                for command, shown in commands(text):
                    printed = [shape(line) for line in reader.gives(command).splitlines()]
                    for line in shown.splitlines():
                        said, cut, _ = line.partition("…")
                        same = str.startswith if cut else str.__eq__
                        assert any(same(real, shape(said)) for real in printed), (command, line, printed)
        return [words.split()[1] for words in reader.seen if words.startswith("ganlab ")]

    return walk


@pytest.mark.extended
@pytest.mark.docs
def test_the_tutorial(walk: Callable[[str], list[str]]) -> None:
    assert walk(PAGE) == ["run", "new", "check", "run", "sweep", "compare", "report"]
    for variant in ("bce", "my_relativistic"):
        for seed in (0, 1, 2):
            info = read_info(Path(f"runs/versus_bce/{variant}/seed-{seed}"))
            assert (info["status"], info["seed"], f"loss.{variant}" in info["components"]) == ("finished", seed, True)
    for file in ("versus_bce.html", "my_relativistic.html"):
        assert "my_relativistic" in Path(file).read_text()


@pytest.mark.extended
@pytest.mark.docs
def test_the_tutorial_of_a_game(walk: Callable[[str], list[str]]) -> None:
    commands = walk(GAME_PAGE)
    assert commands[:6] == ["new", "check", "run", "sample", "run", "sweep"]
    assert commands[-3:] == ["run", "sample", "translate"]
    assert sorted(Path("word_with_serifs").iterdir()) == [Path(f"word_with_serifs/{place}.png") for place in range(6)]
    for variant, weight in (("plain", 0.0), ("adversarial", 0.1)):
        for seed in (0, 1, 2):
            run = load_run(f"runs/adversarial/{variant}/seed-{seed}")
            assert (run.info["status"], run.info["seed"]) == ("finished", seed)
            assert run.experiment.game.weight == weight
    assert load_run("runs/first").step == 25


def test_a_game_of_ones_own_takes_forty_lines() -> None:
    (source,) = [text for _, text in BLOCK.findall(GAME_PAGE) if text.startswith("# my_autoencoder.py")]
    body = source[source.index("@frozen") :]
    body = re.sub(r'"""(.|\n)*?"""', "", body)
    assert len([line for line in body.splitlines() if line.strip()]) <= 40


def test_the_tutorials_loss_is_the_bundled_one(tmp_path: Path) -> None:
    import torch

    from ganlab.testing import conformance
    from ganlab_plugins.losses.relativistic import Relativistic

    (source,) = [text for _, text in BLOCK.findall(PAGE) if text.startswith("# my_relativistic.py")]
    file = tmp_path / "my_relativistic.py"
    file.write_text(source)
    (mine,) = conformance(file)
    real, fake = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    for player in ("discriminator", "generator"):
        assert torch.equal(getattr(mine.cls(), player)(real, fake), getattr(Relativistic(), player)(real, fake))
