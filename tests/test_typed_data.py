"""Data of every type and shape, from the data set to samples and scores, held against formulas and a loop by hand."""

from __future__ import annotations

import copy
import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import softplus

import typed_data
from ganlab import ComponentError, Evaluation, ImageDataset, ImageSpec, MappedImages, Places, as_stored, load_run
from ganlab.config.load import convert_experiment
from ganlab.data.dataset import image_spec
from ganlab.data.loader import BatchLoader
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import ConditionSpec
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.testing import check
from ganlab.training.build import build
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.training.loop import take_step
from ganlab.utils.rng import derived_seed, seed_everything
from ganlab_plugins.features.pixels import Pixels
from ganlab_plugins.metrics.fid import FID
from ganlab_plugins.networks.dcgan import DCGANGenerator
from ganlab_plugins.networks.mlp import MLPGenerator
from stubs import CPU
from test_distributed import forked
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

FORMS = [("images", "uint16"), ("images", "float32"), ("table", "float32"), ("signals", "float32"), ("table", "uint8")]


def typed(table: dict[str, Any], form: str, dtype: str, **options: Any) -> dict[str, Any]:
    """A small experiment on data of a form and type, with dropout, an average and a score of the raw values."""
    table |= {"plugins": [typed_data.__file__], "dataset": {"name": "typed", "form": form, "dtype": dtype, **options}}
    table["metric"] = [{"name": "fid", "samples": 32, "features": "pixels"}]
    table["train"] |= {"ema": 0.9}
    return table


def as_float(data: torch.Tensor) -> torch.Tensor:
    """What networks see of data, by the formulas of the documentation, in float64."""
    half = {torch.uint8: 127.5, torch.uint16: 32767.5}.get(data.dtype)
    return data.double() if half is None else data.double() / half - 1


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_batches_are_the_data_by_their_formula(form: str, dtype: str, tmp_path: Path) -> None:
    """Resident, prefetched and mapped; a batch that is changed in place leaves the data as they are."""
    data = typed_data.values(form, dtype, 20, 0)
    np.save(tmp_path / "x.npy", data.numpy())
    mapped = MappedImages.open(tmp_path / "x.npy")
    assert mapped.dtype == data.dtype
    assert torch.equal(mapped[3:7].clone(), data[3:7])
    whole = ImageDataset(data.clone(), "x")
    assert ImageDataset(mapped, "x").fingerprint == whole.fingerprint == ImageDataset(mapped[:], "x").fingerprint
    kinds = [(whole, None), (whole, 0.0), (ImageDataset(mapped, "x"), None), (ImageDataset(mapped, "x"), 0.0)]
    for dataset, gigabytes in kinds:
        loader = BatchLoader.for_dataset(dataset, 6, 0, CPU, gigabytes)
        for number in (0, 1, 4, 2):
            batch = loader.batch(number).images
            assert batch.dtype == torch.float32
            wanted = data[loader.index(number)]
            if dtype == "float32":
                assert torch.equal(batch, wanted)
            else:
                assert (batch.double() - as_float(wanted)).abs().max() < 2**-23
            batch.zero_()
        loader.close()
    assert torch.equal(whole.images, data)
    other = BatchLoader.for_dataset(ImageDataset(mapped[::2], "x"), 5, 0, CPU, 0.0)
    assert (other.batch(1).images.double() - as_float(data[::2][other.index(1)])).abs().max() < 2**-23
    other.close()


def test_levels_are_stored_as_they_were() -> None:
    for dtype, count in ((torch.uint8, 256), (torch.uint16, 65536)):
        levels = torch.arange(count, dtype=torch.int32).to(dtype)
        name = str(dtype).removeprefix("torch.")
        seen = BatchLoader(levels[:, None], count, 0, CPU).batch(0).images
        assert (seen.min(), seen.max()) == (-1, 1)
        back = as_stored(seen, name)
        assert torch.equal(back.int().sort(0).values, levels[:, None].int())
        half = 1 / (count - 1)
        assert as_stored(torch.tensor([-2.0, -1 + 0.9 * half, -1 + 1.1 * half, 7.0]), name).tolist() == [
            *(0, 0, 1, count - 1)
        ]
    values = torch.tensor([-1e9, 0.3, float("inf")])
    assert torch.equal(as_stored(values, "float32"), values)
    with pytest.raises(TypeError, match="to_uint16 converts float pixels"):
        as_stored(torch.arange(3), "uint16")


def test_a_fingerprint_has_the_type_but_of_bytes() -> None:
    data = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    plain = hashlib.sha256(b"(2, 3, 2, 2)" + data.numpy().tobytes()).hexdigest()
    assert ImageDataset(data, "x").fingerprint == plain
    floats = data.view(2, 12).view(torch.float32)
    assert (
        ImageDataset(floats, "x").fingerprint == hashlib.sha256(b"float32 (2, 3)" + data.numpy().tobytes()).hexdigest()
    )
    deep = data.view(2, 12).view(torch.uint16)
    assert ImageDataset(deep, "x").fingerprint == hashlib.sha256(b"uint16 (2, 6)" + data.numpy().tobytes()).hexdigest()


def test_a_spec_says_what_the_data_are() -> None:
    table = ImageDataset(torch.tensor([[1.0, -2.0], [0.5, 8.0]]), "x", condition=torch.tensor([[1.0], [2.0]]))
    spec = image_spec(table)
    assert (spec.shape, spec.size, spec.dtype, spec.range) == ((2,), 2, "float32", (-2.0, 8.0))
    assert (spec.classes, spec.condition_shape, spec.condition_dtype) == (None, (1,), "float32")
    with pytest.raises(ComponentError, match=r"for images \(C, H, W\).* the channels; .* a table, float32 \(N, 2\)"):
        spec.channels  # noqa: B018
    signals = ImageSpec.of((3, 64), "uint16", classes=5)
    assert signals.channels == 3
    with pytest.raises(ComponentError, match=r"asks the height; the data set has signals, uint16 \(N, 3, 64\)"):
        signals.height  # noqa: B018
    several = ImageSpec.of(
        (2,), conditions={"a": ConditionSpec((), "int64", 3), "b": ConditionSpec((1, 2, 2), "uint8")}
    )
    for one in (
        spec,
        signals,
        several,
        ImageSpec(1, 8, 8),
        ImageSpec(1, 8, 8, 10),
        ImageSpec(3, 8, 8, None, (1, 4, 4)),
    ):
        assert ImageSpec.recorded(one.record()) == one == copy.deepcopy(one)
    assert hash(ImageSpec(1, 8, 8, 10)) == hash(ImageSpec.of((1, 8, 8), classes=10))
    assert ImageSpec(1, 8, 8) != ImageSpec(1, 8, 8, dtype="uint16")
    usual = {"channels": 1, "height": 8, "width": 8, "classes": 10, "condition_shape": None}
    assert ImageSpec(1, 8, 8, 10).record() == usual  # as earlier releases wrote it


def test_float_data_reach_the_step_unchanged(table: dict[str, Any]) -> None:
    """Three steps of `gan` on a table of values near 100 are those of a loop by hand, to the bit."""
    table = typed(table, "table", "float32")
    table |= {"generator": {"name": "mlp", "latent_dim": 5, "hidden": [7]}, "metric": []}
    table |= {"discriminator": {"name": "mlp", "hidden": [6]}, "optimizer": {"name": "sgd", "lr": 1e-4}}
    plugins = load_plugins([Path(typed_data.__file__)])
    experiment = convert_experiment({key: value for key, value in table.items() if key != "plugins"}, plugins)
    training = build(experiment, plugins.registry, Places(Path("d"), Path("c")), CPU)
    g, d = (copy.deepcopy(training.game.networks[name]) for name in ("generator", "discriminator"))
    steps = [torch.optim.SGD(network.parameters(), 1e-4) for network in (g, d)]
    data, size = typed_data.values("table", "float32", 64, 0), 16
    order = torch.randperm(64, generator=torch.Generator().manual_seed(derived_seed(experiment.seed, "order", 0)))

    def update(network: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward(inputs=list(network.parameters()))
        optimizer.step()

    seed_everything(derived_seed(experiment.seed, "training"))
    for step in range(3):
        real = data[order[step * size : (step + 1) * size]]
        with torch.no_grad():
            fake = g(torch.randn(size, 5))
        on_real, on_fake = d(torch.cat([real, fake])).split(size)
        update(d, steps[1], softplus(-on_real).mean() + softplus(on_fake).mean())
        update(g, steps[0], softplus(-d(g(torch.randn(size, 5)))).mean())
    seed_everything(derived_seed(experiment.seed, "training"))
    for step in range(3):
        take_step(training, step)
    for name, network in (("generator", g), ("discriminator", d)):
        for key, value in network.state_dict().items():
            assert torch.equal(training.game.networks[name].state_dict()[key], value)
    assert not torch.equal(g.state_dict()["layers.0.weight"], MLPGenerator().build(ImageSpec(1, 1, 1)).layers[0].weight)


def state(run: str) -> dict[str, Any]:
    return load_checkpoint(list(list_checkpoints(Path(run) / "checkpoints").values())[-1])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize(("form", "dtype"), spread(2, FORMS))
def test_a_run_goes_through(
    form: str, dtype: str, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """Trained, resumed to the bit, sampled, scored again, reported; samples score as the run does."""
    table = typed(table, form, dtype, condition="labels" if form == "table" else "")
    file = write(table)
    assert ganlab("run", file, "--dry-run")[0] == 0
    code, _, err = ganlab("run", file, "--out", "whole")
    assert (code, err) == (0, "")
    assert ganlab("run", file, "--out", "half", "--set", "train.steps=2")[0] == 0
    assert ganlab("run", file, "--out", "half", "--resume")[0] == 0
    mine, other = state("whole"), state("half")
    assert [part for part in mine if part != "progress" and not same(mine[part], other[part])] == []
    (picture,) = Path("whole/samples").glob("*4.png")
    with Image.open(picture) as opened:
        assert opened.size[0] > 60
    run = load_run("whole")
    images = run.sample(40, seed=3)
    assert tuple(images.shape) == (40, *typed_data.SHAPES[form])
    assert images.dtype == getattr(torch, dtype)
    if dtype == "float32":
        with torch.no_grad():
            made = run.generator(
                torch.randn(128, 8, generator=torch.Generator().manual_seed(derived_seed(3, "samples")))
            )
        assert torch.equal(images, made[:40])
        low, high = read_info(Path("whole"))["images"]["range"]
        assert (low, high) == tuple(typed_data.values(form, dtype, 64, 0).aminmax())
    code, out, _ = ganlab("sample", "whole", "--count", 32, "--seed", 3, "--out", "s.npz")
    nouns = {"images": "images", "signals": "signals", "table": "rows"}
    assert (code, out.split(" from ")[0]) == (0, f"32 {nouns[form]}")
    with np.load("s.npz") as arrays:
        stored = torch.from_numpy(arrays["images"])
    stored = stored.permute(0, 3, 1, 2) if form == "images" else stored
    assert torch.equal(stored, images[:32])
    assert ganlab("sample", "whole", "--count", 9, "--out", "s.png")[0] == 0
    code, _, err = ganlab("sample", "whole", "--count", 9, "--out", "s")
    if (form, dtype) == ("images", "uint16"):
        with Image.open(sorted(Path("s").glob("*.png"))[2]) as picture:
            pixels = np.asarray(picture)
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels, run.sample(9)[2, 0].numpy())
    else:
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "use FILE.npz" in err
    code, _, err = ganlab("sample", "whole", "--count", 9, "--seed", 3, "--out", "s.csv")
    if form == "table":
        with open("s.csv", newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert torch.equal(torch.tensor([float(row["x2"]) for row in rows], dtype=images.dtype), images[:9, 1])
        assert len(rows) == 9
    else:
        assert (code, "holds rows of a table" in err) == (2, True)
    assert ganlab("eval", "whole")[0] == 0
    assert ganlab("report", "whole", "--html", "page.html")[0] == 0
    records = read_records(Path("whole/metrics.jsonl"))
    assert records[-1]["value"] == records[-2]["value"] > records[-1]["floor"]["value"]
    assert records[-1]["protocol"]["images"] == (dtype if dtype == "float32" else f"{dtype}, rounded")
    given = ("--against", "typed", "--plugin", typed_data.__file__, "--features", "pixels")
    options = ("--set", f"dataset.form={form}", "--set", f"dataset.dtype={dtype}")
    assert ganlab("score", "s.npz", *given, *options)[0] == 0


def test_scores_of_raw_values_are_closed_forms(tmp_path: Path) -> None:
    """FID of values with exact moments is |m - n|^2 + the sum of (s - t)^2 for diagonal covariances."""

    def exact(seed: int, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        rows = torch.randn(400, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rows -= rows.mean(0)
        white = rows @ torch.linalg.inv(torch.linalg.cholesky(rows.T.cov(correction=1))).T
        return (mean + white * deviation).float()

    m, s = torch.tensor([100.0, -3.0, 0.5]).double(), torch.tensor([10.0, 2.0, 1e-2]).double()
    n, t = torch.tensor([90.0, 5.0, 0.0]).double(), torch.tensor([4.0, 3.0, 2e-2]).double()
    reference, made = exact(0, m, s), exact(1, n, t)
    wanted = float((m - n).square().sum() + (s - t).square().sum())
    for shape in ((3,), (1, 3), (3, 1, 1)):
        evaluation = Evaluation(
            generated=lambda count, seed, shape=shape: iter(made.view(-1, *shape).split(64)),
            dataset=lambda split, shape=shape: ImageDataset(reference.view(-1, *shape), "x", split),
            device=CPU,
            places=Places(tmp_path, tmp_path),
            progress=lambda what, done, total: None,
        )
        scores = FID(samples=400, features=Pixels()).evaluate(evaluation)
        assert scores.values["fid"] == pytest.approx(wanted, rel=1e-5)
        assert scores.protocol["images"] == "float32"


def test_what_a_metric_cannot_take_is_refused_before_training(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    table = typed(table, "signals", "float32")
    table["metric"] = [{"name": "fid", "features": "inception"}, {"name": "inception_score"}, *table["metric"]]
    file = write(table)
    for more in (("--dry-run",), ("--out", "r")):
        code, _, err = ganlab("run", file, *more)
        assert code == 2
        wanted = "takes uint8 images (N, C, H, W); the data set 'typed' has signals, float32 (N, 2, 24)"
        assert [line.partition("tiny.toml: ")[2] for line in err.splitlines()] == [
            f"metric[0]: fid with the features 'inception' {wanted}",
            f"metric[1]: inception_score with the features 'inception' {wanted}",
        ]
        assert not Path("r").exists()
    assert ganlab("run", file, "--out", "r", "--set", "metric=[]")[0] == 0
    code, _, err = ganlab("eval", "r", "--metric", "inception_score")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"inception_score with the features 'inception' {wanted}" in err


def test_networks_of_images_refuse_other_data(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table = typed(table, "table", "float32")
    for generator, line in (
        (
            {"name": "dcgan"},
            "generator: is for images (C, H, W), of which it asks the height; the data set has rows of a",
        ),
        ({"name": "mlp", "output": "tanh"}, "makes values in [-1, 1], and the data set's are from"),
    ):
        code, _, err = ganlab("run", write(table | {"generator": generator}), "--out", "r")
        assert (code, len(err.splitlines())) == (2, 1)
        assert line in err
    code, _, err = ganlab("bench", write(table), "--seconds", 1)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "dataset: ganlab bench has hand-written loops of uint8 images with one condition; got rows of a table" in err
    for name in ("flip", "diffaugment", "ada"):
        code, _, err = ganlab("run", write(table | {"augmentation": [name]}), "--out", "r")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "is of images (N, C, H, W); got data (N, 3)" in err
    code, _, err = ganlab("run", write(typed(table, "images", "float32") | {"augmentation": ["ada"]}), "--out", "r")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "augmentation[0]: ada is of pixels in [-1, 1]; the data set 'typed' has values from " in err
    with pytest.raises(ComponentError, match=r"dcgan makes values in \[-1, 1\], and the data set's are from 0 to 3"):
        DCGANGenerator().build(ImageSpec(1, 16, 16, dtype="float32", range=(0, 3)))
    DCGANGenerator(channels=1).build(ImageSpec(1, 16, 16, dtype="float32", range=(-1, 0.5)))


@pytest.mark.parametrize(
    ("form", "dtype", "condition"),
    spread(1, [("table", "float32", "labels+attributes"), ("signals", "uint16", "labels"), ("colour", "uint16", "")]),
)
def test_the_suite_checks_data_of_any_type(form: str, dtype: str, condition: str, quick_timing: None) -> None:
    found = check(typed_data.Typed(form, dtype, condition), "dataset")
    assert [(each.what, each.detail) for each in found if not each.passed] == []


@pytest.mark.extended
@pytest.mark.torchrun
def test_two_processes_train_what_one_does(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    table = typed(table, "table", "float32", condition="labels+attributes")
    table |= {"generator": "uses_all", "discriminator": "uses_all", "optimizer": {"name": "sgd", "lr": 1e-5}}
    file = write(table)
    assert ganlab("run", file, "--out", "one")[0] == 0
    forked(2, tmp_path, "run", file, "--out", "two")
    one, two = state("one"), state("two")
    for part in ("generator", "discriminator"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-5, atol=1e-6)
    (_, mine), (_, other) = (read_records(Path(run) / "metrics.jsonl") for run in ("one", "two"))
    assert other["value"] == pytest.approx(mine["value"], rel=1e-4)
