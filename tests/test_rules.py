"""What is refused of a game before anything is written, one line each; and what a game's moves do in a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

import ganlab
from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.protocols import Places
from ganlab.training.build import build
from ganlab.training.loop import Training, take_step
from ganlab.utils.errors import UserError

ORIGIN = Origin("test", "file", "", "", None)
PIXELS = 64


class Flat(nn.Module):
    """A linear map of images, to as many values."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(PIXELS, outputs)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.layer(images.flatten(1))
        return values


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
        return build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))

    return training_of


SHARED = Flat()

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
    assert list(refused.value.problems) == lines


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
