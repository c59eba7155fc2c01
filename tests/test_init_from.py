"""`[init_from]` and `train.freeze`: what a run begins with, and what it keeps, held against the files themselves."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ganlab import ImageSpec, UserError, load_run
from ganlab.config.load import load_experiment
from ganlab.config.schema import InitFrom
from ganlab.nn.freeze import freeze_parameters
from ganlab.nn.layers import spectrally_normed
from ganlab.nn.transfer import renamed, transfer_weights
from ganlab.run.init_from import InitialWeights, with_names_of_file
from ganlab.run.run_folder import read_info
from ganlab.training.build import build
from ganlab.training.loop import Training
from ganlab.utils.errors import ComponentError
from ganlab.utils.hashing import file_sha256
from ganlab.utils.paths import places
from ganlab_plugins.networks.conditional import ConditionalGenerator
from ganlab_plugins.networks.mlp import MLPDiscriminator, MLPGenerator
from run_folders import assert_same_bits, tensors
from stubs import CPU

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
Networks = dict[str, dict[str, torch.Tensor]]

CHECKPOINT = "a/checkpoints/step-00000004"


@pytest.fixture
def earlier(table: dict[str, Any], write: Write, ganlab: Command) -> Networks:
    """The run "a", of another seed, with a running average; the weights of its networks, of the generator the average.

    The table is then that of a later run.
    """
    table["train"] |= {"ema": 0.5}
    assert ganlab("run", write(table), "--out", "a", "--set", "seed=5")[0] == 0
    generator, plain = (load_file(f"{CHECKPOINT}/{part}.safetensors") for part in ("ema", "generator"))
    assert not torch.equal(generator["layers.0.weight"], plain["layers.0.weight"])
    return {
        "generator": generator,
        "plain": plain,
        "discriminator": load_file(f"{CHECKPOINT}/discriminator.safetensors"),
    }


def begun(path: Path, *overrides: str) -> tuple[Training, InitialWeights]:
    """The training of an experiment before its first step, and what it begins with."""
    experiment, plugins = load_experiment(path, overrides)
    assert experiment.init_from is not None
    first = InitialWeights(experiment.init_from)
    return build(experiment, plugins.registry, places(), CPU, start=first), first


def same(network: nn.Module, held: dict[str, torch.Tensor]) -> list[str]:
    state = network.state_dict()
    return [name for name, value in held.items() if name in state and torch.equal(state[name], value)]


def test_a_run_begins_with_the_weights_of_another_and_is_whole_without_it(
    earlier: Networks, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    """What is sampled begins with the average, both in the network and in the new average; all is read once."""
    path = write(table | {"init_from": {"run": "a"}, "train": table["train"] | {"steps": 1}})
    training, _ = begun(path)
    for name in ("generator", "discriminator"):
        assert same(training.game.networks[name], earlier[name]) == list(earlier[name])
    assert training.ema is not None
    assert same(training.ema.networks["generator"], earlier["generator"]) == list(earlier["generator"])
    plain, _ = begun(path, "init_from.ema=false", "init_from.networks=['generator']")
    assert same(plain.game.networks["generator"], earlier["plain"]) == list(earlier["plain"])
    assert same(plain.game.networks["discriminator"], earlier["discriminator"]) == []

    code, out, _ = ganlab("run", path, "--out", "b")
    assert code == 0
    assert "init_from: 2 of 2 layers of generator begin with the averaged weights of a at step 4" in out
    info = read_info(Path("b"))
    files = {
        "generator": Path(CHECKPOINT, "ema.safetensors"),
        "discriminator": Path(CHECKPOINT, "discriminator.safetensors"),
    }
    assert info["initialised"] == {name: {str(file.absolute()): file_sha256(file)} for name, file in files.items()}
    assert info["init_from"]["generator"] == {
        **{"from": "a at step 4", "weights": "averaged", "layers": 2, "new": {}, "unused": []}
    }
    shutil.rmtree("a")
    assert load_run("b").sample(1).shape == (1, 1, 8, 8)
    code, _, err = ganlab("run", path, "--out", "c")
    assert (code, Path("c").exists()) == (2, False)
    assert "init_from.run: a: not a run folder" in err


@pytest.mark.extended
@pytest.mark.large
def test_a_run_is_resumed_without_what_it_began_with_to_the_bit(
    earlier: Networks, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    path = write(table | {"init_from": {"run": "a"}, "train": table["train"] | {"steps": 1}})
    assert ganlab("run", path, "--out", "whole", "--set", "train.steps=3")[0] == 0
    assert ganlab("run", path, "--out", "b")[0] == 0
    info = read_info(Path("b"))
    shutil.rmtree("a")
    assert ganlab("run", "b", "--resume", "--set", "train.steps=3")[0] == 0
    assert_same_bits(Path("whole"), Path("b"))
    assert [read_info(Path("b"))[key] for key in ("init_from", "initialised")] == [
        info[key] for key in ("init_from", "initialised")
    ]


@pytest.mark.extended
@pytest.mark.large
def test_what_fits_is_taken_and_the_rest_is_said_or_refused(
    earlier: Networks, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    table["generator"] |= {"latent_dim": 9}
    path = write(table | {"init_from": {"run": "a", "networks": ["generator"]}})
    training, first = begun(path)
    assert {*same(training.game.networks["generator"], earlier["generator"])} == {"layers.2.weight", "layers.2.bias"}
    line = "generator.layers.0 begins anew: weight is 16x9 here and 16x8 there"
    assert first.lines == [
        "init_from: 1 of 2 layers of generator begin with the averaged weights of a at step 4",
        f"init_from: {line}",
    ]
    code, _, err = ganlab("run", path, "--out", "b", "--set", "init_from.strict=true")
    assert (code, Path("b").exists()) == (2, False)
    assert err == f"{path}: init_from.strict: {line}\n"


@pytest.mark.extended
@pytest.mark.large
def test_names_that_differ_are_mapped_and_files_of_other_tools_are_read(
    earlier: Networks, table: dict[str, Any], write: Write
) -> None:
    """As another tool may have saved them: .pt without code, networks by other names, a layer at another place."""
    theirs = {
        name.replace("layers.2", "head").replace("layers", "body"): value
        for name, value in earlier["generator"].items()
    }
    torch.save({f"G.{name}": value for name, value in theirs.items()}, "theirs.pt")
    names = {"generator": "G", "generator.layers": "G.body", "generator.layers.2": "G.head"}
    path = write(
        table | {"init_from": {"file": "theirs.pt", "names": names, "strict": True, "networks": ["generator"]}}
    )
    training, _ = begun(path)
    assert same(training.game.networks["generator"], earlier["generator"]) == list(earlier["generator"])
    save_file({name: value.half() for name, value in earlier["generator"].items()}, "alone.safetensors")
    path = write(table | {"init_from": {"file": "alone.safetensors", "networks": ["generator"]}})
    training, _ = begun(path)
    halves = {name: value.half().float() for name, value in earlier["generator"].items()}
    assert same(training.game.networks["generator"], halves) == list(halves)
    # A checkpoint of several networks and what is none, with the names in a file; one of a single network.
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    optimizer.step(lambda: 0.0)
    checkpoint = {"g_ema": theirs, "d": {"w": torch.ones(1)}, "opt": optimizer.state_dict(), "epoch": 3, "rng": None}
    torch.save(checkpoint, "checkpoint.pth")
    Path("names.toml").write_text('[generator]\nlayers = "g_ema.body"\n"layers.2" = "g_ema.head"\n')
    given = {"file": "checkpoint.pth", "names_file": "names.toml", "networks": ["generator"]}
    training, first = begun(write(table | {"init_from": given}))
    assert same(training.game.networks["generator"], earlier["generator"]) == list(earlier["generator"])
    assert first.record["generator"]["new"] == {}
    torch.save({"state_dict": earlier["generator"], "epoch": 3}, "one.pth")
    training, _ = begun(write(table | {"init_from": {"file": "one.pth", "networks": ["generator"]}}))
    assert same(training.game.networks["generator"], earlier["generator"]) == list(earlier["generator"])


REFUSED = {
    "networks": (
        {"run": "a", "networks": ["genrator"]},
        "the game has no network 'genrator'; did you mean 'generator'?",
    ),
    "step": ({"run": "a", "step": 3}, "init_from.step: a has no checkpoint of step 3; there are: 4"),
    "whose": ({"file": f"{CHECKPOINT}/ema.safetensors"}, "it is not said which network the weights in"),
    "another architecture": (
        {"file": f"{CHECKPOINT}/ema.safetensors", "networks": ["discriminator"]},
        "no layer of discriminator fits those of",
    ),
    "names": (
        {"run": "a", "names": {"generator.layers.7": "generator.layers.0"}},
        "init_from.names: 'generator.layers.7': the game has no tensor of that name; did you mean 'generator.layers.",
    ),
    "no average": ({"run": "plain", "ema": True}, "init_from.ema: plain has no running average at step 4"),
    "damaged": ({"run": "damaged"}, "damaged: its sha256 is not the one in manifest.json"),
}


@pytest.mark.extended
@pytest.mark.large
def test_what_cannot_be_begun_with_is_refused_in_one_line(
    earlier: Networks, table: dict[str, Any], write: Write
) -> None:
    shutil.copytree("a", "plain")
    Path("plain/checkpoints/step-00000004/ema.safetensors").unlink()
    shutil.copytree("a", "damaged")
    save_file(earlier["plain"], "damaged/checkpoints/step-00000004/ema.safetensors")
    for name, (given, line) in REFUSED.items():
        with pytest.raises(UserError) as raised:
            begun(write(table | {"init_from": given}))
        (problem,) = raised.value.problems
        assert line in problem, name


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("names.toml", None, "cannot be read (No such file or directory)"),
        ("names.toml", "a = ", "Invalid value"),
        ("names.json", "[1]", "is no table of names"),
        ("names.json", '{"generator": {"a": 3}}', "'a' is 3; wanted a name"),
    ],
)
def test_a_file_that_holds_no_names_is_refused(name: str, content: str | None, line: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(line)) as raised:
        with_names_of_file(InitFrom(file="w.pt", names_file=str(tmp_path / name)))
    assert str(raised.value).startswith(f"init_from.names_file: {tmp_path / name}: ")


@pytest.mark.parametrize(
    "given", [{}, {"run": "a", "file": "b"}, {"file": "b", "ema": True}, {"file": "b", "step": 2}], ids=str
)
def test_options_that_exclude_each_other(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give one of|goes with 'run'"):
        InitFrom(**given)


def test_a_layer_is_taken_whole_or_not_at_all() -> None:
    """A bias that fits does not come without its weights, nor spectral norm's estimate without its matrix."""

    def network(width: int) -> nn.Module:
        torch.manual_seed(width)
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), spectrally_normed(nn.Linear(width, 2)))

    source, target, alike = network(4), network(5), network(4)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ComponentError, match="not finite"):
        transfer_weights(alike, source.state_dict() | {"0.bias": torch.full((4,), float("nan"))})
    for one in (source, alike):
        one.register_buffer("mask", torch.full((2,), -torch.inf))
    done = transfer_weights(alike, source.state_dict())
    assert done.taken == ("", "0", "1", "2"), "a mask may be infinite"
    assert same(alike, dict(source.state_dict())) == list(source.state_dict())
    done = transfer_weights(target, source.state_dict())
    assert done.taken == ()
    assert set(done.left) == {"0", "1", "2"}, "the last has a bias of 2 in both"
    assert same(target, before) == list(before)


def test_of_another_number_of_classes_all_is_taken_but_what_belongs_to_a_class() -> None:
    for config, own in (
        (ConditionalGenerator(MLPGenerator()), "classes"),
        (MLPDiscriminator(head="projection"), "head.classes"),
    ):
        source, target = (config.build(ImageSpec(1, 8, 8, classes)) for classes in (10, 2))
        before = target.get_submodule(own).weight.clone()
        done = transfer_weights(target, source.state_dict())
        ((layer, why),) = done.left.items()
        width = before.shape[1]
        assert (layer, why) == (own, f"weight is 2x{width} here and 10x{width} there")
        others = {name: value for name, value in source.state_dict().items() if not name.startswith(own)}
        assert same(target, others) == list(others)
        assert torch.equal(target.get_submodule(own).weight, before)


def test_the_longest_beginning_is_renamed_and_ends_with_a_part() -> None:
    names = {"a": "x", "a.1": "y.z", "b": ""}
    renamings = {
        "a.0.weight": "x.0.weight",
        "a.1.weight": "y.z.weight",
        "a.10.weight": "x.10.weight",
        "b.c": "c",
        "d": "d",
    }
    assert {name: renamed(name, names) for name in renamings} == renamings


@pytest.mark.extended
@pytest.mark.large
def test_frozen_parameters_stay_and_no_optimiser_has_them(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    """Resumed to the bit; batch norm's statistics of a frozen layer follow the data, as they do in torch."""
    table["discriminator"] |= {"hidden": [16, 16], "norm": "batch"}
    table["train"] |= {"checkpoint_every": 1, "freeze": ["discriminator.layers.0-3"]}
    path = write(table)
    assert ganlab("run", path, "--out", "a", "--set", "train.steps=1")[0] == 0
    before = tensors(Path("a"))
    assert ganlab("run", path, "--out", "a", "--resume")[0] == 0
    assert ganlab("run", path, "--out", "whole")[0] == 0
    assert_same_bits(Path("whole"), Path("a"))
    after = tensors(Path("a"))
    weights = [name for name in before if name.startswith(("generator.", "discriminator."))]
    unchanged = {name for name in weights if torch.equal(before[name], after[name])}
    frozen = {
        name for name in weights if name.split(".")[2] in "0123" and "discriminator" in name and "num" not in name
    }
    statistics = {name for name in frozen if "running" in name}
    assert statistics
    assert unchanged == frozen - statistics
    experiment, plugins = load_experiment(path)
    game = build(experiment, plugins.registry, places(), CPU).game
    (held,) = (
        player.optimizer.param_groups[0]["params"] for player in game.players.values() if player.name != "generator"
    )
    assert {id(p) for p in held} == {id(p) for p in game.networks["discriminator"].parameters() if p.requires_grad}
    assert len(held) < len(list(game.networks["discriminator"].parameters()))


FREEZING = {
    "g.0": {"g.0.weight", "g.0.bias"},
    "g.0-1": {"g.0.weight", "g.0.bias", "g.1.weight", "g.1.bias"},
    "g.*.bias": {"g.0.bias", "g.1.bias", "g.10.bias"},
    "d.layers.1": {"d.layers.1.weight", "d.layers.1.bias"},
}


def test_patterns_name_parameters_or_are_refused_with_the_nearest() -> None:
    def networks() -> dict[str, nn.Module]:
        g = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("0", "1", "10")})
        return {"g": g, "d": nn.ModuleDict({"layers": nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))})}

    for pattern, names in FREEZING.items():
        of = networks()
        freeze_parameters(of, [pattern])
        frozen = {f"{n}.{name}" for n, net in of.items() for name, p in net.named_parameters() if not p.requires_grad}
        assert frozen == names
    of = networks()
    with pytest.raises(UserError) as raised:
        freeze_parameters(of, ["g.0", "d.layer.0", "g.2-9", "h", "g.0.bias.1", "", "d.", "d.layers"])
    assert list(raised.value.problems) == [
        "train.freeze: 'd.layer.0' matches no parameter; did you mean 'd.layers'?",
        "train.freeze: 'g.2-9' matches no parameter; g has 0, 1, 10",
        "train.freeze: 'h' matches no parameter; the networks that are trained: g, d",
        "train.freeze: 'g.0.bias.1' matches no parameter; 'g.0.bias' is a parameter",
        "train.freeze: '' matches no parameter; the networks that are trained: g, d",
        "train.freeze: 'd.' matches no parameter; d has layers",
        "train.freeze: nothing of 'd' is left to train",
    ]
    assert all(parameter.requires_grad for network in of.values() for parameter in network.parameters())
