"""The documents held against the code: what they name is there, what is there they name, what they show works."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import yaml

from ganlab.config.describe import class_description, option_docs
from ganlab.config.load import load_experiment
from ganlab.config.schema import Experiment, InitFrom, Train
from ganlab.plugin import hookspecs
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.run.run_folder import read_info
from ganlab.sweep.plan import SweepFile, load_sweep
from support import REPOSITORY

FILES = sorted((REPOSITORY / "experiments").glob("*.toml"))
SWEEPS = [path for path in FILES if "base" in tomllib.loads(path.read_text())]
EXPERIMENTS = [path for path in FILES if path not in SWEEPS]


def test_every_hook_is_documented_with_its_arguments_and_an_example() -> None:
    page = (REPOSITORY / "docs" / "hooks.md").read_text()
    hooks = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "ganlab_spec")}
    documented = re.findall(
        r"^(?:### |\| )`((?:register|run|tick|evaluation|checkpoint)_\w+\(.*?\))`", page, re.MULTILINE
    )
    assert sorted(documented) == sorted(
        f"{name}({', '.join(inspect.signature(hooks[name]).parameters)})" for name in hooks
    )
    examples = {kind.hook: (REPOSITORY / "docs" / "kinds" / f"{table}.md") for table, kind in KINDS.items()}
    for name in hooks:
        text = examples[name].read_text() if name in examples else page
        assert f"@hookimpl\ndef {name}(" in text.replace("@ganlab.", "@"), name


def test_the_plugin_that_has_every_hook_of_a_run_is_told(
    table: dict[str, object],
    write: Callable[..., Path],
    ganlab: Callable[..., tuple[int, str, str]],
) -> None:
    page = (REPOSITORY / "docs" / "hooks.md").read_text()
    (section,) = re.findall(r"^## During a run\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    Path("watcher.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)))
    table["metric"] = [{"name": "fid", "samples": 128, "features": "pixels"}]
    code, out, err = ganlab("run", write(table), "--out", "r", "--plugin", "watcher.py")
    assert code == 0, err
    assert re.search(r"^r: fid [\d.]+ at step 0$", out, re.MULTILINE), out
    assert re.search(r"^r: finished$", out, re.MULTILINE), out
    assert Path("r/hosts.txt").read_text().endswith(" from step 0\n")
    kept = {path.name for path in Path("r/checkpoints").iterdir()}
    assert kept
    assert kept <= {path.name for path in Path("backup/r").iterdir()}
    assert "plugin_failures" not in read_info(Path("r"))


@pytest.mark.parametrize("cls", [Experiment, InitFrom, Train, SweepFile], ids=lambda cls: cls.__name__)
def test_every_key_of_the_files_is_explained(cls: type) -> None:
    assert class_description(cls)
    assert [f.alias for f in attrs.fields(cls) if not option_docs(cls).get(f.alias)] == []


def test_every_bundled_component_says_what_it_is() -> None:
    components = [component for kind in KINDS for component in load_plugins().registry.of_kind(kind)]
    assert len(components) > 30
    assert [
        f"{component.kind} {component.name}" for component in components if not class_description(component.cls)
    ] == []


PACKAGES = sorted(file.parent.name for file in (REPOSITORY / "ganlab").glob("*/__init__.py"))


def test_the_architecture_picture_shows_every_package_and_the_main_path_and_only_files_that_exist() -> None:
    picture = (REPOSITORY / "docs" / "images" / "architecture.svg").read_text()
    shown = set(re.findall(r"\w+/[\w/]+\.py\b", picture))
    assert [name for name in shown if not (REPOSITORY / "ganlab" / name).is_file()] == []
    assert [package for package in PACKAGES if not re.search(rf"\b{package}/", picture)] == []
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    (path,) = re.findall(r"^## The main path.*?\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    main_path = re.findall(r"^\| `(\w+/[\w/]+\.py)`", path, re.MULTILINE)
    assert main_path
    assert set(main_path) - shown == set()


def test_the_architecture_page_has_a_row_for_every_package_and_names_only_files_that_exist() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    (section,) = re.findall(r"^## The packages\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    rows = dict(re.findall(r"^\| `(\w+)/` (.*)$", section, re.MULTILINE))
    assert sorted(rows) == PACKAGES
    files = [f"{package}/{file}" for package, row in rows.items() for file in re.findall(r"`([\w/]+\.py)`", row)]
    files += [file for file in re.findall(r"`(\w+/[\w/]+\.py)`", text) if file.partition("/")[0] in PACKAGES]
    assert [file for file in files if not (REPOSITORY / "ganlab" / file).is_file()] == []


def test_every_fault_has_its_test_and_every_test_of_faults_its_row() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", text)) - {"tests/soak.py"}
    tests = REPOSITORY / "tests"
    assert [name for name in named if not (tests / name).is_file()] == []
    assert {f"faults/{file.name}" for file in (tests / "faults").glob("*.py")} - named == set()


def test_every_metric_has_its_section_and_every_network_of_features_its_row() -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    registry = load_plugins().registry
    assert set(re.findall(r"^## `(\w+)`$", text, re.MULTILINE)) == {part.name for part in registry.of_kind("metric")}
    (section,) = re.findall(r"^## Features\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {
        "features",
        *(part.name for part in registry.of_kind("features")),
    }


ZOO = ("loss", "loss_wrapper", "penalty", "augmentation", "schedule", "generator", "discriminator")


def test_all_that_is_bundled_of_the_literature_has_its_place_in_the_zoo_and_in_an_experiment() -> None:
    zoo = (REPOSITORY / "docs" / "zoo.md").read_text()
    experiments = "\n".join(file.read_text() for file in FILES)
    for kind in ZOO:
        components = load_plugins().registry.of_kind(kind)
        assert components
        for part in components:
            assert f"`{part.name}`" in zoo, f"{kind} {part.name}: not in the zoo"
            assert re.search(rf'\bname = "{part.name}"', experiments), f"{kind} {part.name}: in no experiment"


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
    sweep, matrix, *launchers = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    base = (REPOSITORY / "experiments" / "digits_mlp.toml").as_posix()
    (tmp_path / "sweep.toml").write_text(sweep.replace("digits_mlp.toml", base))
    assert len(load_sweep(tmp_path / "sweep.toml").planned) == 9
    (tmp_path / "matrix.toml").write_text(f'base = "{base}"\n{matrix}')
    assert [run.variant for run in load_sweep(tmp_path / "matrix.toml").planned][:2] == [
        "lr-0.0002_loss-bce_penalty-none",
        "lr-0.0002_loss-bce_penalty-r1",
    ]
    for launcher, gpus in zip(launchers, (0.5, 1), strict=True):
        whole = sweep.replace("digits_mlp.toml", base).replace('launcher = "local"', "") + launcher
        (tmp_path / "with.toml").write_text(whole)
        assert attrs.asdict(load_sweep(tmp_path / "with.toml").launcher)["gpus"] == gpus


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
    (source,) = re.findall(r"```python\n# wedge\.py\n(.*?)```", text, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(plugins = .*?)```", text, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    (tmp_path / "wedge.py").write_text(source)
    table |= tomllib.loads(toml)
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err


def test_the_readmes_links_and_pictures_are_there() -> None:
    text = (REPOSITORY / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link.split("#")[0]).exists()] == []


def test_the_gallery_shows_every_picture_that_it_has_with_an_experiment_and_is_small() -> None:
    text = (REPOSITORY / "docs" / "gallery.md").read_text()
    shown = {REPOSITORY / "docs" / link for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)}
    kept = set((REPOSITORY / "docs" / "images" / "gallery").iterdir())
    assert kept
    assert kept <= shown
    assert all(path.is_file() for path in shown)
    assert sum(path.stat().st_size for path in kept) < 2_000_000
    commands = re.findall(r"`ganlab run (experiments/\S+\.toml)", text)
    assert len(commands) == len(shown)
    assert all((REPOSITORY / path).is_file() for path in commands)


def test_the_readmes_commands_are_those_that_ci_runs() -> None:
    commands = re.findall(r"^python -m pip install .*$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert commands == [
        "python -m pip install -e . && ganlab run experiments/digits_mlp.toml",
        "python -m pip install -e '.[test]' && pytest -n auto --dist worksteal",
    ]


def test_newer_pythons_are_not_refused() -> None:
    """pip and uv refuse a version above an upper bound; what torch has no wheels for, torch refuses itself."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    for page in ("README.md", "docs/tutorial.md"):
        assert "Python 3.11 or newer" in (REPOSITORY / page).read_text()


def test_the_citation_has_the_version_of_the_package() -> None:
    import ganlab

    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert str(citation["version"]) == ganlab.__version__
    assert yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
