"""What is refused of a game before anything is written, one line each; and what a game's moves do in a step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

import ganlab
from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.plugin.registry import RegistrationError
from ganlab.protocols import ImageSpec, Places
from ganlab.run.first_updates import FirstUpdates
from ganlab.run.records import TICK_NAMES
from ganlab.training.build import build
from ganlab.training.loop import Training, take_step
from ganlab.utils.errors import PluginFailed, UserError

ORIGIN = Origin("test", "file", "", "", None)
PIXELS = 64
DIGITS = ImageSpec(1, 8, 8)


class Flat(nn.Module):
    """A linear map of images, to as many values."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(PIXELS, outputs)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.layer(images.flatten(1))
        return values


class Judge(Flat):
    """A linear map of images to a logit, of any condition."""

    def forward(self, images: Tensor, condition: Any = None) -> Tensor:
        return super().forward(images).squeeze(1)


class Maker(nn.Module):
    """A linear map of latents to images of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 3
        self.layer = nn.Linear(3, PIXELS)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        images: Tensor = torch.tanh(self.layer(z)).unflatten(1, (1, 8, 8))
        return images


def judge(turn: ganlab.Turn) -> Tensor:
    return (turn.forward("judge", turn.real) - 1).square().mean()


def make(turn: ganlab.Turn) -> dict[str, Tensor]:
    fake = turn.forward("maker", turn.normal(3))
    return {"judged": turn.forward("judge", fake).square().mean(), "size": 0.1 * fake.square().mean()}


def draw_latents(networks: Any, count: int, generator: torch.Generator, truncation: float | None) -> Tensor:
    return torch.randn(count, 3, generator=generator)


NETWORKS: dict[str, Any] = {"maker": ganlab.Network(Maker), "judge": ganlab.Network(Flat)}
MOVES = (ganlab.Move("judging", ("judge",), judge), ganlab.Move("making", ("maker",), make))


def rules(**changes: Any) -> ganlab.Rules:
    given: dict[str, Any] = {"networks": NETWORKS, "moves": MOVES, "sampler": ganlab.sampler_of("maker")}
    return ganlab.Rules(**{**given, **changes})


@pytest.fixture
def plugins() -> Plugins:
    loaded = load_plugins()
    loaded.registry._frozen = False
    return loaded


@pytest.fixture
def training_of(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> Callable[..., Training]:
    """Builds a training of a game with these rules."""

    def training_of(given: Any, **more: Any) -> Training:
        @frozen
        class Game:
            def build(self, data: ganlab.DataSpec) -> Any:
                return given

        name = f"tested{len(list(plugins.registry.of_kind('game')))}"
        plugins.registry.register("game", name, Game, ORIGIN)
        own = {key: table[key] for key in ("name", "dataset")}
        experiment = convert_experiment({**own, "train": {"steps": 4, "batch_size": 8}, "game": name, **more}, plugins)
        trial = partial(FirstUpdates, experiment=experiment, registry=plugins.registry)
        return build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"), make_trial=trial)

    return training_of


SHARED = Flat()


def noise(networks: Any, count: int, generator: Any, truncation: Any) -> Tensor:
    return torch.randn(count, 3, generator=generator)


def sampler(**changes: Any) -> ganlab.Sampler:
    given = {"networks": ("maker",), "images": lambda networks, z, condition: networks["maker"](z), "latents": noise}
    return ganlab.Sampler(**{**given, **changes})


def with_judge(network: Any) -> ganlab.Rules:
    return rules(networks={**NETWORKS, "judge": network})


def sharing(**changes: Any) -> ganlab.Rules:
    """Two networks, one of which is in the other."""
    both = {"judge": ganlab.Network(lambda: SHARED), "b": ganlab.Network(lambda: nn.Sequential(SHARED), **changes)}
    moves = MOVES if changes else [*MOVES, ganlab.Move("later", ("b",), judge)]
    return rules(networks={"maker": NETWORKS["maker"], **both}, moves=moves)


REFUSED: dict[str, tuple[Any, list[str]]] = {
    "no rules": ({"moves": 3}, ["game: build returned dict; expected ganlab.Rules"]),
    "an unknown player": (
        rules(moves=[ganlab.Move("judging", ("judg",), judge), MOVES[1]]),
        [
            "game: 'judg' among the players of the move 'judging' is no network of the game; did you mean 'judge'?",
            "game: no move trains the network 'judge'; name it in a move's players, or declare it frozen",
        ],
    ),
    "a network without a purpose": (
        rules(networks={**NETWORKS, "spare": ganlab.Network(Flat)}),
        ["game: no move trains the network 'spare'; name it in a move's players, or declare it frozen"],
    ),
    "a frozen player": (
        rules(networks={**NETWORKS, "judge": ganlab.Network(Flat, frozen=True)}),
        ["game: the move 'judging' trains the network 'judge', which is declared frozen"],
    ),
    "one network of two names": (
        rules(
            networks={
                "maker": NETWORKS["maker"],
                "judge": ganlab.Network(lambda: SHARED),
                "b": ganlab.Network(lambda: SHARED),
            },
            moves=[ganlab.Move("judging", ("judge", "b"), judge), MOVES[1]],
        ),
        ["game: 'judge' and 'b' are one network; expected one of its own for each name"],
    ),
    "no moves": (
        rules(moves=[]),
        [
            "game: it has no moves",
            *(
                f"game: no move trains the network {name!r}; name it in a move's players, or declare it frozen"
                for name in NETWORKS
            ),
        ],
    ),
    "nothing to score": (
        rules(sampler=ganlab.Sampler((), images=lambda *_: torch.zeros(1), latents=lambda *_: torch.zeros(1))),
        ["game: its sampler names no networks; nothing could be sampled or scored"],
    ),
    "moves of one name": (
        rules(moves=[MOVES[0], MOVES[1], MOVES[1]]),
        ["game: 2 moves are named 'making'; expected different names"],
    ),
    "a name that is taken": (
        rules(networks={**NETWORKS, "ema": ganlab.Network(Flat, frozen=True)}),
        ["game: a network is named 'ema'; expected a Python name that is not taken"],
    ),
    "a negative start": (
        rules(moves=[MOVES[0], ganlab.Move("making", ("maker",), make, start=-1)]),
        ["game: the move 'making': start is -1; expected a whole number of at least 0"],
    ),
    "networks that share parameters, of two moves": (
        sharing(),
        [
            "game: the networks 'judge' and 'b' share parameters, such as 'layer.weight' of 'judge', which two "
            "optimisers would change; make what they share a network of its own"
        ],
    ),
    "a frozen network that holds one that is trained": (
        sharing(frozen=True),
        [
            "game: the networks 'judge' and 'b' share parameters, such as 'layer.weight' of 'judge', and 'b' is "
            "declared frozen, so that nothing would train them"
        ],
    ),
    "nothing to train": (
        with_judge(ganlab.Network(nn.Flatten)),
        ["game: the network 'judge' has no parameters to train; declare it frozen, and no player of a move"],
    ),
    "a module": (
        with_judge(SHARED),
        [
            "game: the network 'judge' is a module, of type Flat; expected a component, or ganlab.Network(function) "
            "that returns the module"
        ],
    ),
    "a function that is given nothing": (
        with_judge(ganlab.Network(lambda images: Flat())),
        [
            "game: the function of the network 'judge' is called with no argument, since given is empty: missing a "
            "required argument: 'images'"
        ],
    ),
    "a function that returns nothing": (
        with_judge(ganlab.Network(lambda: None)),  # type: ignore[arg-type,return-value]
        ["game: a network's function returned NoneType; expected a torch.nn.Module"],
    ),
    "a network that is given a later one": (
        rules(networks={"maker": ganlab.Network(lambda other: Maker(), given=("judge",)), "judge": NETWORKS["judge"]}),
        ["game: the network 'maker' is given 'judge', which is not before it; list 'judge' first"],
    ),
    "a table that is none": (
        with_judge(ganlab.Network(Flat, table="critic")),
        ["game: the network 'judge': table is 'critic', no component field of a network; there are: none"],
    ),
    "no sampler": (
        rules(sampler=None),
        [
            "game: it has no sampler and no outputs, so nothing could be scored; expected ganlab.Sampler, as "
            "sampler_of(NAME) returns, or outputs for metrics"
        ],
    ),
    "samplers without a main one": (
        rules(sampler=None, outputs={"logits": lambda *_: None}, samplers={"other": ganlab.sampler_of("maker")}),
        ["game: it has samplers, other, and no sampler; expected the main one"],
    ),
    "a network that the sampler did not name": (
        rules(sampler=sampler(images=lambda networks, z, condition: networks["judge"](networks["maker"](z)))),
        ["game: a sampler uses the network 'judge'; it names: maker"],
    ),
    "an unknown network of an output": (
        rules(outputs={"logits": lambda networks, images, condition: networks["judg"](images)}),
        ["game: the output 'logits' uses the network 'judg'; there are: maker, judge"],
    ),
    "an output without a row for each": (
        rules(sampler=None, outputs={"logits": lambda networks, images, condition: networks["judge"](images).mean()}),
        ["game: the output 'logits' is () for 4 images; wanted a tensor with a row for each"],
    ),
    "latents that are none": (
        rules(sampler=sampler(latents=lambda *_: None)),
        ["game: draws latents NoneType for a count of 2; expected 2 rows"],
    ),
    "samples that are not finite": (
        rules(sampler=sampler(images=lambda networks, z, condition: networks["maker"](z) / 0.0)),
        ["game: samples images that are not finite, before the first update"],
    ),
    "a translator without images": (
        rules(sampler=ganlab.translator_of("maker")),
        ["game: translator_of('maker'): [dataset] has no images as conditions; give source=…"],
    ),
    "a move that is none": (
        rules(moves=[MOVES[0], ("making", ("maker",), make)]),
        ["game: its moves[1] is of type tuple; expected ganlab.Move"],
    ),
    "no terms": (
        rules(moves=[MOVES[0], ganlab.Move("making", ("maker",), None)]),  # type: ignore[arg-type]
        ["game: the move 'making': terms is None; expected a function of a turn"],
    ),
    "players that are a text": (
        rules(moves=[ganlab.Move("judging", "judge", judge), MOVES[1]]),  # type: ignore[arg-type]
        ["game: the move 'judging': players is 'judge'; expected a tuple of names, such as ('encoder',)"],
    ),
    "an unfrozen network that is none": (
        rules(moves=[MOVES[0], ganlab.Move("making", ("maker",), make, unfrozen=("foo",))]),
        [
            "game: 'foo' among what the move 'making' names as unfrozen is no network of the game; the game's networks "
            "are: maker, judge"
        ],
    ),
    "a move's name that no log can have": (
        rules(moves=[MOVES[0], ganlab.Move("a b/c", ("maker",), make)]),
        ["game: a move is named 'a b/c'; expected letters, digits, '_', '-' and '.'"],
    ),
    "state that cannot be saved": (
        rules(state={"kept": object(), "../x": Flat()}),
        [
            "game: its state 'kept', of type object, has no state_dict and no load_state_dict",
            "game: a part of its state is named '../x'; expected a Python name",
        ],
    ),
    "a source that is none": (
        rules(sampler=ganlab.Sampler(("maker",), lambda *_: torch.zeros(1), lambda *_: torch.zeros(1), source="faces")),
        ["game: the source of the sampler is 'faces'; the game's data sets are: dataset"],
    ),
    "further samplers": (
        rules(
            samplers={
                "a b": ganlab.sampler_of("maker"),
                "none": "maker",
                "other": ganlab.translator_of("makr", source="faces", makes="faces"),
                "without": ganlab.Sampler((), lambda *_: torch.zeros(1), lambda *_: torch.zeros(1)),
            }
        ),
        [
            "game: a sampler is named 'a b'; expected a Python name",
            "game: its sampler 'none' is str; expected ganlab.Sampler",
            "game: 'makr' among the networks of the sampler 'other' is no network of the game; did you mean 'maker'?",
            "game: the source of the sampler 'other' is 'faces'; the game's data sets are: dataset",
            "game: the sampler 'other' makes images of 'faces'; the game's other data sets are: none",
            "game: its sampler 'without' names no networks; nothing could be sampled",
        ],
    ),
    "what is scored is another data set's": (
        rules(sampler=ganlab.translator_of("maker", makes="dataset")),
        ["game: the sampler makes images of 'dataset'; what is scored is like [dataset]"],
    ),
    "options of a sampler": (
        rules(
            sampler=ganlab.Sampler(
                ("maker",), lambda *_: torch.zeros(1), lambda *_: torch.zeros(1), options={"psi": None, "a-b": 1.0}
            )
        ),
        [
            f"game: its sampler has the option {option}; expected a Python name and a number, a bool or a text"
            for option in ("'psi' = None", "'a-b' = 1.0")
        ],
    ),
    "an output that is no function": (
        rules(outputs={"classes": "judge", "made": lambda *_: torch.zeros(1)}),
        ["game: its output 'classes' is str; expected a function, by a name"],
    ),
    "a further sampler of other images": (
        rules(
            samplers={
                "flat": ganlab.Sampler(
                    ("maker",), lambda networks, z, condition: networks["maker"](z).flatten(1), draw_latents
                )
            }
        ),
        ["game: the sampler 'flat' samples images of shape (2, 64); the data set's are (2, 1, 8, 8)"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rules_that_do_not_fit_are_refused(case: str, training_of: Callable[..., Training]) -> None:
    given, lines = REFUSED[case]
    with pytest.raises(UserError) as refused:
        training_of(given)
    assert [re.sub(f"{OWN}$", "", line) for line in refused.value.problems] == lines


def logging(name: str, value: Any = None) -> Callable[[ganlab.Turn], Any]:
    def terms(turn: ganlab.Turn) -> Any:
        turn.log(name, torch.zeros(()) if value is None else value)
        return make(turn)

    return terms


def among(turn: ganlab.Turn, **terms: Any) -> dict[str, Any]:
    return {**make(turn), **terms}


OF_GAME = r" \(in the move 'making' of the game 'tested\d+' of plugin test .*\)"
OWN = r" \(game 'tested\d+' of plugin test .*\)"
BOTH = "would both be logged as '{}', as one mean; expected different names"

IN_TRIAL: dict[str, tuple[Callable[[ganlab.Turn], Any], str]] = {
    "a name of the core": (
        logging("step"),
        "game: a value of turn.log and the record's own value " + BOTH.format("step"),
    ),
    "the name of a loss": (
        logging("loss_judging"),
        "game: a value of turn.log and the loss of the move 'judging' " + BOTH.format("loss_judging"),
    ),
    "the name of a term": (
        logging("loss_making_size"),
        "game: the term 'size' of the move 'making' and a value of turn.log " + BOTH.format("loss_making_size"),
    ),
    "a measure of many numbers": (
        logging("gap", torch.zeros(3)),
        r"game: the measure 'gap' is torch.float32 \(3,\); expected a scalar of floats, such as .*" + OWN,
    ),
    "a term that is not finite": (
        lambda turn: among(turn, big=torch.tensor(float("inf"))),
        "game: the term 'big' of the making's loss is inf in the first update; expected a finite number" + OWN,
    ),
    "a term without a name": (
        lambda turn: among(turn, **{"a/b": torch.zeros(())}),
        "game: a term of the move 'making' is named 'a/b'; expected a text of letters, .*" + OWN,
    ),
    "a network that is none": (
        lambda turn: turn.forward("critic", turn.real).mean(),
        "game: there is no network of the game 'critic'; there are: maker, judge" + OF_GAME,
    ),
    "another network that is none": (
        lambda turn: turn.networks["makr"](turn.real).mean(),
        r"game: there is no network of the game 'makr'; did you mean 'maker'\?" + OF_GAME,
    ),
    "a data set that is none": (
        lambda turn: turn.batch.streams["source"].images.mean(),
        "game: there is no other data set of the game 'source'; there are: none" + OF_GAME,
    ),
    "a value that no move has kept": (
        lambda turn: turn.kept["x"].mean(),
        "game: there is no value in turn.kept 'x'; there are: none" + OF_GAME,
    ),
    "a player that is none": (
        lambda turn: turn.show("nobody", fake=turn.real),
        "game: there is no network of the game 'nobody'; there are: maker, judge" + OF_GAME,
    ),
    "too few random rows": (
        lambda turn: turn.draw(lambda count, random: torch.rand(count - 1)).mean(),
        r"game: turn.draw: make\(count, …\) returned a tensor of shape \(7,\); expected count rows" + OF_GAME,
    ),
}


@pytest.mark.parametrize("case", IN_TRIAL)
def test_moves_that_do_not_fit_are_refused_before_a_run(case: str, training_of: Callable[..., Training]) -> None:
    terms, line = IN_TRIAL[case]
    with pytest.raises(UserError) as refused:
        training_of(rules(moves=[MOVES[0], ganlab.Move("making", ("maker",), terms)]))
    assert re.fullmatch(line, str(refused.value)), refused.value


def test_moves_whose_names_meet_in_the_log_are_refused(training_of: Callable[..., Training]) -> None:
    moves = [ganlab.Move("making_size", ("judge",), judge), MOVES[1]]
    with pytest.raises(UserError) as refused:
        training_of(rules(moves=moves))
    assert str(refused.value) == (
        "game: the term 'size' of the move 'making' and the loss of the move 'making_size' would both be logged as "
        "'loss_making_size', as one mean; expected different names"
    )


def test_a_wrong_shape_names_the_network_and_the_move(training_of: Callable[..., Training]) -> None:
    terms = ganlab.Move("making", ("maker",), lambda turn: turn.forward("judge", turn.real[:, :, :4]).mean())
    with pytest.raises(PluginFailed, match="in the network 'judge', in the move 'making'"):
        training_of(rules(moves=[MOVES[0], terms]))


def test_a_tensor_on_another_device_is_the_game_s_mistake_not_the_network_s(
    training_of: Callable[..., Training],
) -> None:
    terms = ganlab.Move("making", ("maker",), lambda turn: turn.forward("judge", turn.real.to("meta")).mean())
    line = "the network 'judge' is given a tensor on meta, and the run is on cpu"
    with pytest.raises(RuntimeError, match=f"^{line}$"):  # which is no PluginFailed of the network
        training_of(rules(moves=[MOVES[0], terms]))


def test_every_name_of_a_record_that_is_no_meters_is_reserved(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., Any]
) -> None:
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    record = json.loads(Path("r/log.jsonl").read_text().splitlines()[-1])
    own = {name for name in record if not name.startswith("loss_")} - {"d_real", "d_fake"}
    assert own <= set(TICK_NAMES)
    assert own >= set(TICK_NAMES) - {"alarms"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"game": {"name": "gam"}}, "game.name: unknown game 'gam'; did you mean 'gan'?"),
        ({"game": {"name": "gan", "cycle": 2}}, "game.cycle: unknown key"),
        ({"game": {"name": "gan", "loss": "bce"}}, "game.loss: is a table of its own: [loss]"),
        ({"target": "digits"}, "target: unknown key"),
        ({"train": {"steps": 4, "discriminator_step": 2}}, "train.discriminator_step: unknown key; did you mean"),
        (
            {"train": {"steps": 4, "discriminator_steps": 2, "discriminator_every": 2}},
            "train.discriminator_every: 2 together with discriminator_steps = 2; one of them must be 1",
        ),
        ({"generator": {"name": "mlp", "optimizer": {"lr": -1.0}}}, "generator.optimizer.lr: must be > 0"),
    ],
)
def test_tables_that_a_game_does_not_have(
    change: dict[str, Any], line: str, table: dict[str, Any], write: Callable[..., Path], ganlab: Callable[..., Any]
) -> None:
    code, out, err = ganlab("run", write(table | change), "--out", "r")
    assert (code, out) == (2, "")
    assert any(found.partition(": ")[2].startswith(line) for found in err.splitlines()), err
    assert not Path("r").exists()


def test_a_move_trains_its_players_alone_and_logs_its_terms(training_of: Callable[..., Training]) -> None:
    training = training_of(rules())
    before = {name: [p.clone() for p in net.parameters()] for name, net in training.game.networks.items()}
    training.game.make_update(training.game.rules.moves[1], training.loader.batch(0), 0)
    changed = {
        name: not all(torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True))
        for name, network in training.game.networks.items()
    }
    assert changed == {"maker": True, "judge": False}
    means = training.game.meters.means()
    assert means["loss_making"] == pytest.approx(means["loss_making_judged"] + means["loss_making_size"])


def test_every_start_and_repeats_say_when_a_move_is_made(training_of: Callable[..., Training]) -> None:
    made: list[str] = []

    def noted(name: str, terms: Callable[[ganlab.Turn], Any]) -> Callable[[ganlab.Turn], Any]:
        def compute(turn: ganlab.Turn) -> Any:
            made.append(name)
            return terms(turn)

        return compute

    moves = [
        ganlab.Move("making", ("maker",), noted("m", make), repeats=2),
        ganlab.Move("judging", ("judge",), noted("j", judge), every=2, start=1),
    ]
    training = training_of(rules(moves=moves))
    steps = []
    for step in range(4):
        made.clear()
        take_step(training, step)
        steps.append("".join(made))
    assert steps == ["mm", "mmj", "mm", "mmj"]
    assert training.train_step.batches_per_step == 2, "the first move takes a new batch for each update"


def test_terms_that_are_not_scalars_are_refused(training_of: Callable[..., Training]) -> None:
    training = training_of(rules())
    for terms, said in (
        (torch.zeros(3), "the loss of the move 'judging' is a tensor of shape (3,); expected a scalar tensor"),
        ({"a": 1.0}, "the term 'a' of the move 'judging' is float; expected a scalar tensor"),
        ({}, "the move 'judging' has no terms"),
    ):
        with pytest.raises(ganlab.ComponentError) as refused:
            training.game.sum_terms(MOVES[0], terms)
        assert str(refused.value) == said


def test_a_random_row_does_not_depend_on_the_parts_of_a_batch(training_of: Callable[..., Training]) -> None:
    drawn: list[Tensor] = []

    def noted(turn: ganlab.Turn) -> Any:
        drawn.append(turn.normal(3))
        return make(turn)

    moves = [MOVES[0], ganlab.Move("making", ("maker",), noted)]
    rows = []
    for accumulate in (1, 4):
        training = training_of(rules(moves=moves), train={"steps": 4, "batch_size": 8, "accumulate": accumulate})
        drawn.clear()
        torch.manual_seed(0)
        training.game.make_update(training.game.rules.moves[1], training.loader.batch(0), 0)
        rows.append(torch.cat(drawn))
    assert torch.equal(*rows)


def test_a_network_of_a_function_has_its_own_optimiser_and_penalty(training_of: Callable[..., Training]) -> None:
    """`[judge.optimizer]`, `judge.clip_norm` and a schedule of it; R1 of a linear map is gamma / 2 times |w|^2."""

    def terms(turn: ganlab.Turn) -> Tensor:
        turn.show("judge", fake=turn.real)
        return judge(turn)

    given = with_judge(ganlab.Network(Judge))
    moves = [ganlab.Move("judging", ("judge",), terms), MOVES[1]]
    own = {
        "optimizer": {"name": "adam", "lr": 0.01},
        "judge": {"optimizer": {"lr": 0.2}, "clip_norm": 0.5},
        "schedule": [{"name": "linear", "key": "judge.optimizer.lr", "to": 0.0}],
        "penalty": [{"name": "r1", "player": "judge", "gamma": 3.0}],
    }
    training = training_of(attrs.evolve(given, moves=moves), **own)
    players = training.game.players
    weights = players["judge"].network.get_parameter("layer.weight").square().sum()
    expected = float(1.5 * weights.detach())
    training.schedules.fill(2)
    rates = {name: float(player.optimizer.param_groups[0]["lr"]) for name, player in players.items()}
    assert rates == pytest.approx({"maker": 0.01, "judge": 0.1})
    assert {name: player.clip_norm for name, player in players.items()} == {"maker": None, "judge": 0.5}
    training.game.make_update(moves[0], training.loader.batch(0), 0)
    assert training.game.meters.means()["penalty_r1"] == pytest.approx(expected)
    with pytest.raises(UserError) as refused:
        training_of(attrs.evolve(given, moves=moves), judg={"optimizer": {"lr": 0.2}})
    assert str(refused.value) == "judg: no network that the game trains; did you mean 'judge'?"


class Mean:
    """The running mean of a value, a game's own state."""

    def __init__(self) -> None:
        self.mean = torch.zeros(())

    def move(self, latest: Tensor, rows: Tensor) -> None:
        assert rows.shape == (8, 1)
        self.mean.lerp_(latest + rows.mean(), 0.5)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])


@pytest.mark.parametrize("size", [3, 8, 20])
def test_a_games_state_moves_once_an_update_in_however_many_parts(
    size: int, training_of: Callable[..., Training]
) -> None:
    """Held against a batch in one part: an image pool, also one that is smaller than a batch, and a running mean."""

    def ended(accumulate: int) -> Iterator[Tensor]:
        pool, mean, exchanged = ganlab.ImagePool(size, DIGITS), Mean(), []

        def terms(turn: ganlab.Turn) -> Any:
            fake = turn.forward("maker", turn.normal(3))
            old = pool.exchange(turn, fake)
            exchanged.append(old)
            logits = turn.forward("judge", old)
            turn.update_state(mean.move, logits.mean(), logits)
            return logits.square().mean()

        moves = [ganlab.Move("judging", ("judge",), terms), MOVES[1]]
        more = {"train": {"steps": 8, "batch_size": 8, "accumulate": accumulate}}
        training = training_of(rules(moves=moves, state={"pool": pool, "mean": mean}), **more)
        pool.load_state_dict({"images": torch.zeros_like(pool.images), "filled": torch.zeros_like(pool.filled)})
        mean.mean.zero_()
        exchanged.clear()
        torch.manual_seed(0)
        for step in range(6):
            take_step(training, step)
        yield from (torch.cat(exchanged), pool.images, pool.filled, mean.mean)

    for one, other in zip(ended(1), ended(4), strict=True):
        torch.testing.assert_close(other, one)


GOES_WRONG = """
import torch
from attrs import frozen
from torch import Tensor, nn
import ganlab

class Maker(nn.Module):
    latent_dim = 3
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 64)
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, z, condition=None):
        return torch.tanh(self.layer(z)).unflatten(1, (1, 8, 8))

@frozen
class Game:
    def build(self, data):
        calls = []
        def terms(turn):
            calls.append(1)
            turn.networks["maker"].seen.copy_(turn.images_seen)
            if len(calls) > 5:
                REFUSED
            return turn.forward("maker", turn.normal(3)).square().mean()
        def images(networks, z, condition):
            maker = networks["maker"]
            return maker(z) / (maker.seen < 16)
        return ganlab.Rules(
            networks={"maker": ganlab.Network(Maker)},
            moves=[ganlab.Move("making", ("maker",), terms)],
            sampler=ganlab.Sampler(("maker",), SAMPLED, ganlab.sampler_of("maker").latents),
        )

@ganlab.hookimpl
def register_games(register): register("goes_wrong", Game)
"""


@pytest.mark.parametrize(
    ("refused", "sampled", "code", "line"),
    [
        (
            'raise ganlab.ComponentError("needs more")',
            'ganlab.sampler_of("maker").images',
            2,
            r"plugin goes_wrong \(\S+\) raised after step 5: ComponentError: needs more \(line \d+\); the checkpoint "
            "of step 4 is kept",
        ),
        (
            "pass",
            "images",
            3,
            "after step 6, generated images are not finite: the game's sampler made NaN or infinity "
            r"\(game 'goes_wrong' of plugin goes_wrong \(\S+\)\); the checkpoint of step 4 is kept",
        ),
    ],
)
def test_what_goes_wrong_in_a_run_is_one_line(
    refused: str,
    sampled: str,
    code: int,
    line: str,
    table: dict[str, Any],
    write: Callable[..., Path],
    tmp_path: Path,
    ganlab: Callable[..., Any],
) -> None:
    (tmp_path / "goes_wrong.py").write_text(GOES_WRONG.replace("REFUSED", refused).replace("SAMPLED", sampled))
    train = {"steps": 9, "batch_size": 4, "checkpoint_every": 4, "sample_every": 3, "sample_count": 4}
    own = {"name": "tiny", "dataset": table["dataset"], "train": train}
    ended, _, err = ganlab("run", write({"plugins": ["goes_wrong.py"], "game": "goes_wrong", **own}), "--out", "r")
    assert ended == code, err
    assert re.fullmatch(line, err.splitlines()[-1]), err
    assert "Traceback" not in err


def test_a_move_that_a_run_never_makes_is_told_of(training_of: Callable[..., Training]) -> None:
    moves = [MOVES[0], ganlab.Move("making", ("maker",), make, start=4)]
    with pytest.warns(UserWarning, match="the move 'making' begins in step 4 of a run of 4, and is never made"):
        training_of(rules(moves=moves))


def test_no_option_can_have_the_name_of_the_component(plugins: Plugins) -> None:
    @frozen
    class Named:
        name: str = "x"

        def build(self, data: ganlab.DataSpec) -> Any:
            return rules()

    with pytest.raises(RegistrationError, match="Named: no option can be called 'name', which chooses the component"):
        plugins.registry.register("game", "named", Named, ORIGIN)
