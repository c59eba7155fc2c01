"""Finding plugins, held against what a stranger may do wrong: each fault is named, with file and line; others live."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab import hookspecs
from ganlab.config import load_experiment
from ganlab.errors import UserError
from ganlab.plugins import Plugins, load_plugins
from ganlab.registry import KINDS
from support import HINGE, REPOSITORY

BUNDLED = {
    "generator": {"mlp", "dcgan"},
    "discriminator": {"mlp", "dcgan"},
    "loss": {"bce", "least_squares", "relativistic"},
    "loss_wrapper": {"label_smoothing"},
    "penalty": {"l2_generator"},
    "optimizer": {"adam", "sgd", "rmsprop"},
    "dataset": {
        *("digits", "mnist", "fashion_mnist", "stacked_mnist", "cifar10", "celeba", "image_folder"),
        *("ring", "grid"),
    },
    "metric": {"fid", "kid", "precision_recall", "inception_score", "mode_coverage"},
    "features": {"inception", "classifier", "pixels", "dinov2", "timm"},
    "tracker": {"csv", "tensorboard", "mlflow"},
    "launcher": {"local", "ray"},
}


def names(plugins: Plugins, kind: str) -> set[str]:
    return {component.name for component in plugins.registry.of_kind(kind)}


def failure_of(source: str, tmp_path: Path) -> str:
    """Why a plugin file with this source fails to load; everything bundled must be there all the same."""
    file = tmp_path / "faulty.py"
    file.write_text(textwrap.dedent(source))
    plugins = load_plugins([file])
    for kind, expected in BUNDLED.items():
        assert expected <= names(plugins, kind)
    (failure,) = plugins.failures
    assert failure.origin.file == file.resolve()
    assert "\n" not in str(failure)
    return failure.cause


def test_every_bundled_component_is_found_and_knows_its_origin() -> None:
    plugins = load_plugins()
    assert not plugins.failures
    for kind in KINDS:
        assert BUNDLED.get(kind, set()) == names(plugins, kind)
        for component in plugins.registry.of_kind(kind):
            assert component.origin.distribution == "ganlab"
            assert component.origin.file is not None
            assert component.origin.file.is_file()
            assert str(component.origin.file) in component.location


def test_a_manager_is_made_afresh(hinge: Path) -> None:
    assert "hinge" in names(load_plugins([hinge]), "loss")
    assert "hinge" not in names(load_plugins(), "loss")


def test_a_folder_named_by_the_environment(hinge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_PLUGINS", str(hinge.parent))
    assert "hinge" in names(load_plugins(), "loss")
    assert "hinge" in names(load_plugins([hinge]), "loss"), "named twice, loaded once"
    assert not load_plugins([hinge]).failures


def test_blocking(hinge: Path) -> None:
    plugins = load_plugins([hinge], blocked=["losses.bce", "hinge"])
    assert names(plugins, "loss") == BUNDLED["loss"] - {"bce"}
    assert load_plugins(blocked=["losses.bec"]).problems == [
        "--no-plugin losses.bec: no such plugin; did you mean 'losses.bce'?"
    ]


def test_a_blocked_plugin_is_not_even_imported(tmp_path: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text("raise SystemExit('imported')")
    assert not load_plugins([file], blocked=["loud"]).failures


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert load_plugins([tmp_path / "none.py"]).problems == [f"plugin file '{tmp_path / 'none.py'}': no such file"]


ADAM = "from attrs import frozen\nfrom ganlab import hookimpl\n"
FAULTS = {
    "import": ("import nothing_of_that_name", "No module named 'nothing_of_that_name' (line 1)"),
    "exit": ("import sys\nsys.exit(3)", "SystemExit: 3 (line 2)"),
    "syntax": ("def f(:\n", "SyntaxError"),
    "own exception": ("class Odd(Exception): ...\nraise Odd('so')", "Odd: so (line 2)"),
    "no hook": ("x = 1", "implements no hook"),
    "unknown hook": (
        ADAM + "@hookimpl\ndef register_loses(register): ...",
        "line 3: hook 'register_loses': no such hook; did you mean 'register_losses'?",
    ),
    "unknown argument": (
        ADAM + "@hookimpl\ndef register_losses(add): ...",
        "line 3: hook 'register_losses': unknown argument 'add'; the hook is register_losses(register)",
    ),
    "default value": (
        ADAM + "@hookimpl\ndef register_losses(register=None): ...",
        "argument 'register' has a default value; the hook is register_losses(register)",
    ),
    "taken name": (
        ADAM
        + "@frozen\nclass L:\n  def discriminator(self, real, fake): ...\n  def generator(self, real, fake): ...\n"
        + "@hookimpl\ndef register_losses(register): register('bce', L)",
        "the loss 'bce' is already registered by losses.bce (ganlab",
    ),
    "lacks a method": (
        ADAM
        + "@frozen\nclass L:\n  def discriminator(self, real, fake): ...\n"
        + "@hookimpl\ndef register_losses(register): register('l', L)",
        "L is no loss: it lacks generator",
    ),
    "no attrs class": (
        ADAM + "class L: ...\n@hookimpl\ndef register_losses(register): register('l', L)",
        "expected a class decorated with @attrs.frozen",
    ),
    "untyped option": (
        ADAM
        + "import attrs\n@frozen\nclass L:\n  margin = attrs.field(default=1)\n"
        + "  def discriminator(self, real, fake): ...\n  def generator(self, real, fake): ...\n"
        + "@hookimpl\ndef register_losses(register): register('l', L)",
        "options without a type: margin",
    ),
    "bad name": (
        ADAM + "@hookimpl\ndef register_losses(register): register('my loss', object)",
        "a component's name is letters, digits and '_'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_named_and_the_others_live(fault: str, tmp_path: Path) -> None:
    source, cause = FAULTS[fault]
    assert cause in failure_of(source, tmp_path)


def test_a_failed_plugin_is_fatal_only_where_it_is_needed(
    table: dict[str, Any], write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.setenv("GANLAB_PLUGINS", str(folder))
    load_experiment(write(table))
    table["loss"] = {"name": "of_the_broken_one"}
    with pytest.raises(UserError, match=r"(?s)unknown loss 'of_the_broken_one'.*broken\.py.*nothing_of_that_name"):
        load_experiment(write(table))
    table["loss"] = {"name": "bce"}
    table["plugins"] = ["folder/broken.py"]
    with pytest.raises(UserError, match=r"broken\.py.*nothing_of_that_name"):
        load_experiment(write(table))


class FakeDistribution(importlib.metadata.Distribution):
    """An installed distribution with one entry point, as its metadata files would describe it."""

    def __init__(self, name: str, module: str) -> None:
        self._name, self._module = name, module

    def read_text(self, filename: str) -> str | None:
        files = {
            "METADATA": f"Metadata-Version: 2.1\nName: {self._name}\nVersion: 1.2\n",
            "entry_points.txt": f"[ganlab]\nplugin = {self._module}\n",
        }
        return files.get(filename)

    def locate_file(self, path: Any) -> Any:
        return Path(path)


def test_installed_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two with the same entry-point name and a broken one: pluggy's own loader would skip or stop."""
    (tmp_path / "dist_a.py").write_text(HINGE)
    (tmp_path / "dist_b.py").write_text(HINGE.replace('"hinge"', '"hinge_b"'))
    monkeypatch.syspath_prepend(tmp_path)
    distributions = [FakeDistribution(name, name) for name in ("dist_a", "dist_broken", "dist_b")]
    points = [point for dist in distributions for point in dist.entry_points]
    for point, dist in zip(points, distributions, strict=True):
        vars(point)["dist"] = dist
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    plugins = load_plugins()
    assert {"hinge", "hinge_b"} <= names(plugins, "loss")
    (failure,) = plugins.failures
    assert failure.origin.plugin == "dist_broken:plugin"
    assert "No module named 'dist_broken'" in failure.cause


def test_the_registry_is_frozen_after_loading(hinge: Path) -> None:
    plugins = load_plugins()
    with pytest.raises(Exception, match="the registry is frozen"):
        plugins.registry.register("loss", "late", object, plugins.registry.find("loss", "bce").origin)


def test_every_hook_and_kind_agree() -> None:
    hooks = {name for name, value in vars(hookspecs).items() if hasattr(value, "ganlab_spec")}
    assert {kind.hook for kind in KINDS.values()} == {name for name in hooks if name.startswith("register_")}
    for name in hooks:
        assert (getattr(hookspecs, name).__doc__ or "").strip().endswith(".")


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY
    ).stdout.strip()


def test_the_core_never_imports_a_bundled_plugin() -> None:
    for file in (REPOSITORY / "ganlab").rglob("*.py"):
        assert "import ganlab_plugins" not in file.read_text()
        assert "from ganlab_plugins" not in file.read_text()
    modules = "from ganlab import session, cli, runs, listing, sampling, scoring"
    assert python(f"{modules}; import sys; print([m for m in sys.modules if m.startswith('ganlab_plugins')])") == "[]"


def test_the_core_runs_without_the_bundled_plugins() -> None:
    """A core that is alone finds no component, and says so in one line."""
    code = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ganlab_plugins" else find(name, *rest)
sys.modules["ganlab_plugins"] = None
from ganlab.plugins import load_plugins
from ganlab.errors import UserError
plugins = load_plugins()
try:
    plugins.registry.find("loss", "bce")
except UserError as error:
    print(len(plugins.failures), error)
"""
    assert python(code) == "0 unknown loss 'bce'; there are: none"


def test_bundled_plugins_use_only_public_names() -> None:
    """What a stranger's plugin cannot use, a bundled one does not."""
    private = []
    for file in (REPOSITORY / "plugins").rglob("*.py"):
        private += [f"{file}: {line}" for line in file.read_text().splitlines() if line.startswith("from ganlab.")]
    assert private == []
