"""The benchmark's baseline loops do the arithmetic of an experiment: compared with ganlab's steps, weight by weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ganlab.bench import benchmark, game_loop, hand_written_loop, tutorial_loop
from ganlab.bench.baseline_parts import RealBatch
from ganlab.bench.benchmark import MIN_ROUNDS, median_ratio, run_benchmark, time_in_turns, timed_loops
from ganlab.config.load import convert_experiment
from ganlab.config.schema import Experiment
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Places
from ganlab.training.build import build
from ganlab.training.cuda_graphs import EagerRecorder
from ganlab.training.loop import Training, take_step, train
from tiers import spread

pytestmark = pytest.mark.usefixtures("quick_timing")

STEPS = 6
CASES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "shared noise": {"train": {"fresh_noise": False}},
    "discriminator steps, average": {"train": {"discriminator_steps": 2, "ema": 0.9}},
    "every second step, clipped": {
        "penalty": [{"name": "r1", "every": 2}],
        "train": {"discriminator_every": 2, "fresh_noise": False, "clip_norm": 0.1},
    },
    "penalty and smoothing": {
        "penalty": [{"name": "l2_generator", "weight": 0.1}],
        "loss_wrapper": [{"name": "label_smoothing"}],
    },
    # Its last bias has a gradient of 0 but for rounding, which Adam would scale up.
    "a loss that compares": {"loss": {"name": "relativistic"}, "optimizer": {"name": "sgd"}},
    "convolutions and batch norm": {
        "dataset": {"name": "digits", "size": 16},
        "generator": {"name": "dcgan", "latent_dim": 8, "channels": 8},
        "discriminator": {"name": "dcgan", "channels": 8},
    },
}


def trained(table: dict[str, Any], case: str, tmp_path: Path) -> tuple[Experiment, Training]:
    """ganlab's own training, and the experiment for the baseline loops."""
    changes = CASES[case]
    table["discriminator"] = {"name": "mlp", "hidden": [16]}  # another order of passes draws other dropout masks
    table |= {key: value for key, value in changes.items() if key != "train"}
    table["train"] |= {"steps": STEPS, **changes.get("train", {})}
    plugins = load_plugins()
    experiment = convert_experiment(table, plugins)
    training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))
    return experiment, training


@pytest.mark.parametrize("case", spread(8, CASES))
@pytest.mark.parametrize("baseline", ["tutorial", "by hand"])
def test_a_baseline_takes_the_same_steps(case: str, baseline: str, table: dict[str, Any], tmp_path: Path) -> None:
    experiment, training = trained(table, case, tmp_path)
    if baseline == "tutorial":
        step, parts = tutorial_loop.tutorial_step(experiment, training, training.loader.main.order)
    else:
        step, parts = hand_written_loop.hand_written_step(experiment, training)
    for _ in range(STEPS):
        step()
    _, training = trained(table, case, tmp_path)  # which seeds the streams again
    train(training, 0, lambda step: None)
    for ours, theirs in (
        (training.game.players["generator"], parts.g),
        (training.game.players["discriminator"], parts.d),
    ):
        for (name, value), other in zip(ours.network.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.allclose(value, other, rtol=1e-3, atol=1e-5), f"{case}: {ours.name} {name} differs"


class Refusing(EagerRecorder):
    """A recorder on a device that cannot capture the work."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted")


def test_a_plain_step_that_cannot_be_captured_is_eager() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    parts: Any = SimpleNamespace(names=("g", "d"), penalties={}, g_optimizer=optimizer, d_optimizer=optimizer)
    taken: list[tuple[float, int]] = []

    def arithmetic(reals: list[RealBatch], turn: int) -> None:
        taken.append((reals[0][0].item(), turn))

    step = hand_written_loop.capture_cuda_graphs(arithmetic, parts, 1, Refusing())

    def six_steps() -> None:
        for turn in range(6):
            step([(torch.tensor(10.0 + turn), None)], turn)

    with pytest.warns(UserWarning, match=r"^the plain loop's steps are not captured: operation not permitted$") as told:
        six_steps()
    assert taken == [(10.0 + turn, turn) for turn in range(6)]
    assert len(told) == 1


def test_each_kind_of_step_is_captured_before_it_is_timed(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A penalty at every third step is there in steps 0, 3, 6 and 9, of which the last is captured."""
    table["penalty"] = [{"name": "r1", "every": 3}]
    plugins = load_plugins()
    experiment = convert_experiment(table, plugins)
    training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))
    assert benchmark.warm_up_steps(training) == 4
    monkeypatch.setattr(benchmark, "can_capture", lambda device: True)
    assert benchmark.warm_up_steps(training) == 10


PAIRS = {"name": "degraded", "dataset": {"name": "digits", "size": 16}, "blur": 1.0}
GAMES: dict[str, dict[str, Any]] = {
    "pix2pix": {
        "game": {"name": "pix2pix", "perceptual": 1.0},
        "generator": {"name": "unet", "channels": 4, "dropout": 0.0},
        "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1},
        "content": {"name": "vgg", "layers": 2, "channels": 4},
    },
    # The pool is not full, so that nothing is drawn.
    "cyclegan": {
        "game": {"name": "cyclegan", "pool": 1000, "identity": 1.0},
        "source": {"name": "digits", "size": 16},
        "generator": {"name": "resnet_translator", "channels": 4, "blocks": 1, "halvings": 1},
        "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1, "norm": "instance"},
    },
}


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_the_plain_loop_of_a_game_takes_the_same_steps(game: str, table: dict[str, Any], tmp_path: Path) -> None:
    """And is measured."""
    table |= {"dataset": PAIRS, "optimizer": {"name": "sgd", "lr": 0.01}, **GAMES[game]}
    plugins = load_plugins()
    experiment = convert_experiment(table, plugins)
    training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))
    step, networks = game_loop.plain_game_step(experiment, training)
    for number in range(2):
        step()
        take_step(training, number)
    assert set(networks) == set(training.game.networks)
    for name, network in networks.items():
        for (key, value), other in zip(
            network.state_dict().items(), training.game.networks[name].state_dict().values(), strict=True
        ):
            torch.testing.assert_close(
                other, value, rtol=1e-4, atol=1e-6, msg=lambda text, at=f"{name}.{key}": at + text
            )
    rounds = time_in_turns(timed_loops(experiment, training, False), 0.1, torch.device("cpu"), lambda done, total: None)
    assert {name: len(rates) >= MIN_ROUNDS for name, rates in rounds.items()} == {"ganlab": True, "by hand": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"game": "aae"}, "game: 'aae' has no plain loop to compare with, which is its method `plain_step`"),
        pytest.param(
            {**GAMES["pix2pix"], "dataset": PAIRS, "augmentation": ["flip"]},
            "augmentation: the plain loop of a game does without it; ganlab bench needs an experiment without",
            marks=(pytest.mark.extended, pytest.mark.slow),
        ),
    ],
    ids=["no plain loop", "augmentation"],
)
def test_a_game_without_a_plain_loop_and_what_such_loops_do_without_are_refused(
    change: dict[str, Any], said: str, table: dict[str, Any], write: Callable[..., Path], ganlab: Any
) -> None:
    code, _, err = ganlab("bench", write(table | change))
    assert code == 2
    assert said in err


@pytest.mark.extended
@pytest.mark.slow
def test_what_is_measured(table: dict[str, Any], write: Callable[..., Path], ganlab: Any) -> None:
    table["penalty"] = [{"name": "l2_generator"}]
    path = write(table)
    result = run_benchmark(path, (), "cpu", 0.1, (), lambda what, done, total: None)
    assert set(result["steps_per_second"]) == {"ganlab", "tutorial", "by hand"}
    assert result["rounds"] >= 5
    assert {"data", "discriminator", "generator", "logging", "penalties"} == set(result["milliseconds"])
    (cost,) = result["plugins"]
    assert (cost["kind"], cost["name"]) == ("penalty", "l2_generator")
    # The products of both networks, forward and backward, counted by hand: the input's gradient is not needed in the
    # first layer of the discriminator's own turn, and its weights' gradient not in the generator's.
    g, d, n = 8 * 16 + 16 * 64, 64 * 16 + 16 * 1, 16
    discriminator = 2 * n * g + 2 * (2 * n) * (2 * d + 16 * 1)
    generator = 2 * n * (2 * g + 16 * 64) + 2 * n * 2 * d
    assert result["ceilings"]["gflop_per_step"] * 1e9 == pytest.approx(discriminator + generator)

    code, out, err = ganlab("bench", path, "--seconds", "0.1", "--device", "cpu")
    assert code == 0, err
    for words in ("times as fast", "tutorial", "by hand", "milliseconds of a step", "penalty l2_generator"):
        assert words in out
    assert json.loads(ganlab("bench", path, "--seconds", "0.1", "--device", "cpu", "--json")[1])["batch_size"] == 16
    for seconds in ("0.0", "nan", "inf"):
        code, _, err = ganlab("bench", path, "--seconds", seconds)
        assert (code, err.strip()) == (2, f"--seconds {seconds}: expected more than 0")


@pytest.mark.extended
@pytest.mark.slow
def test_a_gradient_penalty_is_measured(table: dict[str, Any], write: Callable[..., Path], ganlab: Any) -> None:
    path = write(table | {"penalty": [{"name": "r1", "every": 2}]})
    code, out, err = ganlab("bench", path, "--seconds", "0.1", "--device", "cpu", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["unfit_for_capture"] is None
    (cost,) = result["plugins"]
    step = 1000 / result["steps_per_second"]["ganlab"]
    assert result["milliseconds"]["penalties"] == pytest.approx(step * (1 - 1 / cost["time"]))


def test_what_the_plain_loops_have_nothing_of_is_refused(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Any
) -> None:
    path = write(table)
    for setting, how in (("accumulate=2", "got 2; use 1"), ("stop_generator_under=0.5", "got 0.5; leave it out")):
        code, _, err = ganlab("bench", path, "--set", f"train.{setting}")
        name = setting.partition("=")[0]
        assert (code, err) == (2, f"{path}: train.{name}: the plain loops of bench do without it, {how}\n")


def test_a_ratio_is_the_median_of_rounds() -> None:
    """A round in which the machine was busy slows both loops."""
    assert median_ratio([10.0, 1.0, 12.0], [5.0, 0.5, 4.0]) == 2.0
