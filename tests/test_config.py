"""The experiment file, held against what a person would mean by it: every kind of mistake has its line, all at once."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from ganlab.config.load import experiment_to_toml, load_experiment
from ganlab.config.overrides import apply_override, parse_override
from ganlab.config.schema import NAME_RULE, Train
from ganlab.sweep.plan import load_sweep
from ganlab.utils.errors import PluginFailed, UserError
from ganlab.utils.interval import Interval

Write = Callable[..., Path]


def problems(path: Path, *overrides: str, **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_experiment(path, overrides, **options)
    return [line.removeprefix(f"{path}: ") for line in caught.value.problems]


def test_a_good_file_is_read(write: Write, table: dict[str, Any]) -> None:
    experiment, plugins = load_experiment(write(table))
    assert experiment.train.steps == 4
    assert experiment.game.loss.reduction == "sum"  # type: ignore[attr-defined]
    assert experiment.game.generator.hidden == (16,)  # type: ignore[attr-defined]
    assert not plugins.failures


def test_the_name_of_the_file_is_the_default_name(write: Write, table: dict[str, Any]) -> None:
    del table["name"]
    experiment, _ = load_experiment(write(table, "from_file.toml"))
    assert experiment.name == "from_file"


MISTAKES = {
    "sed = 1": "sed: unknown key; did you mean 'seed'?",
    "train.batchsize = 4": "train.batchsize: unknown key; did you mean 'batch_size'?",
    "loss.reductoin = 'sum'": "loss.reductoin: unknown key; did you mean 'reduction'?",
    "loss.reduction = 'sun'": "loss.reduction: expected 'sum' or 'mean', got 'sun'; did you mean 'sum'?",
    "loss.saturating = 'false'": "loss.saturating: expected true or false, got 'false'",
    "loss.saturating = 1": "loss.saturating: expected true or false, got 1",
    "loss.name = 'bec'": "loss.name: unknown loss 'bec'; did you mean 'bce'?",
    "train.steps = 3.9": "train.steps: expected a whole number, got 3.9",
    "train.steps = true": "train.steps: expected a whole number, got true",
    "train.steps = '3'": "train.steps: expected a whole number, got '3'",
    "train.steps = 0": "train.steps: must be >= 1, got 0",
    "train.batch_size = -1": "train.batch_size: must be >= 1, got -1",
    "train.ema = 1": "train.ema: must be < 1, got 1.0",
    "train.ema = true": "train.ema: expected a number, got true",
    "train.ema = nan": "train.ema: expected a finite number, got nan",
    "train.log_every = 0": "train.log_every: must be at least 1: NaN is looked for once a tick",
    "train.checkpoint_keep = 1": "train.checkpoint_keep: must be 0, for all, or at least 2: one alone could be damaged",
    "train.sample_every = '2 weeks'": "train.sample_every: expected a number of steps or \"N epochs\", got '2 weeks'",
    "train.precision = 'fp8'": "train.precision: expected 'float32', 'tf32' or 'bfloat16', got 'fp8'",
    "optimizer.betas = [0.5]": "optimizer.betas: expected a list of 2 numbers, got [0.5]",
    "optimizer.betas = [0.5, 'x']": "optimizer.betas[1]: expected a number, got 'x'",
    "generator.hidden = [16, 0]": "generator.hidden: must be >= 1, got [16, 0]",
    "generator.hidden = 16": "generator.hidden: expected a list of whole numbers, got 16",
    "generator.optimiser = 'sgd'": "generator.optimiser: unknown key; did you mean 'optimizer'?",
    "generator.optimizer.lr = -1": "generator.optimizer.lr: must be > 0, got -1.0",
    "generator.clip_norm = 0": "generator.clip_norm: must be > 0, got 0.0",
    "generator.optimizer = 'adma'": "generator.optimizer.name: unknown optimizer 'adma'; did you mean 'adam'?",
    "penalty = 3": "penalty: expected a list of tables ([[penalty]]), got 3",
    "penalty = [{ weight = 1 }]": "penalty[0]: name: expected the name of a penalty (class_loss, consistency, "
    "dragan, gradient_penalty, l2_generator, orthogonal, path_length, r1, r2), got none",
    "metric = [{ name = 'fid', features = 'inceptoin' }]": "metric[0].features.name: unknown features 'inceptoin'; "
    "did you mean 'inception'?",
    "metric = [{ name = 'fid', features = { name = 'classifier', colour = 1 } }]": "metric[0].features.colour",
    "dataset = 3": "dataset: expected the name of a dataset or a table, got 3",
    "game = 3": "game: expected the name of a game or a table, got 3",
    "game = { name = 'gan', discriminator_steps = 2 }": "game.discriminator_steps: is written in [train]",
    "game = { conditional = true }": "game: name: expected the name of a game (aae, bigan, ",
    "name = '../x'": f"name: {NAME_RULE}, got '../x'",
    "name = ''": f"name: {NAME_RULE}, got ''",
    "seed = -1": "seed: must be >= 0, got -1",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_for_each_mistake(mistake: str, write: Write, table: dict[str, Any]) -> None:
    key, _, value = mistake.partition(" = ")
    apply_override(table, key.split("."), tomllib.loads(f"v = {value}")["v"])
    (line,) = problems(write(table))
    assert line.startswith(MISTAKES[mistake]), line
    assert "\n" not in line


def test_all_mistakes_at_once(write: Write, table: dict[str, Any]) -> None:
    table["sed"] = 1
    table["loss"]["margn"] = 2
    table["generator"]["name"] = "mpl"
    table["train"] |= {"batch_size": 0, "steps": "many"}
    del table["dataset"]
    lines = problems(write(table))
    starts = ["sed", "loss.margn", "generator.name", "train.batch_size", "train.steps", "dataset"]
    assert sorted(line.split(":")[0] for line in lines) == sorted(starts)


def test_steps_or_epochs(write: Write, table: dict[str, Any]) -> None:
    table["train"]["epochs"] = 2
    assert problems(write(table)) == ["train: give one of 'steps' and 'epochs', not both"]
    del table["train"]["epochs"], table["train"]["steps"]
    assert problems(write(table)) == ["train: give one of 'steps' and 'epochs'"]


def test_toml_syntax_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("a = [1,\nb")
    (line,) = problems(path)
    assert line.startswith("not valid TOML")
    assert "line 2" in line
    assert problems(tmp_path / "none.toml") == ["no such file"]
    path.write_bytes(b"\xff\xfe")
    assert problems(path)[0].startswith("not UTF-8 text")


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, ".".join("a" * 20_000) + " = 1", "# " + "x" * 10_000_000],
    ids=["deep nesting", "40 KB key", "10 MB file"],
)
def test_config_bombs_are_refused_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.toml"
    path.write_text(text)
    start = time.perf_counter()
    assert len(problems(path)) == 1
    assert time.perf_counter() - start < 1


def test_overrides(table: dict[str, Any], write: Write) -> None:
    path = write(table)
    settings = ["train.steps=9", "optimizer.betas=[0.9, 0.99]", "loss.reduction=mean", "generator.optimizer.name=sgd"]
    experiment, _ = load_experiment(path, settings)
    assert experiment.train.steps == 9
    assert experiment.optimizer.betas == (0.9, 0.99)  # type: ignore[attr-defined]
    assert experiment.game.loss.reduction == "mean"  # type: ignore[attr-defined]
    assert type(experiment.optimizers["generator"]).__name__ == "SGD"


def test_overrides_of_lists_and_tables(table: dict[str, Any], write: Write) -> None:
    table["metric"] = [{"name": "fid", "features": "classifier"}]
    path = write(table)
    assert load_experiment(path, ["metric=[]"])[0].metric == ()
    changed = load_experiment(path, ["metric.0.samples=77", "penalty=[{name='l2_generator'}]"])[0]
    assert changed.metric[0].samples == 77  # type: ignore[attr-defined]
    assert changed.penalty[0].player == "generator"


def test_choosing_another_component_drops_the_options_of_the_one_before() -> None:
    of_the_player = {"optimizer": {"name": "adam", "lr": 1}, "clip_norm": 2.0}
    table: dict[str, Any] = {"generator": {"name": "mlp", "hidden": [1], **of_the_player}}
    apply_override(table, ["generator", "name"], "dcgan")
    assert table == {"generator": {"name": "dcgan", **of_the_player}}
    apply_override(table, ["generator", "optimizer", "name"], "sgd")
    assert table["generator"]["optimizer"] == {"name": "sgd"}
    table["generator"] = {"name": "mlp", "hidden": [1], **of_the_player}
    for _ in range(2):  # a name alone, over a table and over a name
        apply_override(table, ["generator"], "dcgan")
        assert table == {"generator": {"name": "dcgan", **of_the_player}}
    table["optimizer"] = {"name": "adam", "lr": 1}
    apply_override(table, ["optimizer"], "sgd")
    assert table["optimizer"] == "sgd"


def test_a_players_optimizer_changes_the_common_one(table: dict[str, Any], write: Write) -> None:
    table["optimizer"] = {"name": "adam", "lr": 0.5, "betas": [0.0, 0.9]}
    table["discriminator"]["optimizer"] = {"lr": 0.25}
    experiment, _ = load_experiment(write(table))
    assert attrs.asdict(experiment.optimizers["discriminator"])["lr"] == 0.25  # type: ignore[arg-type]
    assert attrs.asdict(experiment.optimizers["discriminator"])["betas"] == (0.0, 0.9)  # type: ignore[arg-type]
    assert "generator" not in experiment.optimizers


def test_steps_replace_epochs() -> None:
    table: dict[str, Any] = {"train": {"epochs": 3}}
    apply_override(table, ["train", "steps"], 5)
    assert table == {"train": {"steps": 5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.steps", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("loss.margin=", r"loss.margin=: has no value; expected one, such as .*'loss.margin=\"\"' for an empty text"),
        ("train..steps=3", "expected KEY=VALUE"),
        ("loss.name=[1", "neither a TOML value nor a plain word"),
        ("loss.name=a\nb=2", "on one line"),
        ("a=" + "[" * 100, "nested"),
    ],
)
def test_bad_overrides(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_override(text)


def test_an_override_through_something_that_is_no_table(table: dict[str, Any], write: Write) -> None:
    table["loss"] = "bce"
    (line, *_) = problems(write(table), "loss.reduction=mean", "train.steps.x=1", "metric.0.x=1")
    assert line == "--set loss.reduction: loss is 'bce', not a table; set loss={ name = 'bce', … }"


def test_the_resolved_file_reads_back_as_the_same_experiment(write: Write, table: dict[str, Any], wedge: Path) -> None:
    table |= {
        "plugins": ["wedge.py"],
        "loss": "wedge",
        "penalty": [{"name": "l2_generator", "weight": 0.5}],
        "metric": [{"name": "fid", "every": "2 epochs", "features": {"name": "classifier"}}],
    }
    table["generator"]["optimizer"] = {"name": "rmsprop", "lr": 0.25}
    experiment, plugins = load_experiment(write(table))
    text = experiment_to_toml(experiment, plugins)
    again, other = load_experiment(write(tomllib.loads(text), "resolved.toml"))
    assert experiment_to_toml(again, other) == text
    game = attrs.evolve(again.game, loss=experiment.game.loss)  # type: ignore[misc, attr-defined]
    assert attrs.evolve(again, game=game, plugins=()) == attrs.evolve(experiment, plugins=())
    resolved = tomllib.loads(text)
    assert resolved["plugins"] == [str(wedge.resolve())]
    assert resolved["generator"]["optimizer"]["lr"] == 0.25
    assert resolved["metric"][0]["every"] == "2 epochs"
    for f in attrs.fields(Train):
        assert f.name in resolved["train"] or getattr(experiment.train, f.name) is None


def test_intervals() -> None:
    assert Interval.parse(500).in_steps(93.0) == 500
    assert Interval.parse("2 epochs").in_steps(93.5) == 187
    assert Interval.parse("1 epoch").in_steps(0.2) == 1
    assert Interval.parse(0).in_steps(93.0) == 0
    assert Interval.parse("1 epoch").to_toml() == "1 epoch"
    for wrong in (-1, 1.5, True, "epochs", "-1 epochs", None, "1e3 steps"):
        with pytest.raises(ValueError, match="expected a number of steps"):
            Interval.parse(wrong)


@pytest.mark.parametrize(
    ("stem", "instead"),
    [("my exp (1)", "my-exp-1"), ("日本", "experiment"), (".hidden", "hidden"), ("x" * 101, "x" * 100)],
)
def test_a_file_whose_name_cannot_be_that_of_a_run(
    stem: str, instead: str, write: Write, table: dict[str, Any]
) -> None:
    """The line is about the file's name, not about a key that the file does not have; the key it advises works."""
    del table["name"]
    path = write(table, f"{stem}.toml")
    shown = repr(stem) if len(stem) < 60 else repr(stem)[:57] + "…"
    assert problems(path) == [
        f"it has no key name, and its file's name cannot be used instead: {NAME_RULE}, got {shown}; "
        f'add a line such as name = "{instead}"'
    ]
    assert load_experiment(path, [f"name={instead}"])[0].name == instead
    path.write_text(f'name = "{instead}"\n{path.read_text()}')
    assert load_experiment(path)[0].name == instead


def test_a_sweep_whose_file_or_base_has_no_name(write: Write, table: dict[str, Any]) -> None:
    del table["name"]
    base = write(table, "my exp (1).toml")
    sweep = write({"base": base.name, "variants": {"a": {}}}, "my sweep.toml")
    with pytest.raises(UserError) as caught:
        load_sweep(sweep)
    (line,) = caught.value.problems
    assert line.startswith(f"{sweep}: it has no key name, and its file's name cannot be used instead")
    assert line.endswith('name = "my-sweep"')
    sweep = write({"base": base.name, "variants": {"a": {}}}, "sweep.toml")
    with pytest.raises(UserError) as caught:
        load_sweep(sweep)
    (line,) = caught.value.problems
    assert line.startswith(f"{sweep}: variants.a: {base}: it has no key name, and its file's name cannot be used")
    assert load_sweep(sweep, ["name=mine"]).planned[0].toml.startswith('name = "mine"')
    sweep = write({"base": base.name, "variants": {"a": {"name": "own"}}}, "sweep.toml")
    assert load_sweep(sweep).planned[0].toml.startswith('name = "own"')


STRICT = """
import ganlab
from attrs import Factory, field, frozen
from collections.abc import Sequence
from pathlib import Path
from typing import Any

class Loss:
    def discriminator(self, real, fake): ...
    def generator(self, real, fake): ...

@frozen
class Refuses(Loss):
    places: Sequence[str] = ()
    sizes: tuple = ()
    table: dict = field(factory=dict)
    file: Path = Path("a")
    rate: float = 1.0
    twice: float = Factory(lambda self: 2 * self.rate, takes_self=True)

    def __attrs_post_init__(self):
        if self.rate > 2:
            raise ganlab.ComponentError("rate: of at most 2")
        assert self.rate > 0, "positive"

@frozen
class Unwritten(Loss):
    some: Any = frozenset([1])

@ganlab.hookimpl
def register_losses(register):
    register("refuses", Refuses)
    register("unwritten", Unwritten)
"""


def test_what_a_plugins_class_refuses_is_named_with_its_key(
    write: Write, table: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "strict.py").write_text(STRICT)
    path = write(table | {"plugins": ["strict.py"], "loss": {"name": "refuses", "rate": 3.0}, "sed": 1})
    assert problems(path) == ["loss.rate: of at most 2", "sed: unknown key; did you mean 'seed'?"][::-1]
    table |= {"plugins": ["strict.py"]}
    for value, line in {
        "places = 'abc'": "places: expected a list of texts, got 'abc'",
        "sizes = 'abc'": "sizes: expected a list, got 'abc'",
        "table = [1]": "table: expected a table, got [1]",
        "file = 3": "file: expected text, got 3",
    }.items():
        path = write(table | {"loss": {"name": "refuses", **tomllib.loads(value)}})
        assert problems(path) == [f"loss.{line}"]
    path = write(table | {"loss": {"name": "refuses", "sizes": [1, "a"], "table": {"a": 1}}})
    assert load_experiment(path)[0].game.loss.sizes == (1, "a")  # type: ignore[attr-defined]
    raised = r"strict\.py\) raised when loss 'refuses' was made from its options: AssertionError: positive \(line 24\)"
    with pytest.raises(PluginFailed, match=raised):
        load_experiment(write(table | {"loss": {"name": "refuses", "rate": -1.0}}))
    with pytest.raises(UserError, match=r"^loss\.some: TOML has no frozenset, so the run"):
        experiment_to_toml(*load_experiment(write(table | {"loss": "unwritten"})))
