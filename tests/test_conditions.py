"""Class labels from the data set to the step, to samples and to scores, held against what the data set says itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ganlab import ImageDataset, load_run
from ganlab.config.load import convert_experiment
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.loader import BatchLoader
from ganlab.data.pixels import to_float
from ganlab.evaluation.sampling import sample, sample_grid
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Places
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.build import build
from ganlab.training.probes import TaggedCondition, note_condition

CPU = torch.device("cpu")
Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

PLUGIN = """
import torch
from attrs import frozen
from torch import nn
from ganlab import Interval, Scores, hookimpl

LEVELS = 10


class Levels(nn.Module):
    '''Images whose level says for which class they were made; the weight is there to be trained.'''
    latent_dim = 4

    def __init__(self, images):
        super().__init__()
        self.shape = (images.channels, images.height, images.width)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z, condition):
        levels = condition.float() / LEVELS * 2 - 1 + self.weight * z.mean(1)
        return levels.clamp(-1, 1)[:, None, None, None].expand(-1, *self.shape)


class Asked(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.classes = nn.Embedding(images.classes, 1)
        self.layer = nn.Linear(images.channels * images.height * images.width, 1)

    def forward(self, images, condition):
        return (self.layer(images.flatten(1)) + self.classes(condition)).squeeze(1)


@frozen
class G:
    def build(self, images):
        return Levels(images)


@frozen
class D:
    def build(self, images):
        return Asked(images)


@frozen
class Obeyed:
    '''The share of images whose level is that of the class they were made for.'''
    every: Interval = Interval(0)

    def evaluate(self, evaluation):
        right = [
            (images.float().mean((1, 2, 3)) / 255 * LEVELS).round().long() == condition
            for images, condition in evaluation.conditioned(300, 0)
            if condition is not None
        ]
        share = float(torch.cat(right).double().mean()) if right else 0.0
        return Scores({"obeyed": share}, {"metric": "obeyed"}, {"obeyed": "higher"})


@hookimpl
def register_generators(register): register("levels", G)

@hookimpl
def register_discriminators(register): register("asked", D)

@hookimpl
def register_metrics(register): register("obeyed", Obeyed)
"""


@pytest.fixture
def conditional(table: dict[str, Any], write: Write, tmp_path: Path) -> Path:
    """An experiment whose networks look at the class, on the digits."""
    (tmp_path / "conditional.py").write_text(PLUGIN)
    table |= {"plugins": ["conditional.py"], "generator": "levels", "discriminator": "asked"}
    table["metric"] = ["obeyed"]
    table["train"] |= {"sample_count": 40}
    return write(table)


def test_a_batch_has_the_labels_of_its_images() -> None:
    images = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1)
    dataset = ImageDataset(images, "numbered", condition=torch.arange(40))
    for gigabytes in (None, 0.0):
        loader = BatchLoader.for_dataset(dataset, 12, 0, CPU, gigabytes)
        for number in (0, 1, 5):
            batch = loader.batch(number)
            assert batch.condition is not None
            assert torch.equal(to_float(images[batch.condition]), batch.images), gigabytes
        loader.close()


def test_an_image_condition_is_a_float_image() -> None:
    images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    batch = BatchLoader.for_dataset(ImageDataset(images, "pairs", condition=255 - images), 4, 0, CPU).batch(1)
    assert batch.condition is not None
    assert torch.allclose(batch.condition, -batch.images, atol=1e-6)


@pytest.mark.parametrize(("loss", "fresh", "repeats"), [("bce", True, 1), ("relativistic", False, 2)])
def test_both_networks_are_given_the_labels_of_the_real_batch(
    table: dict[str, Any], tmp_path: Path, loss: str, fresh: bool, repeats: int
) -> None:
    """Each pass of a step, seen from outside: the classes are those of the real images, twice where both are joined."""
    table["loss"] = loss
    table["train"] |= {"fresh_noise": fresh, "discriminator_steps": repeats}
    plugins = load_plugins()
    experiment = convert_experiment(table, plugins)
    training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), CPU)
    game, given = training.game, []
    for player in game.players.values():
        player.network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[1]))
    batches = [training.loader.batch(number) for number in range(repeats)]
    training.train_step(batches, 0)
    labels = [batch.condition for batch in batches]
    assert None not in labels
    assert len(given) == 2 * repeats + 2
    for condition in given:
        whose = [of for of in labels if torch.equal(condition[: len(of)], of)]
        assert whose, "labels that no batch has"
        assert torch.equal(condition, whose[0].repeat(len(condition) // len(whose[0])))


def test_only_networks_that_look_at_the_condition_are_conditional(table: dict[str, Any], tmp_path: Path) -> None:
    z, labels = torch.zeros(2, 3), torch.tensor([0, 1])

    class Embeds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(2, 3)
            nn.init.zeros_(self.table.weight)  # as conditional batch norm begins: the class changes nothing yet

        def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
            return z if condition is None else z + self.table(condition)

    class Ignores(nn.Module):
        def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
            return z

    def uses(network: nn.Module, condition: Tensor) -> bool:
        noted: list[bool] = []
        wanted = network(z, condition)
        note_condition(network, lambda: noted.append(True))
        assert torch.equal(network(z, condition), wanted)
        return bool(noted)

    tagged = labels.as_subclass(TaggedCondition)
    assert uses(Embeds(), tagged)
    assert not uses(Ignores(), tagged)
    assert not uses(Embeds(), labels), "it is no condition of the data set"
    assert uses(Embeds(), torch.cat([tagged, tagged])[:2]), "what a game makes of a condition is one"
    plugins = load_plugins()
    training = build(convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), CPU)
    assert training.dataset.condition is not None
    assert training.conditions.known is None, "the networks are unconditional, so are their samples"


def test_classes_come_as_often_as_in_the_data() -> None:
    labels = torch.tensor([2] * 70 + [0] * 20 + [1] * 10)
    conditions = ConditionSampler.of(
        ImageDataset(torch.zeros(100, 1, 1, 1, dtype=torch.uint8), "some", condition=labels)
    )
    again = ConditionSampler.counted(conditions.counts)
    assert conditions.counts == [20, 10, 70]
    draws = [c.drawn(20_000, torch.Generator().manual_seed(1)) for c in (conditions, again)]
    assert torch.equal(*draws), "what run.json holds draws the same"
    shares = draws[0].bincount(minlength=3) / 20_000
    assert torch.allclose(shares, torch.tensor([0.2, 0.1, 0.7]), atol=0.015)
    assert ConditionSampler().drawn(5, torch.Generator()) is None


class Shows(nn.Module):
    """A pixel with the class, and one with the latent."""

    latent_dim = 1

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        return torch.stack([condition.float() / 10, z.squeeze(1).tanh()], 1)[:, :, None, None]


def test_the_first_images_and_classes_of_a_larger_sample_are_the_same() -> None:
    conditions = ConditionSampler.counted([5, 5, 10])
    drawn = {count: list(sample(Shows(), count, 3, CPU, conditions)) for count in (7, 200)}
    few, many = (torch.cat([images for images, _ in drawn[count]]) for count in (7, 200))
    assert torch.equal(few, many[:7])
    asked = torch.cat([condition for _, condition in drawn[200]])
    assert torch.equal((many[:, 0, 0, 0].float() / 127.5 - 1).mul(10).round().long(), asked)
    parts = [sample(Shows(), 200, 3, CPU, conditions, share=edge) for edge in ((0, 90), (90, 131), (131, 200))]
    assert torch.equal(torch.cat([images for part in parts for images, _ in part]), many)


def test_a_grid_has_a_row_a_class_and_a_latent_a_column() -> None:
    images, columns = sample_grid(Shows(), 14, 0, CPU, ConditionSampler.counted([1, 2, 3]))
    assert columns == 4
    assert images.shape == (12, 2, 1, 1)
    classes, latents = images.reshape(3, 4, 2).unbind(2)
    assert (classes == classes[:, :1]).all()
    assert len(set(classes[:, 0].tolist())) == 3
    assert (latents == latents[:1]).all()
    assert len(set(latents[0].tolist())) == 4


def test_a_conditional_run_from_file_to_scores(conditional: Path, ganlab: Command) -> None:
    code, _, err = ganlab("run", conditional, "--out", "r")
    assert code == 0, err
    run = load_run("r")
    labels = labels_of_the_digits()
    assert read_info(Path("r"))["condition"] == labels.bincount().tolist()
    scores = [record["value"] for record in read_records(Path("r/metrics.jsonl"))]
    assert scores == [pytest.approx(1.0, abs=0.02)] * 2
    images, asked = run.sample_with_condition(50, seed=2)
    assert torch.equal(images, run.sample(50, seed=2))
    assert asked is not None
    assert asked.tolist() == (images.float().mean((1, 2, 3)) / 25.5).round().long().tolist()
    sevens = run.sample(20, seed=2, label=7)
    assert ((sevens.float().mean((1, 2, 3)) / 25.5).round() == 7).all()

    code, _, err = ganlab("eval", "r")
    assert code == 0, err
    assert read_records(Path("r/metrics.jsonl"))[-1]["value"] == scores[-1]


def labels_of_the_digits() -> Tensor:
    from ganlab_plugins.datasets.digits import Digits

    condition = Digits().build(Places(Path("a"), Path("b")), "train").condition
    assert condition is not None
    return condition


def test_labels_from_the_command_line(conditional: Path, ganlab: Command, table: dict[str, Any], write: Write) -> None:
    ganlab("run", conditional, "--out", "r")
    assert ganlab("sample", "r", "--count", "30", "--out", "s.npz")[0] == 0
    with np.load("s.npz") as arrays:
        assert arrays["labels"].shape == (30,)
        assert (np.round(arrays["images"].mean((1, 2, 3)) / 25.5) == arrays["labels"]).all()
    assert ganlab("sample", "r", "--count", "8", "--label", "3", "--out", "t.npz")[0] == 0
    with np.load("t.npz") as arrays:
        assert (arrays["labels"] == 3).all()
    assert ganlab("sample", "r", "--count", "16", "--interpolate", "--out", "w.npz")[0] == 0
    with np.load("w.npz") as arrays:
        assert (arrays["labels"].reshape(2, 8) == arrays["labels"].reshape(2, 8)[:, :1]).all(), "a walk keeps its class"
    assert ganlab("sample", "r", "--count", "40", "--out", "x.png")[0] == 0
    with Image.open("x.png") as grid:
        assert (grid.width - 2) * 10 == (grid.height - 2) * 4, "a row for each class"
    code, _, err = ganlab("sample", "r", "--label", "10", "--out", "u.png")
    assert code == 2
    assert "--label 10: expected one of the 10 classes, 0 to 9" in err
    plain = {key: value for key, value in table.items() if key not in ("plugins", "metric")}
    plain |= {"generator": {"name": "mlp", "hidden": [4]}, "discriminator": {"name": "mlp", "hidden": [4]}}
    ganlab("run", write(plain, "plain.toml"), "--out", "p")
    assert read_info(Path("p"))["condition"] is None
    code, _, err = ganlab("sample", "p", "--label", "1", "--out", "v.png")
    assert code == 2
    assert "the networks of this run know no classes" in err
