"""Finding plugins, held against what an author may do wrong: each fault is named, with file and line; others load."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ganlab
from ganlab.config.load import load_experiment
from ganlab.plugin import hookspecs
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.sweep.plan import load_sweep
from ganlab.utils.errors import UserError
from support import REPOSITORY, WEDGE

BUNDLED = {
    "game": {"gan", "pix2pix", "cyclegan", "cut", "pixelda", "vqgan", "vae_gan", "aae", "bigan", "infogan"},
    "generator": {
        *("mlp", "dcgan", "resnet", "r3gan", "conditional", "unet", "resnet_translator"),
        *("mlp_encoder", "dcgan_encoder"),
    },
    "discriminator": {
        *("mlp", "dcgan", "resnet", "r3gan", "conditional", "packed", "patchgan", "mlp_joint", "vgg"),
    },
    "loss": {
        *("bce", "hinge", "least_squares", "minimax", "relativistic", "relativistic_average", "value", "wasserstein"),
    },
    "loss_wrapper": {"label_smoothing"},
    "penalty": {
        *("l2_generator", "r1", "r2", "gradient_penalty", "dragan", "orthogonal", "consistency", "class_loss"),
        "path_length",
    },
    "augmentation": {"flip", "diffaugment", "ada"},
    "optimizer": {"adam", "sgd", "rmsprop"},
    "schedule": {"constant", "linear", "cosine"},
    "dataset": {
        *("digits", "mnist", "fashion_mnist", "stacked_mnist", "cifar10", "celeba", "image_folder", "huggingface"),
        *("ring", "grid", "glyphs", "photographs", "degraded", "blended", "image_pairs", "unpaired"),
    },
    "metric": {
        *("fid", "sfid", "kid", "cmmd", "precision_recall", "inception_score", "mode_coverage", "class_accuracy"),
        *("psnr", "ssim", "lpips", "target_accuracy", "reconstruction_error", "output_fid", "codebook_use"),
        "code_accuracy",
    },
    "features": {"inception", "classifier", "pixels", "dinov2", "clip", "timm", "lpips"},
    "tracker": {"csv", "tensorboard", "mlflow", "wandb", "trackio"},
    "launcher": {"local", "ray", "slurm"},
}


def names(plugins: Plugins, kind: str) -> set[str]:
    return {component.name for component in plugins.registry.of_kind(kind)}


def failure_of(source: str, tmp_path: Path) -> str:
    """Why a plugin file with this source fails to load; everything bundled must load nevertheless."""
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


def test_a_manager_is_made_afresh(wedge: Path) -> None:
    assert "wedge" in names(load_plugins([wedge]), "loss")
    assert "wedge" not in names(load_plugins(), "loss")


def test_a_folder_named_by_the_environment(wedge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_PLUGINS", str(wedge.parent))
    assert "wedge" in names(load_plugins(), "loss")
    assert "wedge" in names(load_plugins([wedge]), "loss"), "named twice, loaded once"
    assert not load_plugins([wedge]).failures


def test_blocking(wedge: Path) -> None:
    plugins = load_plugins([wedge], blocked=["losses.bce", "wedge"])
    assert names(plugins, "loss") == BUNDLED["loss"] - {"bce"}
    assert load_plugins(blocked=["losses.bec"]).problems == [
        "--no-plugin losses.bec: no such plugin; did you mean 'losses.bce'?"
    ]


def test_a_blocked_plugin_is_not_even_imported(tmp_path: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text("raise SystemExit('imported')")
    assert not load_plugins([file], blocked=["loud"]).failures


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.py", "n" * 300):
        assert load_plugins([tmp_path / name]).problems == [f"plugin file '{tmp_path / name}': no such file"]


def test_the_home_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLAB_PLUGINS", "~nobody_of_this_name/plugins")
    (problem,) = load_plugins([Path("~nobody_of_this_name/a.py")]).problems
    assert problem == f"plugin file '{tmp_path}/~nobody_of_this_name/a.py': no such file"


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
        "L is not a valid loss: missing generator",
    ),
    "no attrs class": (
        ADAM
        + "class L:\n  def discriminator(self, real, fake): ...\n  def generator(self, real, fake): ...\n"
        + "@hookimpl\ndef register_losses(register): register('l', L)",
        "expected a class decorated with @attrs.frozen, got the class L, which is not",
    ),
    "untyped option": (
        ADAM
        + "import attrs\n@frozen\nclass L:\n  margin = attrs.field(default=1)\n"
        + "  def discriminator(self, real, fake): ...\n  def generator(self, real, fake): ...\n"
        + "@hookimpl\ndef register_losses(register): register('l', L)",
        "options without a type: margin",
    ),
    "bad name": (
        ADAM
        + "@frozen\nclass L:\n  def discriminator(self, real, fake): ...\n  def generator(self, real, fake): ...\n"
        + "@hookimpl\ndef register_losses(register): register('my loss', L)",
        "a component's name must be letters, digits and '_'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_named_and_the_others_live(fault: str, tmp_path: Path) -> None:
    source, cause = FAULTS[fault]
    assert cause in failure_of(source, tmp_path)


MISTAKES = """\
import attrs
from dataclasses import dataclass
from attrs import define, frozen
from ganlab import hookimpl

class Plain:
    def discriminator(self, real, fake): ...

@dataclass
class Data:
    def discriminator(self, real, fake): ...
    def generator(self, real, fake): ...

@define
class Mutable:
    margin = attrs.field(default=1)
    def discriminator(self, real, fake): ...
    def generator(self, fake): ...

@frozen
class Whole:
    scale: float = 1.0
    def discriminator(self, real, fake, *, extra=None): ...
    def generator(self, *logits): ...

class Sub(Whole):
    lost: float = 2.0

@frozen
class Pen:
    player: str = "discriminator"
    def every(self): return 3
    def penalty(self, step, extra): ...

@frozen
class Static:
    @staticmethod
    def build(images): ...

@frozen
class Bare:
    @staticmethod
    def build(): ...

@frozen
class Wraps:
    def wrap(self, loss): ...

class Plugin:
    @hookimpl
    def register_losses(self, register): ...

def register_metrics(register): ...

def run_finished(path): "A helper, which is not a hook."

@hookimpl
def register_losses(register):
    register("plain", Plain)
    register("data", Data)
    register("mutable", Mutable)
    register("instance", Whole())
    register(Whole, "swapped")
    register("sub", Sub)
    register(3, Whole)
    register("whole")
    register("bce", lambda: Whole())
    register("whole", Whole)

@hookimpl
def register_penalties(register):
    register("pen", Pen)
    raise RuntimeError("no more")

@hookimpl
def register_generators(register):
    register("static", Static)
    register("bare", Bare)

@hookimpl
def register_loss_wrappers(register): register("wraps", Wraps)

@hookimpl
def register_optimizers(): ...

@hookimpl
def tick_finished(run, recrod, *, record): ...

@hookimpl
def tick_finishd(run, record): ...
"""

SAID = """\
line [[@hookimpl;def register_optimizers]]: hook 'register_optimizers': without 'register' it cannot register \
anything; the hook is register_optimizers(register)
line [[@hookimpl;def tick_finished]]: hook 'tick_finished': unknown argument 'recrod'; \
the hook is tick_finished(run, record)
line [[@hookimpl;def tick_finished]]: hook 'tick_finished': argument 'record' is not positional; \
the hook is tick_finished(run, record)
line [[@hookimpl;def tick_finishd]]: hook 'tick_finishd': no such hook; did you mean 'tick_finished'?
line [[@hookimpl;def register_losses(self]]: hook 'register_losses' in the class 'Plugin': hooks must be functions of \
the module, not of a class: def register_losses(register)
line [[def register_metrics]]: 'register_metrics' is the name of a hook, but the function is not marked as one: write \
@ganlab.hookimpl above def register_metrics(register)
line [[register("bare"]]: register('bare', …): Bare: build() (FILE, line [[@staticmethod;def build()]]): \
expected build(self, images)
line [[register("plain"]]: register('plain', …): expected a class decorated with @attrs.frozen, \
got the class Plain, which is not
line [[register("plain"]]: register('plain', …): Plain is not a valid loss: missing generator(self, real, fake)
line [[register("data"]]: register('data', …): expected a class decorated with @attrs.frozen, \
got the dataclass Data, which is not
line [[register("mutable"]]: register('mutable', …): expected a class decorated with @attrs.frozen, \
got Mutable, which is not frozen: a component's options do not change
line [[register("mutable"]]: register('mutable', …): Mutable: generator(self, fake) (FILE, line \
[[def generator(self, fake)]]): expected generator(self, real, fake)
line [[register("mutable"]]: register('mutable', …): Mutable: options without a type: margin; write margin: TYPE = …
line [[register("instance"]]: register('instance', …): expected a class decorated with @attrs.frozen, \
got Whole(scale=1.0), an instance; register its class
line [["swapped"]]: register(Whole, …): a component's name must be letters, digits and '_', a letter first, got Whole: \
register(name, class)
line [["swapped"]]: register(Whole, …): expected a class decorated with @attrs.frozen, got 'swapped'
line [[register("sub"]]: register('sub', …): expected a class decorated with @attrs.frozen, \
got the class Sub, which is not
line [[register(3]]: register(3, …): a component's name must be letters, digits and '_', a letter first, got 3: \
register(name, class)
line [[register("whole")]]: register('whole'): expected register(name, class)
line [[register("bce"]]: register('bce', …): expected a class decorated with @attrs.frozen, got <lambda>
line [[register("bce"]]: register('bce', …): the loss 'bce' is already registered by losses.bce (ganlab VERSION)
line [[def register_loss_wrappers]]: register('wraps', …): Wraps is not a valid loss_wrapper: \
missing __call__(self, loss)
line [[register("pen"]]: register('pen', …): Pen: every, a method (FILE, line [[def every]]): \
expected an option or a property: every: int
line [[register("pen"]]: register('pen', …): Pen: penalty(self, step, extra) (FILE, line [[def penalty(]]): \
expected penalty(self, step)
RuntimeError: no more (line [[raise]])
"""
"""What is said of that file; in brackets the text that stands at the line, and ";" for a line break."""


def line_of(text: str, source: str) -> int:
    """The line of a file, from 1, where a text begins that is in it once, indented or not."""
    (start,) = re.finditer(re.escape(text).replace("\\\n", "\\n *"), source)
    return source[: start.start()].count("\n") + 1


def test_all_mistakes_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "faulty.py"
    file.write_text(MISTAKES)
    plugins = load_plugins([file])
    said = SAID.replace("FILE", str(file)).replace("VERSION", ganlab.__version__)
    said = re.sub(r"\[\[(.*?)\]\]", lambda at: str(line_of(at[1].replace(";", "\n"), MISTAKES)), said)
    assert [failure.cause for failure in plugins.failures] == said.splitlines()
    assert {str(failure).partition(": ")[0] for failure in plugins.failures} == {f"plugin faulty ({file})"}
    assert names(plugins, "loss") == BUNDLED["loss"], "what has a mistake in its hooks is left out whole"
    assert "faulty" not in plugins.origins
    assert not plugins.call_hook("run_finished", run=None, error=None)


def test_a_component_with_a_mistake_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text(WEDGE + '    register("bce", Wedge)\n    register("again", Wedge)\n')
    file.write_text(file.read_text().replace('register): register("w', 'register):\n    register("w'))
    plugins = load_plugins([file])
    one, two = (line_of(text, file.read_text()) for text in ('register("bce"', 'register("again"'))
    bundled = f"the loss 'bce' is already registered by losses.bce (ganlab {ganlab.__version__})"
    taken = "Wedge is already registered as 'wedge'; register a subclass, decorated too"
    assert [failure.cause for failure in plugins.failures] == [
        f"line {one}: register('bce', …): {bundled}",
        f"line {one}: register('bce', …): {taken}",
        f"line {two}: register('again', …): {taken}",
    ]
    assert names(plugins, "loss") == BUNDLED["loss"] | {"wedge"}


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


def test_a_run_that_is_resumed_has_its_observers(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    """A plugin with hooks alone is in the resolved file, which a sweep trains and a resume reads, and in the folder."""
    source = "import ganlab\n@ganlab.hookimpl\ndef run_started(run): print('from', run.resumed_from)\n"
    for name in ("listed.py", "given.py"):
        Path(name).write_text(source)
    table |= {"plugins": ["listed.py"], "metric": []}
    code, out, err = ganlab("run", write(table, "tiny.toml"), "--plugin", "given.py", "--out", "r")
    assert (code, out.count("from None")) == (0, 2), err
    sweep = write({"base": "tiny.toml", "variants": {"a": {}}}, "sweep.toml")
    assert f'"{Path("listed.py").resolve()}"' in load_sweep(sweep).planned[0].toml
    for name in ("listed.py", "given.py"):
        Path(name).unlink()
    code, out, err = ganlab("run", "r", "--resume", "--set", "train.steps=6")
    assert (code, out.count("from 4")) == (0, 2), err


class FakeDistribution(importlib.metadata.Distribution):
    """An installed distribution with one entry point, as its metadata files would describe it."""

    def __init__(self, name: str, module: str) -> None:
        self._name, self._module = name, module

    def read_text(self, filename: str) -> str | None:
        name = f"Name: {self._name}\n" if self._name else ""
        files = {
            "METADATA": f"Metadata-Version: 2.1\n{name}Version: 1.2\n",
            "entry_points.txt": f"[ganlab]\nplugin = {self._module}\n",
        }
        return files.get(filename)

    def locate_file(self, path: Any) -> Any:
        return Path(path)


def test_installed_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two with the same entry-point name and a broken one: pluggy's own loader would skip or stop."""
    (tmp_path / "dist_a.py").write_text(WEDGE)
    (tmp_path / "dist_b.py").write_text(WEDGE.replace('"wedge"', '"wedge_b"'))
    monkeypatch.syspath_prepend(tmp_path)
    distributions = [FakeDistribution(name, name) for name in ("dist_a", "dist_broken", "dist_b")]
    points = [point for dist in distributions for point in dist.entry_points]
    for point, dist in zip(points, distributions, strict=True):
        vars(point)["dist"] = dist
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    plugins = load_plugins()
    assert {"wedge", "wedge_b"} <= names(plugins, "loss")
    (failure,) = plugins.failures
    assert failure.origin.plugin == "dist_broken:plugin"
    assert "No module named 'dist_broken'" in failure.cause


def test_a_distribution_that_was_installed_badly_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points that name no module, and metadata without a name, as an installation that was cut short leaves."""
    wrong = {"": "cut_short", "dashed": "ganlab-wedge", "dotted": "a..b", "relative": ".a", "partial": "a:b-c"}
    points: list[Any] = []
    for name, module in wrong.items():
        distribution = FakeDistribution(name, module)
        points += distribution.entry_points
        vars(points[-1])["dist"] = distribution
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    plugins = load_plugins()
    assert names(plugins, "loss") == BUNDLED["loss"]
    causes = {failure.origin.plugin: failure.cause for failure in plugins.failures}
    assert causes.pop("unknown:plugin") == "ModuleNotFoundError: No module named 'cut_short'"
    assert causes == {
        f"{name}:plugin": f"ImportError: its entry point is {module!r}; expected 'package.module'"
        for name, module in wrong.items()
        if name
    }


def test_a_mistake_in_an_installed_plugin_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dist_faulty.py").write_text(WEDGE.replace("def generator", "def generate"))
    (tmp_path / "dist_raises.py").write_text("\nraise RuntimeError('so')")
    monkeypatch.syspath_prepend(tmp_path)
    distributions = [FakeDistribution(name, name) for name in ("dist_faulty", "dist_raises")]
    points = [point for dist in distributions for point in dist.entry_points]
    for point, dist in zip(points, distributions, strict=True):
        vars(point)["dist"] = dist
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    faulty, raises = map(str, load_plugins().failures)
    where = f"({tmp_path / 'dist_faulty.py'})"
    assert re.fullmatch(rf"plugin dist_faulty:plugin \(dist_faulty [\w.]+, {where[1:-1]}\): line 13: .*", faulty)
    assert faulty.endswith("Wedge is not a valid loss: missing generator(self, real, fake)")
    assert str(tmp_path / "dist_raises.py") in raises
    assert raises.endswith("RuntimeError: so (line 2)")


def test_the_registry_is_frozen_after_loading(wedge: Path) -> None:
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


@pytest.mark.extended
@pytest.mark.slow
def test_the_core_never_imports_a_bundled_plugin() -> None:
    for file in (REPOSITORY / "ganlab").rglob("*.py"):
        assert "import ganlab_plugins" not in file.read_text()
        assert "from ganlab_plugins" not in file.read_text()
    commands = "list_plugins, main"
    modules = f"from ganlab.cli import {commands}; from ganlab.run import load_run, rescore, sample_images, train"
    modules += "; from ganlab.evaluation import score_images"
    assert python(f"{modules}; import sys; print([m for m in sys.modules if m.startswith('ganlab_plugins')])") == "[]"


def test_the_core_runs_without_the_bundled_plugins() -> None:
    """A core that is alone finds no component, and says so in one line."""
    code = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ganlab_plugins" else find(name, *rest)
sys.modules["ganlab_plugins"] = None
from ganlab.plugin.loader import load_plugins
from ganlab.utils.errors import UserError
plugins = load_plugins()
try:
    plugins.registry.find("loss", "bce")
except UserError as error:
    print(len(plugins.failures), error)
"""
    assert python(code) == "0 unknown loss 'bce'; there are: none"


def test_bundled_plugins_use_only_public_names() -> None:
    """What a third-party plugin cannot use, a bundled one does not."""
    private = []
    for file in (REPOSITORY / "plugins").rglob("*.py"):
        private += [f"{file}: {line}" for line in file.read_text().splitlines() if line.startswith("from ganlab.")]
    assert private == []


@pytest.mark.parametrize(
    ("was", "written", "told"),
    [
        (
            "margin: float = 1.0",
            "margin = 1.0",
            r"margin = 1\.0 has no type annotation, so it is not an option; write margin: float"
            r" = 1\.0, margin: ClassVar\[float\] for what is no option, or ",
        ),
        ("(self, real, fake)", "(self, fake, real)", r"expected discriminator\(self, real, fake\), in this order"),
        (
            "def generator(self, real, fake): return",
            "generator = 3 #",
            r"generator is 3; expected generator\(self, real, f",
        ),
    ],
)
def test_what_looks_right_at_a_glance(wedge: Path, was: str, written: str, told: str) -> None:
    wedge.write_text(wedge.read_text().replace(was, written))
    failures = load_plugins([wedge]).failures
    assert failures
    assert any(re.search(told, failure.cause) for failure in failures)


def test_a_constant_in_capitals_is_no_option(wedge: Path) -> None:
    wedge.write_text(wedge.read_text().replace("margin: float", "SCALE = 2.0\n    margin: float"))
    assert not load_plugins([wedge]).failures


def test_a_file_beside_a_plugin_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("")
    (tmp_path / "two.py").write_text("import beside_it\n")
    (failure,) = load_plugins([tmp_path / "two.py"]).failures
    assert failure.cause.startswith(
        "ModuleNotFoundError: No module named 'beside_it'; a plugin is one file, or a package"
    )
    assert load_plugins([tmp_path]).problems == [f"plugin file '{tmp_path}': a folder; expected a Python file"]


def test_a_name_of_two_plugins_is_told_where_it_is_listed(
    wedge: Path, tmp_path: Path, ganlab: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "other.py").write_text(wedge.read_text())
    both = ["--plugin", str(wedge), "--plugin", str(tmp_path / "other.py")]
    code, out, _ = ganlab("plugins", "wedge", *both)
    assert code == 0
    assert f"also registered by other ({tmp_path / 'other.py'}): an experiment that names it is refused" in out
    (found,) = json.loads(ganlab("plugins", "wedge", "--json", *both)[1])["components"]
    assert [origin["plugin"] for origin in found["also_by"]] == ["other"]
