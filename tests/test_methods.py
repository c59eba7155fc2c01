"""Published methods as plugins of one file (tests/methods): each conforms, trains, and is the same on two processes."""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import paired_images
from ganlab.run.load_run import load_run
from ganlab.run.records import read_records
from ganlab.testing import conformance
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from support import REPOSITORY
from test_distributed import forked

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parent / "methods"
FILES = {file.stem: file for file in sorted(FOLDER.glob("*.py"))}
MOST_LINES = 60

GENERATOR = {"generator": {"name": "mlp", "latent_dim": 8, "hidden": [16]}}
DISCRIMINATOR = {"discriminator": {"name": "mlp", "hidden": [16]}}

TABLES: dict[str, dict[str, Any]] = {
    "adversarial_autoencoder": GENERATOR,
    "bigan": GENERATOR,
    "context_encoder": {},
    "cut": {"source": {"name": "digits"}, "game": {"name": "small_cut", "patches": 8, "width": 8}},
    "cyclegan": {"source": {"name": "digits"}, "game": {"name": "small_cyclegan"}},
    "feature_matching": GENERATOR,
    "gman": GENERATOR | DISCRIMINATOR | {"game": {"harshness": 0.5}},
    "infogan": {"game": {"categories": 4, "noise": 6}},
    "mmd_gan": GENERATOR | {"game": {"critic_steps": 2, "dim": 16, "clip": 1.0}},
    "pix2pix": {
        "plugins": [paired_images.__file__],
        "dataset": {"name": "paired"},
        "game": {"name": "small_pix2pix"},
    },
    "stylegan2": DISCRIMINATOR | {"game": {"dim": 8}, "penalty": [{"name": "r1"}]},
    "topk": GENERATOR | DISCRIMINATOR,
    "vae_gan": GENERATOR,
    "vqgan": {"loss": {"name": "hinge"}, "game": {"start": 3, "codes": 8}},
}
"""What the experiment file of each method has besides the method and what all have."""

CONFORMS_BY_DEFAULT = ("gman", "pix2pix")
RUNS_BY_DEFAULT = ("stylegan2", "vqgan")


def some(names: Any, default: tuple[str, ...]) -> list[Any]:
    """Parameters of a test, of which only the default ones are in the default tier."""
    slow = (pytest.mark.extended, pytest.mark.large)
    return [pytest.param(name, marks=() if name in default else slow) for name in names]


def lines_of_code(file: Path) -> int:
    """The lines of a method's code: without imports, docstrings, comments, empty lines and networks (`nn.Module`)."""
    source = file.read_text()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_network = isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(base) for base in node.bases)
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_network or is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt)
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code = {
        token.start[0] for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in layout
    }
    return len(code - left_out)


@pytest.fixture
def experiment(table: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """The experiment of a method by name, as a table: a few steps of tiny networks on the digits."""

    def experiment(name: str) -> dict[str, Any]:
        common = {key: table[key] for key in ("name", "dataset", "optimizer", "train")}
        own = dict(TABLES[name])
        plugins = [str(FILES[name]), *own.pop("plugins", [])]
        return {**common, **own, "plugins": plugins, "game": {"name": name, **own.get("game", {})}}

    return experiment


@pytest.mark.parametrize("name", FILES)
def test_a_method_is_short(name: str) -> None:
    assert lines_of_code(FILES[name]) <= MOST_LINES


@pytest.mark.parametrize("name", FILES)
def test_a_method_uses_public_names_only(name: str) -> None:
    """Of ganlab names without an underscore; from elsewhere only torch, attrs and the standard library."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] in ("torch", "attrs", "collections")
        elif isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"torch", "ganlab"}
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr == "__init__"


def test_the_table_of_methods_is_true() -> None:
    text = (REPOSITORY / "docs" / "methods.md").read_text()
    rows = dict(re.findall(r"^\| .* \| `tests/methods/(\w+)\.py` \| (\d+) \|", text, re.MULTILINE))
    assert {name: int(lines) for name, lines in rows.items()} == {
        name: lines_of_code(file) for name, file in FILES.items()
    }


@pytest.mark.parametrize("name", some(FILES, CONFORMS_BY_DEFAULT))
def test_a_method_conforms(name: str, quick_timing: None) -> None:
    for component in conformance(FILES[name]):
        not_passed = [str(found) for found in component.check() if found.result != "passed"]
        assert not_passed == []


@pytest.mark.parametrize("name", some(FILES, RUNS_BY_DEFAULT))
def test_a_method_runs_from_an_experiment_file(
    name: str, experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment(name)
    table["train"] |= {"steps": 6, "log_every": 2, "ema": 0.9}
    code, _, err = ganlab("run", write(table), "--out", "run", "--device", "cpu")
    assert code == 0, err
    last = read_records(Path("run/log.jsonl"))[-1]
    losses = {key: value for key, value in last.items() if key.startswith("loss_")}
    assert len(losses) >= 2
    assert all(math.isfinite(value) for value in losses.values()), losses
    run = load_run(Path("run"))
    images = run.sample(5, seed=1)
    assert images.shape == (5, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert torch.equal(images, run.sample(5, seed=1))
    assert not torch.equal(images, run.sample(5, seed=2))


def test_a_discriminator_begins_at_its_step(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    """VQGAN's discriminator, and its share in the autoencoder's loss; its weight is the ratio of two gradients."""
    table = experiment("vqgan")
    table["train"] |= {"steps": 6, "log_every": 1}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    records = read_records(Path("run/log.jsonl"))
    begun = [record["loss_autoencoder_adversarial"] != 0 for record in records]
    assert begun == [False, False, False, True, True, True]
    assert ["loss_discriminator" in record for record in records] == begun
    assert all(record["adaptive_weight"] > 0 for record in records)


def test_styles_are_truncated_towards_their_mean(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment("stylegan2")
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    run = load_run(Path("run"))
    mean = run.networks["mapping"].mean
    assert mean.any()
    (style,) = run.sampler.latents(1, torch.Generator().manual_seed(0))
    (half,) = run.sampler.latents(1, torch.Generator().manual_seed(0), 0.5)
    torch.testing.assert_close(half, (style + mean) / 2)
    assert not style.requires_grad
    assert not torch.equal(run.sample(3), run.sample(3, truncation=0.5))


def test_several_discriminators_in_the_default_game(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    """A discriminator that returns a list of logits: the loss is the sum of those of its members."""
    table |= {"plugins": [str(FILES["gman"])], "discriminator": {"name": "several", **DISCRIMINATOR, "count": 2}}
    assert ganlab("run", write(table), "--out", "run", "--device", "cpu")[0] == 0
    first, *_ = read_records(Path("run/log.jsonl"))
    assert first["loss_discriminator"] == pytest.approx(4 * math.log(2), abs=1)
    table |= {"discriminator": {"name": "several", **DISCRIMINATOR, "count": 1}}
    assert ganlab("run", write(table), "--out", "one", "--device", "cpu")[0] == 0
    one, *_ = read_records(Path("one/log.jsonl"))
    assert one["loss_discriminator"] == pytest.approx(2 * math.log(2), abs=0.5)


def weights(run: Path) -> torch.Tensor:
    """All weights of the networks of a run's last checkpoint."""
    state = load_checkpoint(list(list_checkpoints(run / "checkpoints").values())[-1])
    names = load_run(run).networks
    return torch.cat([value.double().flatten() for name in names for value in state[name].values()])


@pytest.mark.torchrun
@pytest.mark.extended
@pytest.mark.parametrize("name", ["cyclegan", "vae_gan", "mmd_gan", "topk"])
def test_a_method_is_the_same_on_two_processes(
    name: str, experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """A pool of images of all processes, two players in one move, and rows that are compared with all others."""
    table = experiment(name)
    table["optimizer"] = {"name": "sgd", "lr": 0.01, "momentum": 0.5}
    table["train"] |= {"steps": 8}
    file = write(table)
    assert ganlab("run", file, "--out", "one", "--device", "cpu")[0] == 0
    forked(2, tmp_path, "run", file, "--out", "two")
    one, two = weights(Path("one")), weights(Path("two"))
    assert one.isfinite().all()
    assert (one - two).abs().max() < 1e-5


def test_a_game_that_needs_pairs_refuses_class_labels(
    experiment: Callable[[str], dict[str, Any]], write: Write, ganlab: Ganlab
) -> None:
    table = experiment("pix2pix") | {"dataset": {"name": "digits"}}
    code, _, err = ganlab("run", write(table), "--out", "run", "--device", "cpu")
    assert code == 2
    assert "[dataset] must have images of the same size as conditions" in err


def network_file(given: str, before: str) -> str:
    """A game as a plugin, with an encoder that is made of another network."""
    return f'''
from attrs import frozen
from torch import nn
import ganlab


@frozen
class Game:
    """A game for a test.

    generator: any.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")

    def build(self, data):
        latents = ganlab.Network(lambda generator: nn.Linear(ganlab.latent_dim_of(generator), 1), given={given})
        networks = {{{before}}}
        move = ganlab.Move("all", players=tuple(networks), terms=self.terms)
        return ganlab.Rules(networks=networks, moves=[move], sampler=ganlab.sampler_of("generator"))

    def terms(self, turn):
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, None).mean() + turn.forward("head", z).square().mean()


@ganlab.hookimpl
def register_games(register):
    register("made_of", Game)
'''


@pytest.mark.parametrize(
    ("given", "networks", "said"),
    [
        ('("generator",)', '"generator": self.generator, "head": latents', ""),
        ('("generator",)', '"head": latents, "generator": self.generator', "'generator' among what the network"),
        ('("decoder",)', '"generator": self.generator, "head": latents', "'decoder' among what the network"),
    ],
)
def test_a_network_is_made_of_one_before_it(
    given: str, networks: str, said: str, table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    (tmp_path / "game.py").write_text(network_file(given, networks))
    common = {key: table[key] for key in ("name", "dataset", "generator", "optimizer", "train")}
    code, _, err = ganlab("run", write({**common, "plugins": ["game.py"], "game": "made_of"}), "--out", "run")
    assert code == (2 if said else 0), err
    assert said in err
    if not said:
        assert load_run(Path("run")).networks["head"].in_features == 8
