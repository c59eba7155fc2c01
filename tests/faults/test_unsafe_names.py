"""Names that become folders: whatever is written, it is refused in one line, or the folder lies inside runs/."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from ganlab.config.load import experiment_from_table, load_experiment
from ganlab.config.toml import read_toml
from ganlab.plugin.loader import load_plugins
from ganlab.run.open_folder import choose_folder
from ganlab.run.request import RunRequest
from ganlab.sweep.plan import load_sweep
from ganlab.utils.errors import UserError
from run_folders import HELD

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

TABLE: dict[str, Any] = {
    "dataset": "digits",
    "generator": "mlp",
    "discriminator": "mlp",
    "loss": "bce",
    "train": {"steps": 1},
}

SLY = [
    *(
        "../x",
        "..",
        ".",
        "",
        "/tmp/x",
        "a/b",
        "a\\b",
        "C:x",
        "~",
        "~root",
        "-rf",
        "a/../../x",
        ".hidden",
        "a\0b",
        "a\n",
    ),
    *(
        "a\r",
        "\r",
        "\x1b[31m",
        "a b",
        "\uff41",
        "a" * 101,
        "a" * 40_000,
        "$HOME",
        "`id`",
        "..%2f",
        "a\u202eb",
        "con",
        "a.",
        "aux.txt",
        "a/",
    ),
]

NAMES = st.one_of(
    st.sampled_from(SLY),
    st.text(max_size=12),
    st.text(alphabet="ab01./\\-_~ \n", max_size=10),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder to be in, with a link and a file that names might lead to."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name, "here").resolve()
        (here / "runs").mkdir(parents=True)
        os.chdir(here)
        try:
            yield here
        finally:
            os.chdir(before)


def lies_inside(path: Path, folder: Path) -> bool:
    resolved = path.resolve()
    return resolved.is_relative_to(folder) and resolved != folder


def one_line(error: UserError, file: Path) -> bool:
    lines = str(error).split("\n")
    return len(lines) == 1 and lines[0].startswith(f"{file}: ") and lines[0].isprintable() and len(lines[0]) < 300


load = cache(load_plugins)


@settings(deadline=None, max_examples=80)
@given(name=NAMES)
def test_the_name_of_an_experiment(name: str) -> None:
    with own_folder() as here:
        file = here / "e.toml"
        file.write_text(tomli_w.dumps({"name": name, **TABLE}), encoding="utf-8")
        try:
            experiment, _ = experiment_from_table(read_toml(file), file, load=load)
        except UserError as error:
            assert one_line(error, file), str(error)  # noqa: PT017 - refused or inside, and both are looked at
            return
        path = choose_folder(RunRequest(file), experiment)
        assert lies_inside(path, here / "runs")
        assert path.parent.parent == Path("runs")
        path.mkdir(parents=True)  # a name that no folder can have would fail here


@pytest.mark.extended
@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(name=NAMES)
def test_the_name_of_an_experiment_by_a_setting(name: str) -> None:
    with own_folder() as here:
        file = here / "e.toml"
        file.write_text(tomli_w.dumps(TABLE))
        try:
            experiment, _ = load_experiment(file, [f"name={name}"])
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017 - as above
            return
        assert lies_inside(choose_folder(RunRequest(file), experiment), here / "runs")


@pytest.mark.extended
@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(stem=NAMES.filter(lambda name: name not in ("", ".", "..") and not set("/\0") & set(name)))
def test_the_name_of_the_file_where_it_has_none(stem: str) -> None:
    with own_folder() as here:
        file = here / f"{stem}.toml"
        try:
            file.write_text(tomli_w.dumps(TABLE))
        except OSError:  # no file can be called that
            return
        try:
            experiment, _ = load_experiment(file)
        except UserError as error:
            assert "it has no key name, and its file's name cannot be used instead" in str(error)  # noqa: PT017 - as above
            return
        assert lies_inside(choose_folder(RunRequest(file), experiment), here / "runs")


@pytest.mark.extended
@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(name=NAMES, variant=NAMES)
def test_the_names_of_a_sweep_and_of_its_variants(name: str, variant: str) -> None:
    with own_folder() as here:
        (here / "base.toml").write_text(tomli_w.dumps(TABLE))
        file = here / "s.toml"
        table = {"name": name, "base": "base.toml", "variants": {variant: {"train": {"checkpoint_keep": 1}}}}
        file.write_text(tomli_w.dumps(table), encoding="utf-8")
        try:
            sweep = load_sweep(file)
        except UserError as error:
            lines = str(error).split("\n")
            assert 1 <= len(lines) <= 2
            assert all(line.startswith(f"{file}: ") and line.isprintable() and len(line) < 300 for line in lines)
            return
        out = Path("runs") / sweep.name
        assert lies_inside(out, here / "runs")
        for run in sweep.planned:
            for path in (run.folder(out), run.log(out), run.folder(out).with_suffix(".toml")):
                assert lies_inside(path, here / "runs" / sweep.name)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/ganlab-escaped", 3, ["a"], ""])
def test_a_sweep_by_such_a_name_writes_nothing(name: object, ganlab: Command, write: Write, tmp_path: Path) -> None:
    write(TABLE, "base.toml")
    file = write({"name": name, "base": "base.toml", "variants": {"a": {"train": {"checkpoint_keep": 1}}}}, "s.toml")
    code, _, said = ganlab("sweep", file)
    assert code == 2
    assert said.startswith(f"{file}: name: a name is letters, digits, '.', '_' and '-', at most 100")
    assert len(said.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.toml", "s.toml"]
    assert not Path("/tmp/ganlab-escaped").exists()


COMPONENTS = ["dataset", "generator", "discriminator", "loss", "optimizer"]


@pytest.mark.extended
@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from(COMPONENTS), name=NAMES)
def test_the_name_of_a_component(kind: str, name: str) -> None:
    """It becomes no path; an unknown one is reported in one line, however it is written."""
    known = {"dataset": "digits", "loss": "bce", "optimizer": "adam"}.get(kind, "mlp")
    with own_folder() as here:
        file = here / "e.toml"
        for value in (name, {"name": name}):
            file.write_text(tomli_w.dumps({**TABLE, kind: value}), encoding="utf-8")
            try:
                load_experiment(file)
            except UserError as error:
                assert one_line(error, file), str(error)  # noqa: PT017 - as above
            else:
                assert name == known


@pytest.mark.extended
@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(name=NAMES)
def test_the_name_in_a_resolved_file_is_looked_at_again(name: str) -> None:
    """An untrusted run folder holds an experiment too; only --out decides where its run is written."""
    with own_folder() as here:
        folder = here / "other"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(HELD))
        file = folder / "experiment.toml"
        file.write_text(tomli_w.dumps({"name": name, **TABLE}), encoding="utf-8")
        assert tomllib.loads(file.read_text(encoding="utf-8"))["name"] == name
        try:
            experiment, _ = experiment_from_table(read_toml(file), file, load=load)
        except UserError as error:
            assert one_line(error, file), str(error)  # noqa: PT017 - as above
            return
        assert choose_folder(RunRequest(file, resume=True), experiment) == folder
        assert lies_inside(choose_folder(RunRequest(file), experiment), here / "runs")
