"""One update: stopped ones held against optimisers that are not stepped, parts against the whole batch, bitwise or
up to rounding. What whole trainings make of it is held against a plain loop in test_loop.py."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganlab.config.load import convert_experiment, experiment_to_toml
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Places
from ganlab.run.records import read_records
from ganlab.training.build import build
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.training.loop import Training, take_step
from ganlab.training.probes import can_undo_updates
from ganlab.training.state import restore_training, training_state
from ganlab.training.update import step_unless_stopped
from ganlab.utils.part_states import PartStates

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Counting(torch.optim.Optimizer):
    """A third-party one, which counts its updates in Python; its step is the shorter the more it has made."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["count"] = kept.get("count", 0) + 1
                parameter.sub_(group["lr"] / kept["count"] * parameter.grad)


class Rebinding(torch.optim.Optimizer):
    """A third-party one, which keeps a new tensor each time."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["mean"] = 0.9 * kept.get("mean", torch.zeros_like(parameter)) + parameter.grad
                parameter.sub_(group["lr"] * kept["mean"])


STOPPABLE: dict[str, Make] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "adam, amsgrad": lambda parameters: torch.optim.Adam(parameters, amsgrad=True, weight_decay=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, foreach=False),
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, fused=True),
    "momentum, fused": lambda parameters: torch.optim.SGD(parameters, 0.1, 0.9, fused=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.1, 0.9, nesterov=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, momentum=0.5, centered=True),
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rebinding": Rebinding,
}
NOT_STOPPABLE: dict[str, Make] = {
    "begins with a product of 1": torch.optim.NAdam,
    "damps all but the first gradient": lambda parameters: torch.optim.SGD(parameters, 0.1, 0.9, dampening=0.5),
    "counts in Python": Counting,
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


@pytest.mark.parametrize("course", ["s.s..ss.", ".s", "sss"])
@pytest.mark.parametrize("name", STOPPABLE)
def test_stopped_updates_are_as_if_they_had_not_been(name: str, course: str) -> None:
    """Gradients are new each time, those of stopped updates not finite; the other optimiser is simply not stepped."""
    one = network()
    other = copy.deepcopy(one)
    optimizers = [STOPPABLE[name](net.parameters()) for net in (one, other)]
    for stop in course:
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            gradient = torch.randn_like(mine)
            its.grad = gradient.clone()
            mine.grad = gradient * torch.nan if stop == "s" else gradient
        step_unless_stopped(torch.tensor(stop == "s"), optimizers[0])
        if stop == ".":
            optimizers[1].step()
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its)
        for key, value in optimizers[1].state.get(its, {}).items():
            assert torch.equal(optimizers[0].state[mine][key], value), key


def test_whether_an_optimiser_can_be_stopped_is_found() -> None:
    def can(make: Callable[..., torch.optim.Optimizer]) -> bool:
        return can_undo_updates(lambda net: make(net.parameters()), network())

    assert all(map(can, STOPPABLE.values()))
    assert not any(map(can, NOT_STOPPABLE.values()))


NADAM = """
import torch
from attrs import frozen
from ganlab import hookimpl

@frozen
class NAdam:
    def build(self, parameters): return torch.optim.NAdam(parameters)

@hookimpl
def register_optimizers(register): register("nadam", NAdam)
"""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an optimiser that cannot be stopped": (
        {"train": {"stop_generator_under": 0.5}, "discriminator": {"optimizer": {"name": "adam"}}},
        "train.stop_generator_under: the optimizer 'nadam' cannot take an update back: it leaves a trace in later "
        "ones; 'adam' can",
    ),
    "parts that are not equal": (
        {"train": {"accumulate": 5}},
        "train.accumulate: a batch of 16 images cannot pass in 5 equal parts; 4 would do",
    ),
    "more parts than images": (
        {"train": {"accumulate": 32}},
        "train.accumulate: a batch of 16 images cannot pass in 32 equal parts; 16 would do",
    ),
    "both": (
        {"train": {"discriminator_every": 2, "discriminator_steps": 3}},
        "train.discriminator_every: 2 together with discriminator_steps = 3; one of them must be 1",
    ),
    "no norm": ({"train": {"clip_norm": 0.0}}, "train.clip_norm: must be > 0, got 0.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_line(case: str, table: dict[str, Any], write: Write, ganlab: Command) -> None:
    Path("nadam.py").write_text(NADAM)
    changes, line = REFUSED[case]
    table |= {"plugins": ["nadam.py"], "optimizer": {"name": "nadam"}}
    for key, value in changes.items():
        table[key] |= value
    path = write(table)
    code, _, err = ganlab("run", path, "--out", "r")
    assert (code, err) == (2, f"{path}: {line}\n")
    assert not Path("r").exists()


# ---------------------------------------------------------------------------------------------------------------------
# In a training
# ---------------------------------------------------------------------------------------------------------------------


def built(table: dict[str, Any], tmp_path: Path, steps: int, **train: Any) -> Training:
    plugins = load_plugins()
    experiment = convert_experiment({**table, "train": {**table["train"], "steps": steps, **train}}, plugins)
    return build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))


def trained(table: dict[str, Any], tmp_path: Path, steps: int = 6, **train: Any) -> Training:
    training = built(table, tmp_path, steps, **train)
    for step in range(steps):
        take_step(training, step)
    return training


def weights(training: Training) -> Tensor:
    return torch.cat(
        [w.detach().flatten() for player in training.game.players.values() for w in player.network.parameters()]
    )


@pytest.mark.parametrize("fresh", [True, False])
def test_parts_give_the_gradient_of_the_whole_batch(fresh: bool, table: dict[str, Any], tmp_path: Path) -> None:
    """With a penalty on gradients, conditions, a loss of both logits and values that it measures."""
    network = {"name": "mlp", "hidden": [16]}
    table |= {
        "generator": {"name": "conditional", "network": {**network, "latent_dim": 8}},
        "discriminator": {"name": "conditional", "network": network},
        "loss": {"name": "value"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "penalty": [{"name": "r1", "every": 2}, {"name": "l2_generator", "weight": 0.1}],
    }
    whole, parts = (trained(table, tmp_path, fresh_noise=fresh, accumulate=count) for count in (1, 4))
    start = trained(table, tmp_path, steps=1, fresh_noise=fresh)
    assert (weights(whole) - weights(start)).abs().max() > 1e-2
    assert (weights(whole) - weights(parts)).abs().max() < 1e-6
    means, other = (training.game.meters.means() for training in (whole, parts))
    assert means.keys() == other.keys() >= {"value", "penalty_r1", "d_real", "loss_generator"}
    assert means == pytest.approx(other, rel=1e-5)


def test_a_relativistic_average_is_that_of_a_part(table: dict[str, Any], tmp_path: Path) -> None:
    """What a loss makes of several logits it makes of those of a part: the gradient is another."""
    table |= {"discriminator": {"name": "mlp", "hidden": [16]}, "loss": {"name": "relativistic_average"}}
    whole, parts = (trained(table, tmp_path, accumulate=count) for count in (1, 4))
    assert (weights(whole) - weights(parts)).abs().max() > 1e-5


class Moved:
    """A component that keeps a mean and a flag in a module, whose `state_dict` returns new tensors each time."""

    def __init__(self) -> None:
        self.kept = nn.BatchNorm1d(1)
        self.kept.register_buffer("seen", torch.tensor(False))
        self.state_dict = self.kept.state_dict

    def move(self, by: float) -> None:
        self.kept.running_mean.add_(by)
        self.kept.seen.fill_(True)


@pytest.mark.parametrize("players", [1, 2])
def test_the_state_of_a_module_moves_once_by_the_mean_of_the_parts(players: int) -> None:
    part = Moved()
    states = PartStates([part] * players)
    for by in (1.0, 3.0):
        with states.part():
            part.move(by)
        assert (part.kept.running_mean.item(), part.kept.seen.item()) == (0, False)
    states.finish(2)
    assert (part.kept.running_mean.item(), part.kept.seen.item()) == (2, True)


def test_what_is_logged(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["train"] |= {"steps": 8, "log_every": 2, "discriminator_every": 4, "stop_discriminator_under": 1e3}
    table["train"]["clip_norm"] = 0.01
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    records = read_records(Path("r/log.jsonl"))
    for number, record in enumerate(records):
        assert record["grad_norm_generator"] > 0.01, "that of before it is clipped"
        assert "stopped_generator" not in record
        has_turn = number % 2 == 0
        names = {"loss_discriminator", "d_real", "d_fake", "grad_norm_discriminator", "stopped_discriminator"}
        assert names & record.keys() == (names if has_turn else set())
        if has_turn:
            assert record["stopped_discriminator"] == 1
    assert [record["images_seen"] for record in records] == [32, 64, 96, 128]


def test_a_clipped_gradient_has_the_norm_that_is_given(table: dict[str, Any], tmp_path: Path) -> None:
    """Plain SGD moves the weights by its rate times the gradient, whose norm is far above the bound here."""
    table |= {"discriminator": {"name": "mlp", "hidden": [16]}, "optimizer": {"name": "sgd", "lr": 0.5}}
    training = built(table, tmp_path, steps=1, clip_norm=0.01)
    players = training.game.players.values()
    before = [[w.detach().clone() for w in player.network.parameters()] for player in players]
    take_step(training, 0)
    for player, old in zip(players, before, strict=True):
        moved = [w.detach() - b for w, b in zip(player.network.parameters(), old, strict=True)]
        assert torch.cat([change.flatten() for change in moved]).norm() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_bounds_that_are_never_reached_change_no_bit(table: dict[str, Any], tmp_path: Path) -> None:
    """Nor does trying out the optimisers, or a norm that no gradient has."""
    bounds = {"stop_discriminator_under": -1e3, "stop_generator_under": -1e3, "clip_norm": 1e6}
    assert torch.equal(weights(trained(table, tmp_path)), weights(trained(table, tmp_path, **bounds)))


def test_a_player_that_is_always_stopped_stands_still(table: dict[str, Any], tmp_path: Path) -> None:
    one, other = (trained(table, tmp_path, steps=steps, stop_discriminator_under=1e3) for steps in (1, 6))
    still, moved = (
        [
            torch.equal(a, b)
            for a, b in zip(
                one.game.networks[player].parameters(),
                other.game.networks[player].parameters(),
                strict=True,
            )
        ]
        for player in ("discriminator", "generator")
    )
    assert all(still)
    assert not any(moved)


BEGAN = """
import torch
from attrs import field, frozen
import ganlab

@frozen
class Began:
    k: torch.Tensor = field(factory=lambda: torch.zeros(()), init=False)
    calls: torch.Tensor = field(factory=lambda: torch.zeros((), dtype=torch.int64), init=False)
    def discriminator(self, real, fake):
        with torch.no_grad():
            self.calls.add_(1)
            self.k.add_(0.5 * real.square().mean()).clamp_(0, 1)
        return real.square().mean() - self.k * fake.square().mean()
    def generator(self, real, fake): return fake.square().mean()
    def state_dict(self): return {"k": self.k, "calls": self.calls}
    def load_state_dict(self, state): self.k.copy_(state["k"]); self.calls.copy_(state["calls"])

@frozen
class Average:
    player: str = "discriminator"
    every: int = 1
    a: torch.Tensor = field(factory=lambda: torch.zeros(()), init=False, eq=False)
    calls: torch.Tensor = field(factory=lambda: torch.zeros((), dtype=torch.int64), init=False, eq=False)
    def penalty(self, step):
        self.calls.add_(1)
        self.a.lerp_(step.real.square().mean(), 0.25)
        return (self.a - step.fake_logits).square().mean()
    def state_dict(self): return {"a": self.a, "calls": self.calls}
    def load_state_dict(self, state): self.a.copy_(state["a"]); self.calls.copy_(state["calls"])

class Plain:
    def __init__(self, losses): self.losses = losses
    def discriminator(self, real, fake): return sum(loss.discriminator(real, fake) for loss in self.losses)
    def generator(self, real, fake): return sum(loss.generator(real, fake) for loss in self.losses)

@frozen
class Halved:
    inner: ganlab.Loss
    def discriminator(self, real, fake): return 0.5 * self.inner.discriminator(real, fake)
    def generator(self, real, fake): return 0.5 * self.inner.generator(real, fake)

@frozen
class Halves:
    def __call__(self, loss): return Halved(loss)

@frozen
class Sums:
    def __call__(self, loss): return Plain([loss])

@ganlab.hookimpl
def register_losses(register): register("began", Began)
@ganlab.hookimpl
def register_penalties(register): register("average", Average)
@ganlab.hookimpl
def register_loss_wrappers(register): register("halves", Halves); register("sums", Sums)
"""


@pytest.mark.parametrize(
    ("wrappers", "name"), [([], "loss"), (["halves"], "loss.inner"), (["sums", "halves"], "loss.inner.losses.0")]
)
def test_a_state_moves_once_an_update_however_many_parts(
    wrappers: list[str], name: str, table: dict[str, Any], tmp_path: Path
) -> None:
    """That of a loss, also of one that another holds, and that of a penalty, by one batch in 1, 2 and 4 parts.

    In parts it moved 2 and 4 times.
    """
    (tmp_path / "began.py").write_text(BEGAN)
    table["loss_wrapper"] = wrappers
    table |= {"loss": "began", "discriminator": {"name": "mlp", "hidden": [16], "dropout": 0.0}, "penalty": ["average"]}
    states = []
    for accumulate in (1, 2, 4):
        plugins = load_plugins([tmp_path / "began.py"])
        table["train"] |= {"accumulate": accumulate}
        training = build(
            convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu")
        )
        training.game.make_update(training.game.rules.moves[0], training.loader.batch(0), 0)
        states.append([training.stateful[part].state_dict() for part in (name, "penalty.0")])
    for loss, penalty in states:
        assert int(loss["calls"]) == int(penalty["calls"]) == 1
        torch.testing.assert_close(loss["k"], states[0][0]["k"])
        torch.testing.assert_close(penalty["a"], states[0][1]["a"])
        assert min(loss["k"], penalty["a"]) > 0


# ---------------------------------------------------------------------------------------------------------------------
# Names of parameters
# ---------------------------------------------------------------------------------------------------------------------

NAMED = """
from typing import ClassVar
import torch
from attrs import frozen
from ganlab import hookimpl

@frozen
class ByName:
    lr: float = 0.1
    named_parameters: ClassVar[bool] = True
    def build(self, parameters):
        slow, biases, rest = [], [], []
        for name, parameter in parameters:
            group = slow if name.startswith("generator.") else biases if name.endswith(".bias") else rest
            group.append((name, parameter))
        groups = [{"params": slow, "lr": 0.1 * self.lr}, {"params": biases, "weight_decay": 0.0}, {"params": rest}]
        return torch.optim.SGD([group for group in groups if group["params"]], self.lr, weight_decay=0.5)

@hookimpl
def register_optimizers(register): register("by_name", ByName)
"""


def test_an_optimiser_that_asks_is_told_the_names_of_parameters(table: dict[str, Any], tmp_path: Path) -> None:
    """Held against torch's optimiser of groups made by hand, in a run that is stopped and resumed; a schedule moves it.

    The generator has a tenth of the rate, and biases of the discriminator have no weight decay.
    """
    (tmp_path / "named.py").write_text(NAMED)
    plugins = load_plugins([tmp_path / "named.py"])
    table |= {"optimizer": {"name": "by_name", "lr": 0.2}}
    table["schedule"] = [{"name": "linear", "key": "optimizer.lr", "to": 0.4}]
    experiment = convert_experiment({**table, "train": {**table["train"], "steps": 4}}, plugins)

    def make() -> Training:
        return build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))

    training = make()
    take_step(training, 0)
    saved = from_bytes(to_bytes(training_state(training, 1)))
    for step in range(1, 3):
        take_step(training, step)
    resumed = make()
    restore_training(resumed, saved)
    for step in range(1, 3):
        take_step(resumed, step)
    assert torch.equal(weights(training), weights(resumed))

    players = training.game.players
    (slow,) = players["generator"].optimizer.param_groups
    biases, rest = players["discriminator"].optimizer.param_groups
    rate = experiment.schedule[0].value(0.2, 2, 4)
    assert rate != 0.2
    assert [float(group["lr"]) for group in (slow, biases, rest)] == pytest.approx([0.1 * rate, rate, rate])
    named = dict(players["discriminator"].network.named_parameters())
    assert biases["param_names"] == [f"discriminator.{name}" for name in named if name.endswith(".bias")]
    before = {name: value.detach().clone() for name, value in named.items()}
    players["discriminator"].optimizer.step()
    for name, value in named.items():
        decay = 0.0 if name.endswith(".bias") else 0.5
        assert value.grad is not None
        torch.testing.assert_close(value.detach(), before[name] - rate * (value.grad + decay * before[name]))


# ---------------------------------------------------------------------------------------------------------------------
# Clipping
# ---------------------------------------------------------------------------------------------------------------------


def _vector(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def test_a_players_gradient_is_clipped_to_the_norm_of_its_table(table: dict[str, Any], tmp_path: Path) -> None:
    """With a rate of 1 and no momentum, a network moves by its gradient, whose norm is the bound."""
    table["optimizer"] = {"name": "sgd", "lr": 1.0}
    table["generator"] = {"name": "mlp", "latent_dim": 8, "hidden": [16], "clip_norm": 1e-3}
    for common, bound in ((None, None), (1e-4, 1e-4)):
        training = built(table, tmp_path, 1, **({} if common is None else {"clip_norm": common}))
        networks = {name: player.network for name, player in training.game.players.items()}
        before = {name: _vector(network) for name, network in networks.items()}
        take_step(training, 0)
        moved = {name: float((_vector(network) - before[name]).norm()) for name, network in networks.items()}
        assert moved["generator"] == pytest.approx(1e-3, rel=1e-2)
        if bound is None:
            assert moved["discriminator"] > 1e-2
        else:
            assert moved["discriminator"] == pytest.approx(bound, rel=1e-2)


OWN_OPTION = """
from attrs import frozen
import ganlab
from torch import nn

@frozen
class Clipping:
    clip_norm: float = 0.5
    def build(self, images): return nn.Flatten()

@ganlab.hookimpl
def register_generators(register): register("clipping", Clipping)
"""


def test_the_norm_of_a_table_is_written_and_an_option_of_that_name_is_the_networks(
    table: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN_OPTION)
    plugins = load_plugins([tmp_path / "own.py"])
    table["discriminator"] = {"name": "mlp", "hidden": [16], "clip_norm": 2}
    table["generator"] = {"name": "clipping", "clip_norm": 0.25}
    experiment: Any = convert_experiment(table, plugins)
    assert experiment.clip_norms == {"discriminator": 2.0}
    assert experiment.game.generator.clip_norm == 0.25
    again: Any = convert_experiment(tomllib.loads(experiment_to_toml(experiment, plugins)), plugins)
    assert (again.clip_norms, again.game) == (experiment.clip_norms, experiment.game)
