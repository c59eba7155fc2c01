"""Conditions of every form, alone and several at once, from the data set to networks, samples, files and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import typed_data
from ganlab import ComponentError, ImageDataset, ImageSpec, Step, load_run
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.dataset import image_spec
from ganlab.data.loader import BatchLoader
from ganlab.data.npz import read_npz
from ganlab.evaluation.evaluator import Evaluator
from ganlab.protocols import ConditionSpec, Places
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.training.probes import TaggedCondition, note_condition
from ganlab.utils.hashing import tensors_sha256
from stubs import CPU
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

KINDS = ("labels", "picture", "deep", "attributes", "labels+picture", "labels+attributes+deep")
FORMULA = {torch.uint8: 127.5, torch.uint16: 32767.5}


def named(condition: Any) -> dict[str, Tensor]:
    return condition if isinstance(condition, dict) else {"": condition}


def seen(part: Tensor) -> Tensor:
    """What a network is given of a condition, by the formulas of the documentation."""
    half = FORMULA.get(part.dtype)
    return part if half is None else part.float() / half - 1


def conditional(table: dict[str, Any], kind: str) -> dict[str, Any]:
    """A small experiment on a table of floats, whose networks use every condition."""
    dataset = {"name": "typed", "form": "table", "condition": kind}
    table |= {"plugins": [typed_data.__file__], "dataset": dataset, "optimizer": {"name": "sgd", "lr": 1e-5}}
    return table | {"generator": "uses_all", "discriminator": "uses_all"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_the_conditions_of_its_images(kind: str) -> None:
    data, condition = typed_data.values("table", "float32", 20, 0), typed_data.conditions(kind, 20, 0)
    dataset = ImageDataset(data, "x", condition=condition)
    for gigabytes in (None, 0.0):
        loader = BatchLoader.for_dataset(dataset, 6, 0, CPU, gigabytes)
        batch = loader.batch(1)
        rows = loader.index(1)
        assert len(batch.tensors) == 1 + len(named(condition))
        for name, part in named(condition).items():
            torch.testing.assert_close(named(batch.condition)[name], seen(part[rows]), rtol=0, atol=1e-7)
        (_, second, _) = batch.parts(3)
        for name, part in named(condition).items():
            torch.testing.assert_close(named(second.condition)[name], seen(part[rows[2:4]]), rtol=0, atol=1e-7)
            named(batch.condition)[name].zero_()
        loader.close()
    for name, part in named(typed_data.conditions(kind, 20, 0)).items():
        assert torch.equal(named(condition)[name], part)  # what was zeroed is not the data set's


def test_a_spec_says_what_each_condition_is() -> None:
    data = typed_data.values("table", "uint8", 20, 0)
    several = image_spec(ImageDataset(data, "x", condition=typed_data.conditions("labels+attributes+deep", 20, 0)))
    assert (several.classes, several.condition_shape) == (None, None)
    assert several.conditions == {
        "labels": ConditionSpec((), "int64", 4),
        "attributes": ConditionSpec((2,), "float32"),
        "deep": ConditionSpec((1, 4, 4), "uint16"),
    }
    one = image_spec(ImageDataset(data, "x", condition=typed_data.conditions("attributes", 20, 0)))
    assert (one.classes, one.condition_shape, one.condition_dtype, one.conditions) == (None, (2,), "float32", {})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "labels"])
def test_samples_are_drawn_for_entries_of_the_data(kind: str) -> None:
    """Several conditions are those of one entry, and are stored as they were."""
    condition = typed_data.conditions(kind, 20, 0)
    sampler = ConditionSampler.of(ImageDataset(typed_data.values("table", "uint8", 20, 0), "x", condition=condition))
    drawn = sampler.drawn(50, torch.Generator().manual_seed(0))
    stored = sampler.as_stored(drawn)
    rows = torch.randint(20, (50,), generator=torch.Generator().manual_seed(0))
    for name, part in named(condition).items():
        torch.testing.assert_close(named(drawn)[name], seen(part[rows]), rtol=0, atol=1e-7)
        assert torch.equal(named(stored)[name], part[rows])
    assert sampler.rows(16) is None
    if "+" in kind:
        chosen = sampler.of_class(2).drawn(30, torch.Generator().manual_seed(0))
        assert chosen["labels"].tolist() == [2] * 30
        known = {
            tuple(row) for row in seen(condition[kind.split("+")[1]])[condition["labels"] == 2].flatten(1).tolist()
        }
        assert {tuple(row) for row in chosen[kind.split("+")[1]].flatten(1).tolist()} <= known


def test_a_network_that_uses_one_of_several_is_found() -> None:
    class Uses(torch.nn.Linear):
        def forward(self, z: Tensor, condition: Any = None) -> Tensor:  # type: ignore[override]
            out = super().forward(z)
            return out + condition["b"].float()[:, None] if self.out_features > 1 else out

    given = {name: torch.arange(3).as_subclass(TaggedCondition) for name in ("a", "b")}
    for size, expected in ((2, True), (1, False)):
        network, noted = Uses(2, size), list[bool]()
        note_condition(network, lambda noted=noted: noted.append(True))
        network(torch.zeros(3, 2), given)
        assert bool(noted) == expected


def test_a_penalty_generates_for_the_first_of_several() -> None:
    condition = {"a": torch.arange(4), "b": torch.arange(8.0).view(4, 2)}
    asked = []

    class G(torch.nn.Module):
        def forward(self, z: Tensor, condition: Any) -> Tensor:
            asked.append(condition)
            return z

    images = {"real": torch.zeros(4, 2), "fake": torch.zeros(4, 2), "real_logits": None, "fake_logits": None}
    step = Step("generator", generator=G(), condition=condition, images_seen=torch.zeros(()), **images)
    step.generate(torch.zeros(2, 2))
    assert (asked[0]["a"].tolist(), asked[0]["b"].tolist()) == ([0, 1], [[0, 1], [2, 3]])


@pytest.mark.parametrize("kind", spread(1, ["labels+attributes", "attributes", "labels+attributes+deep"]))
def test_a_run_goes_through(kind: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path) -> None:
    """Trained, resumed, sampled with its conditions, scored; also class by class where labels are one of them."""
    table = conditional(table, kind)
    table["metric"] = [{"name": "fid", "samples": 32, "features": "pixels"}]
    table["train"] |= {"accumulate": 2}
    file = write(table)
    code, _, err = ganlab("run", file, "--out", "whole")
    assert (code, err) == (0, "")
    assert ganlab("run", file, "--out", "half", "--set", "train.steps=2")[0] == 0
    assert ganlab("run", file, "--out", "half", "--resume")[0] == 0
    mine, other = (
        load_checkpoint(list(list_checkpoints(Path(run) / "checkpoints").values())[-1]) for run in ("whole", "half")
    )
    for part in ("generator", "discriminator"):
        assert all(torch.equal(value, other[part][name]) for name, value in mine[part].items())
    condition = typed_data.conditions(kind, 64, 0)
    info = read_info(Path("whole"))
    assert info["condition"] == ("several" if "+" in kind else "attributes")
    whole = {f"condition.{name}" if name else "condition": part for name, part in named(condition).items()}
    assert info["dataset"]["condition_sha256"] == tensors_sha256(whole)
    run = load_run("whole")
    images, drawn = run.sample_with_condition(20, seed=3)
    assert not torch.equal(run.sample(20, seed=4), images)
    assert ganlab("sample", "whole", "--count", 20, "--seed", 3, "--out", "s.npz")[0] == 0
    stored, given = read_npz(Path("s.npz"), (3,), "float32")
    assert torch.equal(stored, images)
    for name, part in named(given).items():
        torch.testing.assert_close(seen(part), named(drawn)[name], rtol=0, atol=1e-7)
        entries = {tuple(row) for row in named(condition)[name].double().view(64, -1).tolist()}
        assert {tuple(row) for row in part.double().view(20, -1).tolist()} <= entries
        assert part.dtype == named(condition)[name].dtype
    code, _, err = ganlab("sample", "whole", "--count", 6, "--out", "s.csv")
    if "deep" in kind:
        assert (code, "cannot hold 'condition.deep' (4, 4, 1)" in err) == (2, True)
    else:
        first = Path("s.csv").read_text().splitlines()[0]
        assert first == ("x1,x2,x3,labels,attributes1,attributes2" if "+" in kind else "x1,x2,x3,condition1,condition2")
    code, _, err = ganlab("sample", "whole", "--count", 6, "--label", 2, "--out", "two.npz")
    if "+" not in kind:
        assert (code, "the networks of this run know no classes" in err) == (2, True)
        return
    _, given = read_npz(Path("two.npz"), (3,), "float32")
    assert given["labels"].tolist() == [2] * 6
    assert ganlab("sample", "whole", "--count", 6, "--out", "s.png")[0] == 0
    assert ganlab("eval", "whole", "--per-class")[0] == 0
    names = [record["name"] for record in read_records(Path("whole/metrics.jsonl"))][-5:]
    assert names == [f"fid[{label}]" for label in (*range(4), "mean")]


def test_pictures_of_several_conditions_lie_in_folders_of_their_class(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    table = conditional(table, "labels+picture")
    table["dataset"] |= {"form": "images", "dtype": "uint16"}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert ganlab("sample", "r", "--count", 12, "--out", "s", "--by-class")[0] == 0
    found = sorted(Path("s").glob("*/*.png"))
    _, drawn = load_run("r").sample_with_condition(12)
    assert sorted((int(file.stem), int(file.parent.name)) for file in found) == list(
        enumerate(drawn["labels"].tolist())
    )
    with Image.open(found[0]) as picture:
        assert np.asarray(picture).dtype == np.uint16


def test_networks_of_labels_alone_refuse_other_conditions(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    for kind, has in (
        ("attributes", "conditions that are float32 (N, 2)"),
        ("labels+attributes", "several conditions: labels, attributes"),
    ):
        own = conditional(table, kind) | {"generator": {"name": "mlp", "hidden": [8]}}
        code, _, err = ganlab(
            "run", write(own | {"discriminator": {"name": "mlp", "head": "projection"}}), "--out", "r"
        )
        assert (code, len(err.splitlines())) == (2, 1)
        assert f'discriminator: head = "projection" needs class labels, and the data set has {has}' in err
        wrapped = {"generator": {"name": "conditional", "network": {"name": "mlp"}}}
        code, _, err = ganlab("run", write(conditional(table, kind) | wrapped), "--out", "r")
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"generator: a conditional generator needs class labels, and the data set has {has}" in err


def test_an_evaluation_has_the_conditions_of_its_images(tmp_path: Path) -> None:
    dataset = typed_data.Typed("table", "float32", "labels+deep").build(None, "train")  # type: ignore[arg-type]
    places = Places(tmp_path, tmp_path)
    evaluator = Evaluator(typed_data.Typed("table", "float32", "labels+deep"), dataset, places, CPU)
    runner = evaluator.for_images(dataset.images, dataset.condition)
    ((images, given),) = runner.evaluation(lambda *_: None).conditioned(64, 0)
    assert torch.equal(images, dataset.images)
    assert torch.equal(given["labels"], dataset.condition["labels"])
    torch.testing.assert_close(given["deep"], seen(dataset.condition["deep"]), rtol=0, atol=1e-7)


def test_a_spec_of_no_condition_is_as_before() -> None:
    assert image_spec(ImageDataset(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "x")) == ImageSpec(1, 4, 4)
    with pytest.raises(ComponentError, match="condition 'a': 3 entries for 2 images"):
        ImageDataset(torch.zeros(2, 3), "x", condition={"a": torch.zeros(3, 1)})
