"""`initialise` of networks: called once, where a run begins, and nowhere that a checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ganlab import ComponentError, initialise_network, load_run
from ganlab.config.load import load_experiment
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import ImageSpec
from ganlab.run.environment import hashes_by_name
from ganlab.run.run_folder import read_info
from ganlab.training.build import build
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.hashing import file_sha256
from ganlab.utils.paths import places
from pages import BLOCK
from run_folders import assert_same_bits
from stubs import CPU
from support import REPOSITORY

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


def warm_plugin() -> str:
    """The plugin that the page of generators shows."""
    page = (REPOSITORY / "docs" / "kinds" / "generator.md").read_text()
    return next(text for _, text in BLOCK.findall(page[page.index("## A warm start") :]))


@pytest.fixture
def warm(table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> Path:
    """An experiment whose generator begins with the weights of an earlier run, of another seed and four steps."""
    assert ganlab("run", write(table), "--out", "earlier", "--set", "seed=5")[0] == 0
    (tmp_path / "warm.py").write_text(warm_plugin())
    weights = next(iter(reversed(list_checkpoints(Path("earlier/checkpoints")).values()))) / "generator.safetensors"
    weights.rename("weights.safetensors")
    generator = {"name": "warm", "network": table["generator"], "weights": str(tmp_path / "weights.safetensors")}
    train = table["train"] | {"steps": 1, "checkpoint_every": 1}
    return write(table | {"plugins": ["warm.py"], "generator": generator, "train": train}, "warm.toml")


def test_a_warm_start_reads_its_weights_once(warm: Path, ganlab: Command) -> None:
    """The run records which file it was, and is resumed, sampled and scored without it, to the bit."""
    assert ganlab("run", warm, "--out", "whole", "--set", "train.steps=2")[0] == 0
    assert ganlab("run", warm, "--out", "r")[0] == 0
    weights = Path("weights.safetensors").absolute()
    assert read_info(Path("r"))["initialised"] == {"generator": {str(weights): file_sha256(weights)}}
    recorded = read_info(Path("r"))["initialised"]
    weights.write_bytes(b"other")
    with pytest.raises(ComponentError, match="cannot be read as a weights file"):
        initialise_network(load_run("r").experiment.game.generator, nn.Linear(1, 1))
    weights.unlink()
    assert ganlab("run", "r", "--resume", "--set", "train.steps=2")[0] == 0
    assert_same_bits(Path("whole"), Path("r"))
    assert read_info(Path("r"))["initialised"] == recorded
    assert load_run("r").sample(2).shape == (2, 1, 8, 8)
    assert ganlab("sample", "r", "--count", 4, "--out", "s.png")[0] == 0
    metric = "metric=[{name='fid', samples=20, features='pixels'}]"
    assert ganlab("eval", "r", "--set", metric, "--out", "e.json")[0] == 0
    code, _, err = ganlab("run", warm, "--out", "new")
    assert code == 2
    assert f"generator: there is no weights file {weights}" in err
    assert not Path("new").exists()
    assert ganlab("run", warm, "--dry-run")[0] == 2
    assert ganlab("run", "r", "--dry-run", "--resume", "--set", "train.steps=2")[0] == 0


def test_a_warm_start_begins_with_these_weights(warm: Path) -> None:
    """All else of the run begins as without: the discriminator's weights and the random stream of the training."""
    states = []
    for weights in ("weights.safetensors", ""):
        experiment, plugins = load_experiment(warm, [f"generator.weights='{weights}'"])
        training = build(experiment, plugins.registry, places(), CPU)
        networks = [player.network.state_dict() for player in training.game.players.values()]
        states.append((*networks, torch.rand(3)))
    (generator, discriminator, drawn), (cold, other, as_cold) = states
    held = load_file("weights.safetensors")
    assert all(torch.equal(generator[name], value) for name, value in held.items())
    assert not all(torch.equal(cold[name], value) for name, value in held.items())
    assert all(torch.equal(value, other[name]) for name, value in discriminator.items())
    assert torch.equal(drawn, as_cold)


def test_the_weights_are_read_again_where_no_checkpoint_is_whole(warm: Path, ganlab: Command) -> None:
    assert ganlab("run", warm, "--out", "whole", "--set", "train.steps=2")[0] == 0
    assert ganlab("run", warm, "--out", "r")[0] == 0
    for checkpoint in list_checkpoints(Path("r/checkpoints")).values():
        (checkpoint / "state.json").write_text("damaged")
    assert ganlab("run", "r", "--resume", "--anyway", "--set", "train.steps=2")[0] == 0
    assert_same_bits(Path("whole"), Path("r"))
    assert read_info(Path("r"))["initialised"]


COUNTING = """
import ganlab, torch
from attrs import frozen
from pathlib import Path
from torch import nn

class Network(nn.Module):
    latent_dim = 4
    def __init__(self, images):
        super().__init__()
        self.layer = nn.Linear(4, images.channels * images.height * images.width)
        self.register_buffer("mark", torch.zeros(()))
        self.shape = (images.channels, images.height, images.width)
    def forward(self, z, condition=None): return self.layer(z).tanh().unflatten(1, self.shape)

@frozen
class Counting:
    how: str = "mark"
    def build(self, images): return Network(images)
    def initialise(self, network):
        with open("calls", "a") as file: file.write("x")
        if self.how == "mark": network.mark.fill_(7); torch.rand(5)
        if self.how == "replace": network.layer.weight = nn.Parameter(torch.zeros_like(network.layer.weight))
        if self.how == "freeze": network.layer.weight.requires_grad_(False)
        if self.how == "buffer": network.mark = torch.ones(())
        if self.how == "nan": network.mark.fill_(torch.nan)

@frozen
class Two:
    def build(self, images): return Network(images)
    def initialise(self): pass

@frozen
class Option:
    initialise: bool = True
    def build(self, images): return Network(images)

@ganlab.hookimpl
def register_generators(register):
    register("counting", Counting)
    register("two", Two)
    register("option", Option)
"""


@pytest.fixture
def counting(table: dict[str, Any], write: Write, tmp_path: Path) -> Path:
    (tmp_path / "counting.py").write_text(COUNTING)
    train = table["train"] | {"steps": 1, "checkpoint_every": 1, "ema": 0.5}
    return write(table | {"plugins": ["counting.py"], "generator": {"name": "counting"}, "train": train})


def test_it_is_called_once(counting: Path, ganlab: Command) -> None:
    """Of a run that is trained, resumed, sampled and read; the running average begins with its weights too."""
    assert ganlab("run", counting, "--out", "r")[0] == 0
    assert Path("calls").read_text() == "x"
    assert ganlab("run", "r", "--resume", "--set", "train.steps=2")[0] == 0
    assert ganlab("sample", "r", "--count", 4, "--out", "s.png")[0] == 0
    assert load_run("r").generator.mark == 7
    assert Path("calls").read_text() == "x"
    (*_, last) = list_checkpoints(Path("r/checkpoints")).values()
    state = load_checkpoint(last)
    assert state["generator"]["mark"] == state["ema"]["mark"] == 7


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("replace", "initialise has replaced 'layer.weight' of the network; change weights in place"),
        ("buffer", "initialise has replaced 'mark' of the network; change weights in place"),
        ("freeze", "initialise has frozen weights"),
    ],
)
def test_what_no_checkpoint_would_hold_is_refused(counting: Path, ganlab: Command, how: str, line: str) -> None:
    code, _, err = ganlab("run", counting, "--out", "r", "--set", f"generator.how={how}")
    assert code == 2
    assert f"tiny.toml: generator: {line}" in err
    assert not Path("r").exists()


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("quick_timing")
def test_the_conformance_check_finds_it(counting: Path, ganlab: Command) -> None:
    Path("counting.py").write_text(
        COUNTING.replace('register("two", Two)', "").replace('register("option", Option)', "")
    )
    code, shown, _ = ganlab("check", "counting.py", "--set", "counting.how=replace")
    assert code == 1
    assert "initialise: changes weights and buffers in place" in shown
    assert "initialise has replaced 'layer.weight' of the network" in shown
    assert "initialise:" in ganlab("check", "counting.py")[1]


def test_another_signature_is_refused_and_an_option_of_that_name_is_none(counting: Path, ganlab: Command) -> None:
    code, _, err = ganlab("run", counting, "--out", "r", "--set", "generator=two")
    assert code == 2
    assert "generator: expected a method initialise(self, network)" in err
    assert ganlab("run", counting, "--out", "r", "--set", "generator=option")[0] == 0


@pytest.mark.parametrize(("kind", "wrapper"), [("generator", "conditional"), ("discriminator", "conditional")])
def test_a_wrapper_initialises_the_network_in_it(kind: str, wrapper: str, tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(INNER)
    registry = load_plugins([tmp_path / "inner.py"]).registry
    config = registry.find(kind, wrapper).cls(network=registry.find(kind, "inner").cls())
    network = config.build(ImageSpec(1, 8, 8, classes=3))
    initialise_network(config, network)
    assert network.network.weight.item() == 3


def test_packs_initialise_the_network_in_them(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(INNER)
    registry = load_plugins([tmp_path / "inner.py"]).registry
    config = registry.find("discriminator", "packed").cls(network=registry.find("discriminator", "inner").cls())
    network = config.build(ImageSpec(1, 8, 8))
    initialise_network(config, network)
    assert network.network.weight.item() == 3


INNER = """
import ganlab, torch
from attrs import frozen
from torch import nn

class Network(nn.Module):
    latent_dim = 60
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

@frozen
class Inner:
    latent_dim: int = 60
    def build(self, images): return Network()
    def initialise(self, network): network.weight.fill_(3)

@ganlab.hookimpl
def register_generators(register): register("inner", Inner)

@ganlab.hookimpl
def register_discriminators(register): register("inner", Inner)
"""


READS = COUNTING.replace(
    "def build(self, images): return Network(images)\n    def initialise",
    "weights: str = ganlab.location(default='')\n"
    "    def build(self, images):\n"
    "        ganlab.read_weights(Path(self.weights))\n"
    "        return Network(images)\n"
    "    def initialise",
    1,
)


def test_of_two_weights_files_of_one_name_both_bind_the_run() -> None:
    both = hashes_by_name({"/a/w.pt": "1", "/b/w.pt": "2", "/b/v.pt": "3"})
    assert both == {"w.pt": "1, 2", "v.pt": "3"}
    assert both == hashes_by_name({"/b/v.pt": "3", "/c/w.pt": "2", "/d/w.pt": "1", "/e/w.pt": "2"})


def test_weights_that_are_read_whenever_a_component_is_built_bind_the_run(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """Such as those of a network that a loss compares with: exchanged, they would be another training."""
    (tmp_path / "counting.py").write_text(READS)
    save_file({"a": torch.zeros(2)}, "w.safetensors")
    generator = {"name": "counting", "weights": str(tmp_path / "w.safetensors")}
    table |= {"plugins": ["counting.py"], "generator": generator, "train": table["train"] | {"steps": 1}}
    file = write(table)
    assert ganlab("run", file, "--out", "r")[0] == 0
    assert read_info(Path("r"))["weights_files"] == {"w.safetensors": file_sha256(Path("w.safetensors"))}
    Path("elsewhere").mkdir()
    Path("w.safetensors").rename("elsewhere/w.safetensors")
    moved = ("--set", f"generator.weights={tmp_path / 'elsewhere' / 'w.safetensors'}")
    assert ganlab("run", file, "--out", "r", "--resume", "--set", "train.steps=2", *moved)[0] == 0
    save_file({"a": torch.ones(2)}, "elsewhere/w.safetensors")
    code, _, err = ganlab("run", file, "--out", "r", "--resume", "--set", "train.steps=3", *moved)
    assert code == 2
    assert "r: weights_files.w.safetensors: was" in err
