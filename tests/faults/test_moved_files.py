"""Files that lie elsewhere than when a run began: what binds a run is their content."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab import load_run
from ganlab.config.toml import read_toml
from ganlab.plugin.component import MissingComponent
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.hashing import file_sha256
from run_folders import records
from tiers import spread

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def images_in(folder: Path, count: int = 40) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def last_state(run: Path) -> dict[str, Any]:
    return load_checkpoint(list(list_checkpoints(run / "checkpoints").values())[-1])


def same_weights(one: Path, other: Path) -> bool:
    a, b = (last_state(run)["generator"] for run in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(table: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    table["dataset"] = {"name": "image_folder", "path": str(images_in(tmp_path / "here")), "size": 8}
    table["train"] |= {"steps": 8, "checkpoint_every": 4}
    return table


def test_the_same_images_elsewhere(photographs: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path) -> None:
    file = write(photographs)
    assert ganlab("run", file, "--out", "whole")[0] == 0
    assert ganlab("run", file, "--out", "r", "--set", "train.steps=4")[0] == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    there = str(tmp_path / "there")
    code, out, err = ganlab("run", file, "--out", "r", "--resume", "--set", f"dataset.path={there}")
    assert (code, err) == (0, "")
    assert f"r: dataset.path: was {str(tmp_path / 'here')!r}, is now {there!r}" in out
    assert same_weights(Path("whole"), Path("r"))


def test_a_checkpoint_of_an_earlier_release_binds_the_path_too(
    photographs: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is resumed all the same, where the run's own experiment.toml has that identity."""
    file = write(photographs)
    with monkeypatch.context() as earlier:
        earlier.setattr("ganlab.run.train.location_keys", lambda experiment: ())
        assert ganlab("run", file, "--out", "r", "--set", "train.steps=4")[0] == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert ganlab("run", file, "--out", "r", "--resume", "--set", f"dataset.path={tmp_path / 'there'}")[0] == 0


def test_other_images_are_refused_and_anyway_says_what_differs(
    photographs: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    file = write(photographs)
    assert ganlab("run", file, "--out", "r", "--set", "train.steps=4")[0] == 0
    other = ["--set", f"dataset.path={images_in(tmp_path / 'there', 29)}"]
    code, _, err = ganlab("run", file, "--out", "r", "--resume", *other)
    assert code == 2
    assert "r: dataset.count: was 40, is now 29\n" in err
    code, out, _ = ganlab("run", file, "--out", "r", "--resume", "--anyway", *other)
    assert code == 0
    assert "r: dataset.count: was 40, is now 29" in out
    assert "r: dataset.fingerprint: was" in out


# ---------------------------------------------------------------------------------------------------------------------
# Plugin files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--per-class"]], ids=["whole", "per class"])
def test_scoring_says_whether_the_images_are_the_run_s_own(
    photographs: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path, more: list[str]
) -> None:
    """The same images elsewhere are; fewer, or others of the same number, are not."""
    photographs["metric"] = [{"name": "fid", "samples": 16, "features": "pixels"}]
    if more:
        shutil.move(tmp_path / "here", tmp_path / "a")
        shutil.copytree(tmp_path / "a", tmp_path / "here" / "a")
        shutil.copytree(tmp_path / "a", tmp_path / "here" / "b")
        for player in ("generator", "discriminator"):
            photographs[player] = {"name": "conditional", "network": photographs[player]}
    assert ganlab("run", write(photographs), "--out", "r")[0] == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    command = ["eval", "r", "--set", f"dataset.path={tmp_path / 'there'}", *more]
    said = "r: the images are not those that it was trained on: image_folder:here with "
    code, _, err = ganlab(*command)
    assert (code, said in err) == (0, False), err
    first = min((tmp_path / "there").rglob("*.png"))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(first)
    count = 80 if more else 40
    for left in (count, count - 1):
        code, _, err = ganlab(*command)
        assert code == 0, err
        assert f"{said}{count} images then, image_folder:there with {left} now\n" in err
        first.unlink(missing_ok=True)


@pytest.fixture
def wedged(table: dict[str, Any], write: Write, wedge: Path) -> Path:
    """An experiment with a loss of its own file, in several steps."""
    return write(table | {"plugins": ["wedge.py"], "loss": {"name": "wedge"}, "train": table["train"] | {"steps": 6}})


def test_a_run_keeps_its_plugin_files(wedged: Path, wedge: Path, ganlab: Ganlab) -> None:
    assert ganlab("run", wedged, "--out", "r")[0] == 0
    (kept,) = Path("r/plugins").glob("*/wedge.py")
    assert kept.read_bytes() == wedge.read_bytes()
    assert kept.parent.name == file_sha256(wedge)[:16]


def test_a_run_is_resumed_without_the_original(wedged: Path, wedge: Path, ganlab: Ganlab) -> None:
    assert ganlab("run", wedged, "--out", "whole")[0] == 0
    assert ganlab("run", wedged, "--out", "r", "--set", "train.steps=3")[0] == 0
    wedge.unlink()
    shutil.move("r", "moved")
    code, out, err = ganlab("run", "moved", "--resume", "--set", "train.steps=6")
    assert (code, err) == (0, ""), out
    assert same_weights(Path("whole"), Path("moved"))


def test_the_original_is_named_after_a_resume_without_it(wedged: Path, wedge: Path, ganlab: Ganlab) -> None:
    """In experiment.toml, in run.json, and in the file of a new run that is made from either."""
    assert ganlab("run", wedged, "--out", "r", "--set", "train.steps=3")[0] == 0
    wedge.unlink()
    for steps in (6, 9):
        assert ganlab("run", "r", "--resume", "--set", f"train.steps={steps}")[0] == 0
    assert ganlab("run", "r/experiment.toml", "--out", "again")[0] == 0
    for run in ("r", "again"):
        assert read_toml(Path(run, "experiment.toml"))["plugins"] == [str(wedge)]
        assert read_info(Path(run))["components"]["loss.wedge"]["file"] == str(wedge)
        assert len(list(Path(run, "plugins").glob("*/*"))) == 1
    shutil.move("again", "moved")
    shutil.rmtree("r")
    assert ganlab("run", "moved", "--resume", "--set", "train.steps=12")[0] == 0
    assert ganlab("sample", "moved", "--count", 4, "--out", "a.npz")[0] == 0


@pytest.mark.parametrize("given", spread(3, ["--plugin", "GANLAB_PLUGINS", "plugins"]))
@pytest.mark.parametrize("command", ["the same", "without the file", "without the folder"])
def test_the_same_command_resumes_without_the_original(
    table: dict[str, Any],
    write: Write,
    wedge: Path,
    ganlab: Ganlab,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    command: str,
) -> None:
    """The run's own copy is used, whichever way the file was named when the run began, and if it is named no more."""
    table["train"] |= {"steps": 6}
    file = write(table | ({"plugins": ["wedge.py"]} if given == "plugins" else {}))
    named = [] if command == "without the folder" else ["--out", "r"]
    more = ["--plugin", wedge] if given == "--plugin" else []
    if given == "GANLAB_PLUGINS":
        Path("own").mkdir()
        wedge = Path(shutil.move(wedge, "own")).resolve()
        monkeypatch.setenv("GANLAB_PLUGINS", "own")
    code, _, err = ganlab("run", file, "--set", "loss=wedge", *named, *more, "--set", "train.steps=3")
    assert code == 0, err
    (run,) = (path.parent for path in Path.cwd().rglob("run.json"))
    info = read_info(run)
    (run / "run.json").write_text(json.dumps(info | {"status": "interrupted"}))
    wedge.unlink()
    if command == "without the file":
        more = []
    code, out, err = ganlab("run", file, "--set", "loss=wedge", *named, *more, "--resume")
    assert (code, err) == (0, ""), out
    assert read_info(run)["step"] == 6
    assert read_toml(run / "experiment.toml")["plugins"] == [str(wedge)]


def test_a_file_that_was_changed_is_not_loaded_unnamed(
    table: dict[str, Any], write: Write, wedge: Path, ganlab: Ganlab
) -> None:
    file = write(table | {"train": table["train"] | {"steps": 6}})
    first = ("run", file, "--set", "loss=wedge", "--out", "r")
    assert ganlab(*first, "--plugin", wedge, "--set", "train.steps=3")[0] == 0
    wedge.write_text(wedge.read_text() + "\n# other\n")
    code, _, err = ganlab(*first, "--resume")
    assert code == 2
    assert "components.loss.wedge.sha256: was" in err
    code, _, err = ganlab(*first, "--resume", "--no-plugin", "wedge")
    assert code == 2
    assert "unknown loss 'wedge'" in err


def test_a_kept_file_that_was_changed_is_not_used(wedged: Path, wedge: Path, ganlab: Ganlab) -> None:
    assert ganlab("run", wedged, "--out", "r", "--set", "train.steps=3")[0] == 0
    wedge.unlink()
    (kept,) = Path("r/plugins").glob("*/wedge.py")
    kept.write_text(kept.read_text() + "\n# other\n")
    code, _, err = ganlab("run", "r", "--resume", "--set", "train.steps=6")
    assert code == 2
    assert f"plugin file '{wedge}': no such file" in err


def test_what_a_command_does_not_need_does_not_fail_it(
    wedged: Path, wedge: Path, ganlab: Ganlab, tmp_path: Path
) -> None:
    assert ganlab("run", wedged, "--out", "r")[0] == 0
    assert ganlab("sample", "r", "--count", 4, "--out", "before.npz")[0] == 0
    wedge.unlink()
    shutil.rmtree("r/plugins")
    assert ganlab("sample", "r", "--count", 4, "--out", "after.npz")[0] == 0
    assert np.array_equal(np.load("before.npz")["images"], np.load("after.npz")["images"])
    assert ganlab("report", "r", "--html", "r.html")[0] == 0
    metric = "metric=[{name='fid', samples=16, features={name='classifier', updates=20}}]"
    assert ganlab("eval", "r", "--set", metric)[0] == 0
    run = load_run("r")
    assert run.experiment.game.loss == MissingComponent("loss", "wedge", {"margin": 1.0})
    code, _, err = ganlab("run", "r", "--resume", "--set", "train.steps=9")
    assert code == 2, "a training needs its loss"
    assert "wedge.py': no such file" in err


GENERATOR = """
from attrs import frozen
from torch import nn
from ganlab import hookimpl

class Net(nn.Module):
    latent_dim = 4
    def __init__(self, images):
        super().__init__()
        self.shape = (images.channels, images.height, images.width)
        self.linear = nn.Linear(4, images.channels * images.height * images.width)
    def forward(self, z, condition=None): return self.linear(z).tanh().unflatten(1, self.shape)

@frozen
class Flat:
    def build(self, images): return Net(images)

@hookimpl
def register_generators(register): register("flat", Flat)
"""


def test_a_generator_whose_file_is_gone(table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(GENERATOR)
    file = write(table | {"plugins": ["flat.py"], "generator": {"name": "flat"}})
    assert ganlab("run", file, "--out", "r")[0] == 0
    images = load_run("r").sample(3)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "flat.py", tmp_path / "elsewhere")
    assert torch.equal(load_run("r").sample(3), images), "the kept one"
    shutil.rmtree("r/plugins")
    code, _, err = ganlab("sample", "r")
    assert code == 2
    assert "unknown generator 'flat'" in err
    assert "the run had the generator 'flat' from flat" in err
    assert ganlab("sample", "r", "--plugin", tmp_path / "elsewhere" / "flat.py")[0] == 0
    assert torch.equal(load_run("r", plugins=[tmp_path / "elsewhere" / "flat.py"]).sample(3), images)
    metric = "metric=[{name='fid', samples=16, features={name='classifier', updates=20}}]"
    assert ganlab("eval", "r", "--set", metric, "--plugin", tmp_path / "elsewhere" / "flat.py")[0] == 0


def test_a_changed_file_does_not_change_the_samples_of_a_run(
    table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    (tmp_path / "flat.py").write_text(GENERATOR)
    assert ganlab("run", write(table | {"plugins": ["flat.py"], "generator": {"name": "flat"}}), "--out", "r")[0] == 0
    images = load_run("r").sample(3)
    (tmp_path / "flat.py").write_text(GENERATOR.replace("return self.linear(z)", "return -self.linear(z)"))
    with pytest.warns(UserWarning, match=r"flat.py has changed since the run used it; the copy in r is used"):
        assert torch.equal(load_run("r").sample(3), images)
    code, _, err = ganlab("run", "r", "--resume", "--set", "train.steps=9")
    assert code == 2
    assert "components.generator.flat.sha256: was" in err


def test_a_file_that_is_given_replaces_one_that_is_gone(wedged: Path, wedge: Path, ganlab: Ganlab) -> None:
    """Of a run that began before copies were kept."""
    assert ganlab("run", wedged, "--out", "r", "--set", "train.steps=3")[0] == 0
    shutil.rmtree("r/plugins")
    Path("moved").mkdir()
    shutil.move(wedge, "moved")
    code, out, err = ganlab("run", "r", "--resume", "--set", "train.steps=6", "--plugin", "moved/wedge.py")
    assert (code, err) == (0, ""), out


def test_an_installed_plugin_counts_by_its_content(wedged: Path, ganlab: Ganlab) -> None:
    """In another environment the same release lies in another folder."""
    assert ganlab("run", wedged, "--out", "r", "--set", "train.steps=3")[0] == 0
    info = read_info(Path("r"))
    info["components"]["loss.wedge"]["file"] = "/another/environment/wedge.py"
    Path("r/run.json").write_text(json.dumps(info))
    assert ganlab("run", wedged, "--out", "r", "--resume")[0] == 0


# ---------------------------------------------------------------------------------------------------------------------
# What a plugin file imports
# ---------------------------------------------------------------------------------------------------------------------

WEDGE_OF = """
import ganlab, sys
from pathlib import Path
from attrs import frozen
{imports}
@frozen
class {name}:
    "|margin - D(x)| + |margin + D(G(z))|."
    def discriminator(self, real, fake):
        {lazy}
        return abs(margin - real).mean() + abs(margin + fake).mean()
    def generator(self, real, fake): return -fake.mean()

@ganlab.hookimpl
def register_losses(register): register("{name}", {name})
"""

BESIDE = "sys.path.insert(0, str(Path(__file__).parent))\n"
WAYS = {
    "a module beside the file": (BESIDE + "from near_a import margin", "", "near_a.py"),
    "inside a function": (BESIDE, "from near_b import margin", "near_b.py"),
    "a module of a package": (BESIDE + "from far_c.values import margin", "", "far_c/values.py"),
    "a relative import in a package": (BESIDE + "from far_d import margin", "", "far_d/values.py"),
    "by name": (BESIDE + "import importlib", "margin = importlib.import_module('near_e').margin", "near_e.py"),
    "from another folder": ("from other_f import margin", "", "lib/other_f.py"),
    "by path": (
        "import importlib.util as u\nspec = u.spec_from_file_location('near_g', Path(__file__).parent / 'near_g.py')\n"
        "near = u.module_from_spec(spec)\nspec.loader.exec_module(near)\nmargin = near.margin",
        "",
        "near_g.py",
    ),
    "of what it imports": (BESIDE + "from middle_h import margin", "", "near_h.py"),
}


def importing(tmp_path: Path, way: str) -> tuple[Path, Path]:
    """A plugin file in a folder, and the file of its margin, which it imports in that way."""
    imports, lazy, name = WAYS[way]
    folder = tmp_path / "project"
    helper = folder / name
    helper.parent.mkdir(parents=True)
    helper.write_text("margin = 1.0\n")
    if helper.parent.name == "far_c":
        (helper.parent / "__init__.py").touch()
    if helper.parent.name == "far_d":
        (helper.parent / "__init__.py").write_text("from .values import margin\n")
    if way == "of what it imports":
        (folder / "middle_h.py").write_text("from near_h import margin\n")
    plugin = folder / "importing.py"
    plugin.write_text(WEDGE_OF.format(imports=imports, lazy=lazy, name="importing"))
    return plugin, helper


@pytest.fixture
def importing_in(
    table: dict[str, Any], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Path, Path, Path]]:
    """Makes an experiment whose loss imports its margin so; returns it, the plugin file and the imported file."""

    def make(way: str) -> tuple[Path, Path, Path]:
        monkeypatch.setattr("sys.path", list(sys.path))
        monkeypatch.syspath_prepend(tmp_path / "project" / "lib")
        plugin, helper = importing(tmp_path, way)
        train = table["train"] | {"steps": 1}
        return write(table | {"plugins": [str(plugin)], "loss": {"name": "importing"}, "train": train}), plugin, helper

    return make


Importing = Callable[[str], tuple[Path, Path, Path]]
MORE = ("--resume", "--set", "train.steps=2")


@pytest.mark.parametrize("way", spread(2, WAYS))
def test_a_file_that_a_plugin_imports_binds_the_run(way: str, importing_in: Importing, ganlab: Ganlab) -> None:
    file, plugin, helper = importing_in(way)
    assert ganlab("run", file, "--out", "r")[0] == 0
    (recorded,) = (of for of in read_info(Path("r"))["imports"]["importing"].values() if of["file"] == str(helper))
    assert recorded["sha256"] == file_sha256(helper)
    helper.write_text("margin = 200.0\n")
    code, _, err = ganlab("run", "r", *MORE)
    assert code == 2
    assert f"r: {helper}, which plugin importing imports: has changed since the run began" in err
    with pytest.warns(UserWarning, match="has changed since the run used it; the copy in r is used"):
        assert load_run("r").experiment.game.loss.discriminator(torch.ones(2), -torch.ones(2)) == 0
    shutil.rmtree(plugin.parent)
    assert load_run("r").experiment.game.loss.discriminator(torch.ones(2), -torch.ones(2)) == 0


def test_a_run_stands_alone_with_what_its_plugin_imports(importing_in: Importing, ganlab: Ganlab) -> None:
    file, plugin, helper = importing_in("a relative import in a package")
    assert ganlab("run", file, "--out", "whole", "--set", "train.steps=2")[0] == 0
    assert ganlab("run", file, "--out", "r")[0] == 0
    shutil.copytree("r", "s")
    helper.write_text("margin = 200.0\n")
    code, out, _ = ganlab("run", file, "--out", "s", *MORE, "--anyway")
    assert code == 0
    assert f"{helper}, which plugin importing imports: has changed" in out
    assert records(Path("s"))[-1]["loss_discriminator"] > 100, "the new code has run"
    assert len(list(Path("s/plugins").iterdir())) == 2
    shutil.rmtree(plugin.parent)
    code, _, err = ganlab("run", "r", *MORE)
    assert (code, err) == (0, "")
    assert same_weights(Path("whole"), Path("r"))


def test_a_file_that_is_imported_and_gone_is_replaced_by_the_copy(importing_in: Importing, ganlab: Ganlab) -> None:
    file, plugin, helper = importing_in("a module beside the file")
    assert ganlab("run", file, "--out", "r")[0] == 0
    helper.unlink()
    code, _, err = ganlab("run", "r", *MORE)
    assert code == 0
    assert f"{helper}, which {plugin} imports, is gone since the run used it; the copy in r is used" in err


def test_two_plugin_files_that_import_one_file(
    table: dict[str, Any], write: Write, importing_in: Importing, ganlab: Ganlab
) -> None:
    """Both record it, whichever imports it first; a plugin that the run does not use does not bind it."""
    _, plugin, helper = importing_in("a module beside the file")
    second, unused = plugin.with_name("a_second.py"), plugin.with_name("unused.py")
    second.write_text(plugin.read_text().replace('"importing"', '"second"'))
    unused.write_text(plugin.read_text().replace('"importing"', '"unused"').replace("near_a", "near_z"))
    helper.with_name("near_z.py").write_text("margin = 3.0\n")
    files = [str(second), str(unused), str(plugin)]
    file = write(table | {"plugins": files, "loss": {"name": "importing"}, "train": table["train"] | {"steps": 1}})
    runs = {"r": "importing", "s": "second"}
    for run, loss in runs.items():
        assert ganlab("run", file, "--out", run, "--set", f"loss={loss}")[0] == 0
    assert read_info(Path("r"))["imports"]["importing"]["near_a"]["sha256"] == file_sha256(helper)
    assert read_info(Path("s"))["imports"].keys() == {"a_second"}
    helper.with_name("near_z.py").write_text("margin = 30.0\n")
    assert ganlab("run", file, "--out", "r", *MORE)[0] == 0
    helper.write_text("margin = 30.0\n")
    for run, loss in runs.items():
        code, _, err = ganlab("run", file, "--out", run, "--set", f"loss={loss}", "--resume", "--set", "train.steps=3")
        assert code == 2
        assert err.count(f"{helper}, which plugin") == 1


def test_copies_with_other_contents_are_told_apart(importing_in: Importing, ganlab: Ganlab) -> None:
    """Two runs whose plugin file imported two states of one module, read in one process."""
    file, plugin, helper = importing_in("a module beside the file")
    for run, margin in (("r", 2), ("s", 3)):
        helper.write_text(f"margin = {margin}.0\n")
        assert ganlab("run", file, "--out", run)[0] == 0
    shutil.rmtree(plugin.parent)
    for run, margin in (("r", 2), ("s", 3), ("r", 2)):
        assert load_run(run).experiment.game.loss.discriminator(torch.zeros(2), torch.zeros(2)) == 2 * margin


def test_a_run_of_an_earlier_release_has_no_imports(importing_in: Importing, ganlab: Ganlab) -> None:
    file, _, _ = importing_in("a module beside the file")
    assert ganlab("run", file, "--out", "r")[0] == 0
    info = json.loads(Path("r/run.json").read_text())
    del info["imports"]
    Path("r/run.json").write_text(json.dumps(info))
    assert ganlab("run", "r", *MORE)[0] == 0
    assert "importing" in read_info(Path("r"))["imports"]


def test_the_modules_of_an_installed_plugin_bind_the_run(
    table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own package, as where it is installed to be edited; they are not kept, nor is its file."""
    site = tmp_path / "site-packages"
    package, metadata = site / "margins_i", site / "margins_i-1.0.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: margins-i\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ganlab]\nloss = margins_i.loss\n")
    (package / "__init__.py").touch()
    (package / "values.py").write_text("margin = 1.0\n")
    source = WEDGE_OF.format(imports="from .values import margin", lazy="", name="importing")
    (package / "loss.py").write_text(source)
    monkeypatch.syspath_prepend(site)
    file = write(table | {"loss": {"name": "importing"}, "train": table["train"] | {"steps": 1}})
    assert ganlab("run", file, "--out", "r")[0] == 0
    assert read_info(Path("r"))["imports"]["margins-i:loss"].keys() == {"margins_i", "margins_i.values"}
    assert not Path("r/plugins").exists()
    (package / "values.py").write_text("margin = 2.0\n")
    code, _, err = ganlab("run", "r", *MORE)
    assert code == 2
    assert f"{package / 'values.py'}, which plugin margins-i:loss imports: has changed" in err
