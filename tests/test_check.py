"""`ganlab check`, held against what it must say of good, bad and broken plugin files, and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ganlab.plugin.kinds import KINDS
from ganlab.testing import conformance
from support import REPOSITORY, WEDGE

Ganlab = Callable[..., tuple[int, str, str]]

DOCUMENTED = WEDGE.replace("class Wedge:", 'class Wedge:\n    """margin: how far."""')
EVERYTHING = """
class: made by attrs, with all that the kind 'loss' needs, and types for its options
options: each is explained in the class's docstring
defaults: it is created without options
experiment file: written and read again, its options are the same
finite: both losses are finite scalars, for 1 to 64 logits of up to a few hundred
gradient: reaches the logits of both players
gradient: agrees with finite differences in float64
randomness: no global random state is changed
real logits: without them the generator's loss is the same where generator_uses_real is False
trains: in a tiny training all networks' weights change and stay finite
repeats: two trainings with the same seed are bitwise identical
state: load_state_dict() restores what state_dict() returned
resumes: a training stopped and resumed is bitwise identical to one that never stopped
capture: reads no value back, takes no shape from values, does the same in every step
cost of a step
schedules: an option set by a schedule does what the same number does
"""


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("wide")
def test_a_good_file(ganlab: Ganlab, tmp_path: Path) -> None:
    file = tmp_path / "wedge.py"
    file.write_text(DOCUMENTED)
    code, out, err = ganlab("check", file)
    assert (code, err) == (0, "")
    assert f"loss wedge  {file}:" in out
    whats = [line.removeprefix("  ok     ").rstrip() for line in out.splitlines() if line.startswith("  ok ")]
    assert whats == EVERYTHING.strip().splitlines()
    assert " ms with it, " in out
    assert out.rstrip().endswith("0 faults, 16 passed")


def test_a_bad_file_names_its_line_unwrapped(ganlab: Ganlab, tmp_path: Path) -> None:
    file = tmp_path / "wedge.py"
    source = DOCUMENTED.replace("-fake.mean()", "-fake.mean() * (1 + 0 * fake.mean().item())")
    file.write_text(source)
    code, out, _ = ganlab("check", file)
    assert code == 1
    line = next(number for number, text in enumerate(source.splitlines(), 1) if ".item()" in text)
    assert f"  {file}:{line}: reads a value back from the device (item, bool, float or int of a tensor)\n" in out
    assert "FAULT" in out
    assert out.rstrip().endswith("1 fault, 15 passed")


@pytest.mark.usefixtures("wide")
def test_options_and_what_is_left_out(ganlab: Ganlab, tmp_path: Path) -> None:
    file = tmp_path / "wedge.py"
    file.write_text(DOCUMENTED.replace("margin: float = 1.0", "margin: float"))
    code, out, _ = ganlab("check", file)
    assert code == 0
    assert "refuses: margin must be given, by --set NAME.margin=VALUE; nothing else is checked without" in out
    assert "1 refused by the component, 1 left out" in out
    assert ganlab("check", file, "--set", "wedge.margin=0.5")[0] == 0
    assert ganlab("check", file, "--set", "wedge.margn=0.5")[::2] == (
        2,
        "wedge.margn: unknown key; did you mean 'margin'?\nwedge.margin: missing; a number is needed\n",
    )
    assert ganlab("check", file, "--set", "margin=0.5")[::2] == (
        2,
        "--set margin=0.5: expected NAME.OPTION=VALUE, such as wedge.margin=0.5\n",
    )


TWO = """
import attrs, ganlab
from torch import nn

class Net(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.latent_dim, self.shape = 4, (images.channels, images.height, images.width)
    def forward(self, x, condition): ...

@attrs.frozen
class Up:
    width: int
    def build(self, images): raise ganlab.ComponentError(f"a generator of {self.width}")
@attrs.frozen
class Down:
    width: int
    depth: int = 1
    def build(self, images): raise ganlab.ComponentError(f"a discriminator of {self.width}")
@attrs.frozen
class Deep(Down): ...

@ganlab.hookimpl
def register_generators(register): register("two", Up)
@ganlab.hookimpl
def register_discriminators(register): register("two", Down); register("three", Deep)
"""


@pytest.mark.usefixtures("wide")
def test_options_of_two_kinds_with_one_name(ganlab: Ganlab, tmp_path: Path) -> None:
    """What is asked must reach the component that is meant, and no other; where that is not said, it is asked for."""
    file = tmp_path / "two.py"
    file.write_text(TWO)
    asked = ["--set", "generator.two.width=3", "--set", "discriminator.two.width=5", "--set", "three.width=7"]
    _, out, _ = ganlab("check", file, *asked)
    assert re.findall(r"a \w+ of \d", out) == ["a generator of 3", "a discriminator of 7", "a discriminator of 5"]
    for setting, line in (
        (
            "two.width=3",
            "two: the file registers a generator and a discriminator of that name; write generator.two or "
            "discriminator.two",
        ),
        ("generator.tow.width=3", "generator.tow: the file registers no such generator; did you mean 'two'?"),
        ("generator.two=3", "generator.two: expected options of the generator, got 3"),
        ("generator.two.width=x", "generator.two.width: expected a whole number, got 'x'"),
        ("loss.two.width=3", "loss: the file registers no such component; it registers: two, three"),
    ):
        assert ganlab("check", file, "--set", setting)[::2] == (2, f"{line}\n")
    (given,) = [s for s in conformance(file, {"discriminator": {"two": {"width": 2}}}) if s.instance is not None]
    assert (str(given), given.instance.width) == ("discriminator two", 2)


def test_json(ganlab: Ganlab, tmp_path: Path) -> None:
    file = tmp_path / "wedge.py"
    file.write_text(WEDGE)
    code, out, _ = ganlab("check", file, "--json")
    assert code == 1
    (component,) = json.loads(out)["components"]
    assert (component["kind"], component["name"]) == ("loss", "wedge")
    (fault,) = [found for found in component["checks"] if found["result"] == "fault"]
    assert fault["what"].startswith("options")
    assert fault["at"].startswith(f"{file}:")
    assert len(component["checks"]) == len(EVERYTHING.strip().splitlines())


def test_files_that_cannot_be_checked(ganlab: Ganlab, tmp_path: Path) -> None:
    code, _, err = ganlab("check", tmp_path / "none.py")
    assert (code, err) == (2, f"plugin file '{tmp_path / 'none.py'}': no such file\n")
    file = tmp_path / "broken.py"
    file.write_text("x = 1\nimport nothing_of_that_name\n")
    code, out, err = ganlab("check", file)
    assert (code, out) == (1, "")
    assert err.startswith("failed to load: plugin broken (")
    assert "No module named 'nothing_of_that_name' (line 2)" in err
    code, out, _ = ganlab("check", file, "--json")
    assert code == 1
    assert "nothing_of_that_name" in json.loads(out)["failures"][0]["cause"]
    file.write_text("import ganlab\n@ganlab.hookimpl\ndef run_started(run): ...\n")
    assert ganlab("check", file) == (0, "it registers no component: there is nothing to check\n", "")


def test_another_plugin_that_is_broken_is_not_this_ones_fault(
    ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path / "folder"))
    file = tmp_path / "wedge.py"
    file.write_text(DOCUMENTED)
    code, _, err = ganlab("check", file)
    assert (code, err) == (0, "")


def test_a_bundled_file_and_one_that_is_loaded_already(
    ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = ganlab("check", REPOSITORY / "plugins" / "ganlab_plugins" / "losses" / "relativistic.py")
    assert code == 0
    assert "loss relativistic" in out
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "wedge.py"
    file.write_text(DOCUMENTED)
    monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path / "folder"))
    code, out, _ = ganlab("check", file)
    assert code == 0
    assert out.count("loss wedge") == 1


def readmes_loss() -> str:
    (source,) = re.findall(r"```python\n(# wedge\.py\n.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    return str(source)


def test_the_readmes_loss_passes(ganlab: Ganlab, tmp_path: Path) -> None:
    file = tmp_path / "wedge.py"
    file.write_text(readmes_loss())
    code, out, _ = ganlab("check", file)
    assert code == 0, out
    assert "refused" not in out.splitlines()[-1]


@pytest.mark.docs
def test_the_output_that_the_page_shows(ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    text = (REPOSITORY / "docs" / "hooks.md").read_text()
    (shown,) = re.findall(r"```\n\$ ganlab check wedge\.py\n(.*?)```", text, re.DOTALL)
    change = "-fake.mean() * (1 + 0 * fake.mean().item())"
    assert f"`{change}`" in text
    file = tmp_path / "wedge.py"
    file.write_text(readmes_loss().replace("return -fake.mean()", f"return {change}"))
    code, out, _ = ganlab("check", file)
    assert code == 1

    def timeless(lines: str) -> list[str]:
        return [re.sub(r"\d+\.\d+ ms", "ms", line.rstrip()) for line in lines.splitlines()]

    assert timeless(out) == timeless(shown.replace("/home/ada/gan", str(tmp_path)))


def test_the_page_has_a_row_for_each_kind() -> None:
    text = (REPOSITORY / "docs" / "hooks.md").read_text()
    (section,) = re.findall(r"^## Checking a plugin\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^\| ([a-z_, ]+) \|", section, re.MULTILINE)
    assert set(KINDS) <= {kind for names in named for kind in names.split(", ")}
