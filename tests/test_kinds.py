"""The pages of the kinds of plugins: each page's plugin passes `ganlab check` as the page shows it, and trains."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ganlab.plugins import load_plugins
from ganlab.registry import KINDS
from pages import BLOCK, commands, files, timeless
from support import REPOSITORY

Ganlab = Callable[..., tuple[int, str, str]]
FOLDER = REPOSITORY / "docs" / "kinds"


@pytest.fixture
def page(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind's page, with its plugin and the data that it speaks of in the current folder."""
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path))
    digits = load_digits()
    np.savez("digits.npz", images=(digits.images * 15).astype(np.uint8)[..., None], labels=digits.target)
    text = (FOLDER / f"{kind}.md").read_text()
    ((name, source),) = files(text).items()
    Path(name).write_text(source)
    return text


def test_every_kind_has_its_page_and_every_page_its_kind() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*KINDS, "index"}
    index = (FOLDER / "index.md").read_text()
    (toctree,) = [text for text in index.split("```") if text.startswith("{toctree}")]
    assert toctree.split("\n\n")[1].split() == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_that_a_page_shows(kind: str, page: str, ganlab: Ganlab, tmp_path: Path) -> None:
    (console,) = [text for language, text in BLOCK.findall(page) if language == "console"]
    ((command, shown),) = commands(console)
    words = shlex.split(command)
    assert words[:3] == ["ganlab", "check", *files(page)]
    code, out, err = ganlab(*words[1:])
    assert (code, err) == (0, "")
    assert timeless(out.replace(str(tmp_path), "/home/ada/gan")) == timeless(shown)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_page_shows_trains(
    kind: str,
    page: str,
    table: dict[str, object],
    write: Callable[..., Path],
    ganlab: Ganlab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (toml,) = [text for language, text in BLOCK.findall(page) if language == "toml"]
    assert len(toml.splitlines()) <= 2
    given = tomllib.loads(toml)
    (plugin,) = files(page)
    if kind == "launcher":
        monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "plugins"))))
        write(table)
        sweep = write({"base": "tiny.toml", "variants": {"a": {}}, **given}, "sweep.toml")
        code, out, err = ganlab("sweep", sweep, "--out", "s")
        assert (code, err) == (0, "")
        assert json.loads(Path("s/a/seed-0/run.json").read_text())["status"] == "finished"
        return
    code, out, err = ganlab("run", write(table | given), "--out", "r")
    assert code == 0, out + err
    used = json.loads(Path("r/run.json").read_text())["components"]
    (mine,) = [name for name, origin in used.items() if origin["plugin"] == Path(plugin).stem]
    assert mine.startswith(f"{kind}.")


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_shows_what_is_bundled(kind: str) -> None:
    (name,) = files((FOLDER / f"{kind}.md").read_text())
    assert Path(name).stem not in {part.name for part in load_plugins().registry.of_kind(kind)}
