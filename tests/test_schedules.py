"""Options that change during a run, held against runs in which they are set by hand, and against the step's rules."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from attrs import field, frozen

from games_by_hand import problem
from ganlab.config import schedule_targets
from ganlab.config.converter import InvalidTable
from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Component, Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.protocols import Places
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.testing.state_comparison import first_difference
from ganlab.training.build import build, captured_train_step
from ganlab.training.cuda_graphs import EagerRecorder, dry_run_capture
from ganlab.training.loop import Training, take_step, train
from ganlab.training.state import restore_training, training_state
from ganlab.utils.errors import UserError

CPU = torch.device("cpu")
STEPS = 12
Ganlab = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


@pytest.fixture
def built(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> Callable[..., Training]:
    """A training of the small experiment with changes."""

    def built(**changes: Any) -> Training:
        train = {**table["train"], "steps": STEPS, **changes.pop("train", {})}
        whole = copy.deepcopy({**table, **changes, "train": train})
        return build(convert_experiment(whole, plugins), plugins.registry, Places(tmp_path, tmp_path), CPU)

    return built


def state_after(training: Training, first: int = 0, end: int = STEPS) -> dict[str, Any]:
    for step in range(first, end):
        take_step(training, step)
    return copy.deepcopy(training_state(training, end))


def weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    names = [name for name in ("generator", "discriminator", "ema") if name in state]
    return {f"{name}.{key}": value for name in names for key, value in state[name].items()}


OPTIMIZERS = [
    {"name": "adam", "lr": 1e-2},
    {"name": "sgd", "lr": 1e-2, "momentum": 0.5},
    {"name": "rmsprop", "lr": 1e-2},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer["name"])
def test_a_rate_that_moves_against_one_set_by_hand(optimizer: dict[str, Any], built: Callable[..., Training]) -> None:
    moved = built(optimizer=optimizer, schedule=[{"name": "linear", "to": 1e-3}])
    train(moved, 0, lambda step: None)
    by_hand = built(optimizer=optimizer)
    for step in range(STEPS):
        for player in by_hand.game.players.values():
            player.optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / STEPS) + 1e-3 * (step / STEPS)
        take_step(by_hand, step)
    assert first_difference(weights(training_state(moved, STEPS)), weights(training_state(by_hand, STEPS))) is None
    same = state_after(built(optimizer=optimizer))
    assert first_difference(weights(same), weights(training_state(by_hand, STEPS))) is not None, "the rate does matter"


def test_options_of_one_player_and_in_a_list(built: Callable[..., Training]) -> None:
    """The discriminator's second beta, which is a plain number in torch, and the generator's rate."""
    moving = [
        {"name": "linear", "key": "discriminator.optimizer.betas.1", "to": 0.9},
        {"name": "linear", "key": "generator.optimizer.lr", "to": 1e-4},
    ]
    moved = built(schedule=moving)
    train(moved, 0, lambda step: None)
    by_hand = built()
    for step in range(STEPS):
        share = step / STEPS
        game = by_hand.game
        game.players["discriminator"].optimizer.param_groups[0]["betas"] = (0.5, 0.999 * (1 - share) + 0.9 * share)
        game.players["generator"].optimizer.param_groups[0]["lr"] = 1e-3 * (1 - share) + 1e-4 * share
        take_step(by_hand, step)
    assert first_difference(weights(training_state(moved, STEPS)), weights(training_state(by_hand, STEPS))) is None
    unfit = moved.schedules.eager_reason
    assert unfit == "discriminator.optimizer.betas.1: moved by a schedule, and the optimiser takes no tensor for it"


def test_steps_that_a_graph_would_not_change_stay_eager(built: Callable[..., Training], plugins: Plugins) -> None:
    moved = built(schedule=[{"name": "linear", "key": "optimizer.betas.0", "to": 0.9}])
    turns = captured_train_step(
        moved.game, moved.train_step, plugins.registry, EagerRecorder(), moved.schedules.eager_reason
    )
    assert "optimizer.betas.0" in str(dry_run_capture(turns, moved.loader.batch))
    assert turns.captured == 0


@frozen
class Loud:
    """Adam by a loop over lists, which takes no tensor as its rate while it counts its updates on the host."""

    lr: float = 1e-3

    def build(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, self.lr, foreach=True)


def test_an_optimiser_that_takes_no_tensor_gets_numbers(table: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_plugins()
    loaded.registry._frozen = False
    loaded.registry.register("optimizer", "loud", Loud, Origin("test", "file", "", "", None))
    table |= {"optimizer": "loud", "schedule": ["linear"]}
    training = build(convert_experiment(table, loaded), loaded.registry, Places(tmp_path, tmp_path), CPU)
    train(training, 0, lambda step: None)
    assert training.game.players["generator"].optimizer.param_groups[0]["lr"] == 1e-3 * 0.25
    assert training.schedules.eager_reason is not None


# ---------------------------------------------------------------------------------------------------------------------
# Terms
# ---------------------------------------------------------------------------------------------------------------------


def test_a_weight_that_moves_against_penalties_of_other_weights(built: Callable[..., Training]) -> None:
    """Each step's term is that of a fixed weight of the same size."""
    penalty = {"name": "r1", "gamma": 4.0}
    moved = built(penalty=[penalty], schedule=[{"name": "linear", "key": "penalty.0.gamma"}], train={"steps": 4})
    states, terms = [], []
    for step in range(4):
        states.append(copy.deepcopy(training_state(moved, step)))
        take_step(moved, step)
        terms.append(moved.game.meters.means()["penalty_r1"] * (step + 1))
    for step in range(4):
        fixed = built(penalty=[{**penalty, "gamma": 4.0 * (1 - step / 4)}], train={"steps": 4})
        restore_training(fixed, states[step])
        take_step(fixed, step)
        assert fixed.game.meters.means()["penalty_r1"] * (step + 1) == pytest.approx(terms[step], rel=1e-5)
    assert terms == sorted(terms)
    assert terms[0] > 0


def every_term(plugins: Plugins, loss: str, discriminator: str) -> dict[str, Any]:
    """All penalties and augmentations at once, with one of the losses."""
    listed: dict[str, list[Any]] = {
        kind: [part.name for part in plugins.registry.of_kind(kind)] for kind in ("penalty", "augmentation")
    }
    held = {"ada": {"name": "ada", "adaptive": False, "p": 0.5}}  # since p either adapts or is moved
    listed["augmentation"] = [held.get(name, name) for name in listed["augmentation"]]
    targets = loss in ("bce", "least_squares")
    return {
        "loss": loss,
        "loss_wrapper": ["label_smoothing"] if targets else [],
        "discriminator": {"name": discriminator, "hidden": [16], "head": "class_logits"},
        **listed,
    }


READ_BACK = ("shift", "hole")
"""Options of diffaugment that are turned into whole pixels, which makes the steps eager on CUDA."""


def loss_case(part: Component) -> Any:
    """A loss by its name: the penalties and augmentations are the same for each, so one is in the default run."""
    return part.name if part.name == "bce" else pytest.param(part.name, marks=[pytest.mark.extended, pytest.mark.large])


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("loss", [loss_case(part) for part in load_plugins().registry.of_kind("loss")])
def test_every_option_of_every_term_may_be_a_tensor(
    loss: str, built: Callable[..., Training], plugins: Plugins, table: dict[str, Any]
) -> None:
    """What a schedule leaves at its value trains as the number does, and could be captured."""
    terms = every_term(plugins, loss, "mlp")
    known = schedule_targets.schedulable_options(convert_experiment({**table, **terms}, plugins))
    replaced = ("loss.real_target", "loss.fake_target") if terms["loss_wrapper"] else ()
    keys = [key for key in known if key.split(".")[0] in schedule_targets.STEP_COMPONENTS and key not in replaced]
    assert {"penalty.0.weight", "penalty.0.augmentation.probability"} <= {key.replace("1.", "0.") for key in keys}
    wanted = weights(state_after(built(**terms), end=3))
    scheduled = built(**terms, schedule=[{"name": "constant", "key": key} for key in keys])
    for name, value in weights(state_after(scheduled, end=3)).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-5)
    fit = built(**terms, schedule=[{"name": "constant", "key": key} for key in keys if not key.endswith(READ_BACK)])
    turns = captured_train_step(fit.game, fit.train_step, plugins.registry, EagerRecorder(), fit.schedules.eager_reason)
    assert dry_run_capture(turns, fit.loader.batch) is None


# ---------------------------------------------------------------------------------------------------------------------
# Going on
# ---------------------------------------------------------------------------------------------------------------------

ALL = {
    "penalty": [{"name": "r1", "gamma": 2.0, "every": 2}],
    "loss_wrapper": ["label_smoothing"],
    "schedule": [
        {"name": "cosine", "warmup": 3},
        {"name": "linear", "key": "penalty.0.gamma", "to": 0.1},
        {"name": "linear", "key": "loss_wrapper.0.real", "to": 1.0, "end": "1 epoch"},
        {"name": "linear", "key": "discriminator.optimizer.betas.0", "to": 0.1},
        {"name": "linear", "key": "train.ema_half_life", "to": 20.0},
    ],
    "train": {"ema_half_life": 300.0, "ema_warmup": 0.05},
}


def test_stopped_and_gone_on_with_to_the_bit(built: Callable[..., Training]) -> None:
    whole = state_after(built(**ALL))
    half = state_after(built(**ALL), end=5)
    resumed = built(**ALL)
    restore_training(resumed, half)
    assert first_difference(whole, state_after(resumed, 5)) is None


@pytest.mark.usefixtures("real_plots")
def test_what_a_run_records_and_draws(table: dict[str, Any], write: Callable[..., Path], ganlab: Ganlab) -> None:
    table |= {"schedule": [{"name": "linear", "key": "optimizer.lr"}]}
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, out + err
    rates = [record["optimizer.lr"] for record in read_records(Path("r/log.jsonl"))]
    assert rates == [1e-3 * 3 / 4, 1e-3 / 4], "of the last step of each tick"
    assert Path("r/plots/schedules.png").is_file()
    assert "schedule.linear" in read_info(Path("r"))["components"]


def test_more_steps_for_a_run_whose_schedule_follows_their_number(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Ganlab
) -> None:
    """Refused, unless `--anyway`; a schedule that says when it ends continues bitwise."""
    for name, end in (("follows", {}), ("ends", {"end": 4})):
        table["schedule"] = [{"name": "linear", "to": 1e-4, **end}]
        table["train"]["steps"] = 4
        file = write(table, f"{name}.toml")
        assert ganlab("run", file, "--out", name)[0] == 0
        longer = ("run", file, "--out", name, "--resume", "--set", "train.steps=6")
        code, out, err = ganlab(*longer)
        if name == "follows":
            assert code == 2
            assert "optimizer.lr: scheduled over the whole run, which had 4 steps and is now to have 6" in err
            code, out, err = ganlab(*longer, "--anyway")
        assert code == 0, out + err
        assert read_info(Path(name))["step"] == 6
    table["train"]["steps"] = 6
    assert ganlab("run", write(table, "ends.toml"), "--out", "whole")[0] == 0
    rates = {name: [r["optimizer.lr"] for r in read_records(Path(name, "log.jsonl"))] for name in ("ends", "whole")}
    assert rates["ends"] == rates["whole"]


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------


@frozen
class Fixed:
    """A loss that makes numbers of its options when it is made."""

    margin: float = field(default=1.0, converter=float)

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return (self.margin - real).square().mean() + fake.square().mean()

    def generator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return -fake.mean()


REFUSED: dict[str, tuple[Any, str]] = {
    "misspelt": ([{"key": "penalty.0.gama"}], "schedule[0].key: 'penalty.0.gama' is not an option that can be moved"),
    "nearest": ([{"key": "penalty.0.gama"}], "; did you mean 'penalty.0.gamma'?"),
    "a whole number": ([{"key": "penalty.0.every"}], "schedule[0].key: 'penalty.0.every' is not an option"),
    "a network's": ([{"key": "generator.latent_dim"}], "'generator.latent_dim' is not an option"),
    "no half-life": ([{"key": "train.ema_half_life"}], "'train.ema_half_life': train.ema_half_life is not set"),
    "replaced": (
        [{"key": "loss.real_target", "to": 0.5}],
        "schedule[0].key: 'loss.real_target' has no effect: a loss_wrapper puts another value in its place",
    ),
    "of one's own": (
        [{"key": "optimizer.lr"}],
        "a player has an optimiser of its own; name 'generator.optimizer.lr' or 'discriminator.optimizer.lr'",
    ),
    "twice": (
        [{"key": "penalty.0.gamma"}, {"key": "penalty.0.gamma"}],
        "schedule[1].key: 'penalty.0.gamma' is already moved by the schedule of 'penalty.0.gamma'",
    ),
    "too large": (
        [{"key": "loss_wrapper.0.real", "to": 2.0}],
        "schedule[0]: loss_wrapper.0.real would be 1.725 in step 4: 'real' must be <= 1",
    ),
    "too small": (
        [{"key": "discriminator.optimizer.lr", "end": 2}],
        "schedule[0]: discriminator.optimizer.lr would be 0 in step 3: 'lr' must be > 0",
    ),
    "end": ([{"key": "loss.margin", "start": 3, "end": 2}], "schedule[0].end: must be after start, 3 steps, got 2"),
    "warm too late": (
        [{"key": "loss.margin", "warmup": 3, "end": 2}],
        "schedule[0].end: must be after warmup, 3 steps, got 2",
    ),
    "a number is made": ([{"key": "loss.margin"}], "schedule[0].key: 'loss.margin' cannot be moved: its class makes a"),
}


def test_what_is_drawn_where_a_run_is_resumed_has_the_values_of_the_last_step(
    table: dict[str, Any], tmp_path: Path, plugins: Plugins
) -> None:
    table |= {"penalty": ["r1"], "schedule": [{"name": "linear", "key": "penalty.0.gamma", "to": 0.5}]}
    seen: list[dict[int, float]] = []
    for start in (0, 3):
        training = build(convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), CPU)
        (_, penalty) = training.game.players["discriminator"].penalties[0]
        values: dict[int, float] = {}
        train(training, start, lambda step, values=values, penalty=penalty: values.update({step: float(penalty.gamma)}))
        seen.append(values)
    assert seen[1] == {step: value for step, value in seen[0].items() if step >= 3}
    assert len(set(seen[1].values())) > 1


def test_eval_samples_with_the_scheduled_value_of_the_checkpoint(
    table: dict[str, Any], tmp_path: Path, ganlab: Ganlab
) -> None:
    """The sampler of `aae` draws codes of the deviation of its prior."""
    table |= {
        "game": {"name": "aae"},
        "encoder": {"name": "mlp_encoder", "hidden": [16]},
        "schedule": [{"name": "linear", "key": "game.deviation", "to": 9.0, "end": "1 epoch"}],
        "metric": [{"name": "fid", "features": "pixels", "every": 2, "samples": 64}],
        "dataset": {"name": "digits", "size": 4},
    }
    table["train"] |= {"steps": 20, "checkpoint_every": 10}
    path = tmp_path / "aae.toml"
    path.write_text(tomli_w.dumps(table))
    assert ganlab("run", path, "--out", "r")[0] == 0
    recorded = {record["step"]: record["value"] for record in read_records(Path("r/metrics.jsonl"))}
    for step in (10, 20):
        assert ganlab("eval", "r", "--step", str(step), "--out", "s.json")[0] == 0
        (score,) = json.loads(Path("s.json").read_text())
        assert score["value"] == pytest.approx(recorded[step], rel=1e-6)


def test_a_schedule_of_a_network_that_the_game_leaves_out_is_refused() -> None:
    table: dict[str, Any] = {
        "dataset": {"name": "glyphs", "size": 16},
        "game": {"name": "pix2pix", "adversarial": 0.0},
        "generator": {"name": "unet", "channels": 2},
        "schedule": [{"name": "linear", "key": "discriminator.optimizer.lr", "to": 1e-5}],
    }
    assert problem(**table) == (
        "schedule[0].key: 'discriminator.optimizer.lr' has no effect: the game trains no network with it"
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_moved_is_refused_in_a_line(case: str, table: dict[str, Any], tmp_path: Path) -> None:
    given, line = REFUSED[case]
    loaded = load_plugins()
    loaded.registry._frozen = False
    loaded.registry.register("loss", "fixed", Fixed, Origin("test", "file", "", "", None))
    table |= {"penalty": ["r1"], "schedule": [{"name": "linear", **options} for options in given]}
    table["generator"]["optimizer"] = {"lr": 1e-4}
    if "loss_wrapper" in line:
        table["loss_wrapper"] = ["label_smoothing"]
    else:
        table["loss"] = "fixed"
    with pytest.raises((UserError, InvalidTable)) as refused:
        build(convert_experiment(table, loaded), loaded.registry, Places(tmp_path, tmp_path), CPU)
    problems = [str(problem) for problem in refused.value.problems]
    assert len(problems) == 1, problems
    assert line in problems[0]


def test_one_players_option_is_also_that_of_both(built: Callable[..., Training]) -> None:
    both = [{"name": "linear", "key": key} for key in ("optimizer.lr", "discriminator.optimizer.lr")]
    line = "schedule[1].key: 'discriminator.optimizer.lr' is already moved by the schedule of 'optimizer.lr'"
    with pytest.raises(UserError, match=re.escape(line)):
        built(schedule=both)
    built(schedule=[both[1], {"name": "linear", "key": "generator.optimizer.lr"}])


def test_a_refusal_comes_before_the_folder(table: dict[str, Any], write: Callable[..., Path], ganlab: Ganlab) -> None:
    table["schedule"] = [{"name": "linear", "key": "loss.real_target", "to": 1.5}]
    file = write(table)
    code, out, err = ganlab("run", file, "--out", "r")
    assert (code, out) == (2, "")
    assert err == f"{file}: schedule[0]: loss.real_target would be 1.375 in step 4: 'real_target' must be <= 1: 1.375\n"
    assert not Path("r").exists()


def test_optimiser_options_that_are_none_of_torch(table: dict[str, Any], tmp_path: Path) -> None:
    @frozen
    class Odd:
        speed: float = 0.1

        def build(self, parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, self.speed)

    loaded = load_plugins()
    loaded.registry._frozen = False
    loaded.registry.register("optimizer", "odd", Odd, Origin("test", "file", "", "", None))
    table |= {"optimizer": "odd", "schedule": [{"name": "linear", "key": "optimizer.speed"}]}
    with pytest.raises(UserError, match="cannot be moved: what the optimiser builds has no 'speed' of 0"):
        build(convert_experiment(table, loaded), loaded.registry, Places(tmp_path, tmp_path), CPU)


@frozen
class Grouped:
    """SGD with groups: biases have a share of the rate, and the first matrix a rate of its own, equal at first."""

    lr: float = 0.25
    share: float = 0.1
    first_lr: float = 0.25
    weight_decay: float = 0.0
    form: str = ""

    def build(self, parameters: Any) -> torch.optim.Optimizer:
        first, *rest = parameters
        groups = [
            {"params": [first], "lr": self.first_lr},
            {"params": [p for p in rest if p.ndim > 1]},
            {"params": [p for p in rest if p.ndim == 1], "lr": self.lr * self.share, "weight_decay": 0.0},
        ]
        if self.form == "root":
            groups[2]["lr"] = self.lr**0.5
        if self.form == "count" and self.lr < 0.25:
            groups.pop()
        return torch.optim.SGD(groups, self.lr, weight_decay=self.weight_decay, fused=True)


@pytest.fixture
def built_grouped(table: dict[str, Any], tmp_path: Path) -> Callable[..., Training]:
    loaded = load_plugins()
    loaded.registry._frozen = False
    loaded.registry.register("optimizer", "grouped", Grouped, Origin("test", "file", "", "", None))

    def built(schedule: list[dict[str, Any]], **options: Any) -> Training:
        changed = copy.deepcopy(table) | {"optimizer": {"name": "grouped", **options}, "schedule": schedule}
        return build(convert_experiment(changed, loaded), loaded.registry, Places(tmp_path, tmp_path), CPU)

    return built


@pytest.mark.parametrize(
    ("option", "to", "expected"),
    [
        ("lr", 0.125, [("lr", 0.25), ("lr", 0.125), ("lr", 0.125 * 0.1)]),
        ("first_lr", 0.125, [("lr", 0.125), ("lr", 0.25), ("lr", 0.25 * 0.1)]),
        ("weight_decay", 0.5, [("weight_decay", 0.5), ("weight_decay", 0.5), ("weight_decay", 0.0)]),
    ],
)
def test_the_groups_that_have_the_option_are_moved(
    option: str, to: float, expected: list[tuple[str, float]], built_grouped: Callable[..., Training]
) -> None:
    """Against an optimiser that is built with the same number: a multiple moves along, an equal value does not."""
    schedule = [{"name": "linear", "key": f"optimizer.{option}", "to": to, "end": 1}]
    if option == "first_lr":
        with pytest.raises(UserError, match=r"no 'first_lr' of 0\.25 in its param_groups"):
            built_grouped(schedule)
        return
    training = built_grouped(schedule)
    take_step(training, 0)
    take_step(training, 1)
    for player in training.game.players.values():
        groups = zip(player.optimizer.param_groups, expected, strict=True)
        assert [(name, float(group[name])) for group, (name, _) in groups] == expected
    constant = [{"name": "constant", "key": f"optimizer.{option}"}]
    scheduled = weights(state_after(built_grouped(constant, **{option: to}), end=4))
    by_number = weights(state_after(built_grouped([], **{option: to}), end=4))
    assert first_difference(scheduled, by_number) is None


def test_a_schedule_of_groups_trains_and_resumes_as_one_by_hand(built_grouped: Callable[..., Training]) -> None:
    schedule = [{"name": "linear", "key": "optimizer.lr", "to": 0.0625}]
    moved = built_grouped(schedule)
    train(moved, 0, lambda step: None)
    by_hand = built_grouped([])
    for step in range(4):
        for player in by_hand.game.players.values():
            rate = 0.25 * (1 - step / 4) + 0.0625 * (step / 4)
            player.optimizer.param_groups[1]["lr"] = rate
            player.optimizer.param_groups[2]["lr"] = rate * 0.1
        take_step(by_hand, step)
    whole = weights(training_state(moved, 4))
    assert first_difference(whole, weights(training_state(by_hand, 4))) is None
    half = state_after(built_grouped(schedule), 0, 2)
    resumed = built_grouped(schedule)
    restore_training(resumed, half)
    assert first_difference(whole, weights(state_after(resumed, 2, 4))) is None


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("root", "the value in param_groups[2] is no multiple of it"),
        ("count", "the number of its param_groups depends on it"),
    ],
)
def test_groups_that_cannot_be_moved(form: str, line: str, built_grouped: Callable[..., Training]) -> None:
    with pytest.raises(UserError, match=re.escape(f"schedule[0].key: 'optimizer.lr' cannot be moved: {line}")):
        built_grouped([{"name": "linear", "key": "optimizer.lr", "to": 0.125}], form=form)
