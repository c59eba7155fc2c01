"""The documents held against the code: what they name is there, what is there they name, what they show works."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import yaml

from ganlab import hookspecs
from ganlab.config import load_experiment
from ganlab.plugins import load_plugins
from ganlab.sweeps import load_sweep
from support import REPOSITORY

FILES = sorted((REPOSITORY / "experiments").glob("*.toml"))
SWEEPS = [path for path in FILES if "base" in tomllib.loads(path.read_text())]
EXPERIMENTS = [path for path in FILES if path not in SWEEPS]


def test_every_hook_is_documented_and_every_documented_hook_is_there() -> None:
    text = (REPOSITORY / "docs" / "hooks.md").read_text()
    for name, value in vars(hookspecs).items():
        if hasattr(value, "ganlab_spec"):
            assert f"`{name}" in text, name
    named = re.findall(r"`((?:register|run|tick|evaluation|checkpoint)_\w+)[`(]", text)
    assert named
    assert all(hasattr(getattr(hookspecs, name), "ganlab_spec") for name in named)


def test_the_architecture_names_every_file_of_the_core() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    files = {file.name for file in (REPOSITORY / "ganlab").glob("*.py")} - {"__init__.py", "__main__.py", "errors.py"}
    assert files - set(re.findall(r"`(\w+\.py)`", text)) == set()
    assert set(re.findall(r"`(\w+\.py)`", text)) - files == set()


def test_every_fault_has_its_test_and_every_test_of_faults_its_row() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", text)) - {"tests/soak.py"}
    tests = REPOSITORY / "tests"
    assert [name for name in named if not (tests / name).is_file()] == []
    assert {f"faults/{file.name}" for file in (tests / "faults").glob("*.py")} - named == set()


def test_every_metric_has_a_section_that_names_its_options() -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    by_name = {section.split("\n")[0]: section for section in sections}
    metrics = load_plugins().registry.of_kind("metric")
    assert metrics
    for metric in metrics:
        for option in attrs.fields_dict(metric.cls):
            assert f"`{option}`" in head + by_name[f"`{metric.name}`"], f"{metric.name}.{option}"


def test_every_launcher_has_a_section_that_names_its_options() -> None:
    text = (REPOSITORY / "docs" / "sweeps.md").read_text()
    by_name = {section.split("\n")[0]: section for section in re.split(r"^## ", text, flags=re.MULTILINE)}
    launchers = load_plugins().registry.of_kind("launcher")
    assert launchers
    for launcher in launchers:
        for option in attrs.fields_dict(launcher.cls):
            assert f"`{option}`" in by_name[f"`{launcher.name}`"], f"{launcher.name}.{option}"


def test_every_tracker_has_a_row_that_names_its_options_and_the_example_is_valid(
    table: dict[str, object], write: Callable[..., Path]
) -> None:
    text = (REPOSITORY / "docs" / "hooks.md").read_text()
    section = text[text.index("\n## Trackers\n") :]
    (toml,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    trackers = load_plugins().registry.of_kind("tracker")
    rows = dict(re.findall(r"^\| `(\w+)` (.*)$", section, re.MULTILINE))
    assert rows.keys() == {tracker.name for tracker in trackers}
    for tracker in trackers:
        for option in attrs.fields_dict(tracker.cls):
            assert f"`{option}`" in rows[tracker.name], f"{tracker.name}.{option}"
    experiment, _ = load_experiment(write(table | tomllib.loads(toml)))
    assert {type(tracker) for tracker in experiment.tracker} == {tracker.cls for tracker in trackers}


def test_the_sweep_that_the_page_shows_is_valid(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "sweeps.md").read_text()
    sweep, launcher = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    base = (REPOSITORY / "experiments" / "digits_mlp.toml").as_posix()
    (tmp_path / "sweep.toml").write_text(sweep.replace("digits_mlp.toml", base))
    assert len(load_sweep(tmp_path / "sweep.toml").planned) == 9
    (tmp_path / "ray.toml").write_text(
        sweep.replace("digits_mlp.toml", base).replace('launcher = "local"', "") + launcher
    )
    assert attrs.asdict(load_sweep(tmp_path / "ray.toml").launcher)["gpus"] == 0.5


def test_every_network_of_features_is_documented_with_its_options() -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    (section,) = re.findall(r"^## Features\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    for features in load_plugins().registry.of_kind("features"):
        for name in (features.name, *attrs.fields_dict(features.cls)):
            assert f"`{name}`" in section, f"{features.name}: {name}"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_says_what_it_shows(path: Path) -> None:
    experiment, _ = load_experiment(path)
    assert experiment.name == path.stem
    assert path.read_text().startswith("# ")
    assert len(path.read_text().split("\n\n")[0]) > 80


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_valid_and_says_what_it_shows(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    assert len(sweep.planned) == len(sweep.variants) * len(sweep.seeds)
    assert len(path.read_text().split("\n\n")[0]) > 80


def test_the_readmes_loss_is_ten_lines_and_trains(
    table: dict[str, object], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    text = (REPOSITORY / "README.md").read_text()
    (source,) = re.findall(r"```python\n# hinge\.py\n(.*?)```", text, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(plugins = .*?)```", text, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    (tmp_path / "hinge.py").write_text(source)
    table |= tomllib.loads(toml)
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err


def test_the_readmes_links_and_pictures_are_there() -> None:
    text = (REPOSITORY / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link.split("#")[0]).exists()] == []


def test_the_readmes_commands_are_those_that_ci_runs() -> None:
    commands = re.findall(r"^python -m pip install .*$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert commands == [
        "python -m pip install -e . && ganlab run experiments/digits_mlp.toml",
        "python -m pip install -e '.[test]' && pytest",
    ]


def test_the_citation_has_the_version_of_the_package() -> None:
    import ganlab

    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert str(citation["version"]) == ganlab.__version__
    assert yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
