"""The experiment files, run: the quick start to its end, the others for some steps, on real images where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlab.run.records import read_records
from support import REPOSITORY

Command = Callable[..., tuple[int, str, str]]
EXPERIMENTS = REPOSITORY / "experiments"


@pytest.mark.extended
@pytest.mark.large
def test_the_quick_start_learns_digits(ganlab: Command) -> None:
    """In `.ci/run` it is the run of the README's first command."""
    run = Path(os.environ.get("QUICK_START", "r"))
    if "QUICK_START" not in os.environ:
        code, _, err = ganlab("run", EXPERIMENTS / "digits_mlp.toml", "--out", "r")
        assert code == 0, err
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    fids = {record["step"]: record["value"] for record in read_records(run / "metrics.jsonl")}
    assert list(fids) == [0, 2000, 4000, 6000], "before, during and after"
    assert fids[0] > 10 * fids[6000]
    last = read_records(run / "log.jsonl")[-1]
    assert 0.4 < last["d_fake"] < last["d_real"] < 0.7, "neither player has won"


def celeba_shaped(folder: Path, count: int) -> None:
    """Aligned faces' size and layout, with noise for faces: every tenth image is in the test split."""
    images = folder / "celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(1, count + 1):
        pixels = random.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number:06}.jpg")
    lines = [f"{number:06}.jpg {2 if number % 10 == 0 else 0}\n" for number in range(1, count + 1)]
    (folder / "celeba" / "list_eval_partition.txt").write_text("".join(lines))


def test_celeba_on_a_folder_of_its_shape(ganlab: Command, tmp_path: Path) -> None:
    celeba_shaped(tmp_path / "data", 40)
    small = ["--set", "train.batch_size=8", "--set", "train.steps=2", "--set", "metric=[]"]
    channels = ["--set", "generator.channels=8", "--set", "discriminator.channels=8"]
    code, _, err = ganlab("run", EXPERIMENTS / "celeba_dcgan_l2.toml", *small, *channels, "--out", "r")
    assert code == 0, err
    info = json.loads(Path("r/run.json").read_text())
    assert info["images"] == {"channels": 3, "height": 64, "width": 64, "classes": None, "condition_shape": None}
    assert info["dataset"]["count"] == 36
    (record,) = read_records(Path("r/log.jsonl"))
    assert record["images_seen"] == 2 * 2 * 8, "two discriminator updates a step"
    assert record["penalty_l2_generator"] > 0
    with Image.open("r/samples/step-00000002.png") as grid:
        assert grid.mode == "RGB"
        assert grid.size == (8 * 66 + 2, 8 * 66 + 2)


@pytest.mark.parametrize("name", ["cifar_dcgan", "folder_dcgan"])
@pytest.mark.filterwarnings("ignore:cifar10. the original:UserWarning")
def test_the_real_photographs(name: str, ganlab: Command, real_data: Path) -> None:
    if not (real_data / "cifar10-jpeg").is_dir():
        pytest.skip("GANLAB_DATA has no cifar10-jpeg")
    settings = ["--set", "train.steps=2", "--set", "metric=[]"]
    code, _, err = ganlab("run", EXPERIMENTS / f"{name}.toml", *settings, "--out", "r")
    assert code == 0, err
    info = json.loads(Path("r/run.json").read_text())
    assert info["dataset"]["count"] == 50_000
    assert info["images"]["height"] == 32
    assert info["images"]["classes"] == 10


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_mlp_long", "mnist_dcgan", "mnist_dcgan_stable"])
def test_mnist(name: str, ganlab: Command, real_data: Path) -> None:
    settings = ["--set", "train.steps=2", "--set", "metric=[]"]
    assert ganlab("run", EXPERIMENTS / f"{name}.toml", *settings, "--out", "r")[0] == 0
    (record,) = read_records(Path("r/log.jsonl"))
    assert all(np.isfinite(value) for value in record.values())


@pytest.mark.parametrize("name", ["ring_mlp", "grid_mlp"])
def test_points_in_the_plane(name: str, ganlab: Command) -> None:
    settings = ["train.steps=2", "metric.0.samples=100", "metric.1.samples=100"]
    path = EXPERIMENTS / f"{name}.toml"
    code, _, err = ganlab("run", path, *(part for setting in settings for part in ("--set", setting)), "--out", "r")
    assert code == 0, err
    records = read_records(Path("r/metrics.jsonl"))
    assert [record["name"] for record in records] == ["modes", "mode_kl", "high_quality", "fid"] * 2
    for record in records:
        assert record["protocol"]["features"]["name"] == "pixels"
    assert records[0]["protocol"]["classes"] == {"ring_mlp": 8, "grid_mlp": 25}[name]
    assert records[0]["protocol"]["reference"]["high_quality"] == pytest.approx(0.989, abs=0.002)


@pytest.mark.parametrize("name", ["stacked_mnist_dcgan", "stacked_mnist_pacgan"])
def test_stacked_mnist(name: str, ganlab: Command, real_data: Path) -> None:
    if not (real_data / "MNIST" / "raw").is_dir():
        pytest.skip("GANLAB_DATA has no MNIST")
    settings = ["train.epochs=1", "train.batch_size=1000", "dataset.count=2000", "metric=[]"]
    path = EXPERIMENTS / f"{name}.toml"
    code, _, err = ganlab("run", path, *(part for setting in settings for part in ("--set", setting)), "--out", "r")
    assert code == 0, err
    info = json.loads(Path("r/run.json").read_text())
    assert info["images"]["channels"] == 3
    assert info["dataset"]["name"] == "stacked_mnist"


@pytest.mark.parametrize("size", [64, 128])
def test_other_sizes_by_set(size: int, ganlab: Command) -> None:
    """One key makes an experiment larger; here on digits, which need no download."""
    path = EXPERIMENTS / "cifar_dcgan.toml"
    settings = ["dataset={name='digits'}", f"dataset.size={size}", "train.steps=1", "train.batch_size=4", "metric=[]"]
    settings += ["generator.channels=4", "discriminator.channels=4", "train.sample_count=4"]
    code, _, err = ganlab("run", path, *(part for setting in settings for part in ("--set", setting)), "--out", "r")
    assert code == 0, err
    with Image.open("r/samples/step-00000001.png") as grid:
        assert grid.size == (2 * (size + 2) + 2, 2 * (size + 2) + 2)


SMALL = {
    "cifar_lsgan": ["generator.channels=4", "discriminator.channels=4"],
    "cifar_cgan": ["generator.network.channels=4", "discriminator.network.channels=4"],
    "cifar_acgan": ["generator.network.channels=4", "discriminator.channels=4"],
    "cifar_sngan": ["generator.channels=8", "discriminator.channels=8"],
    "cifar_wgan_gp": ["generator.channels=8", "discriminator.channels=8"],
    "cifar_projection": ["generator.channels=8", "discriminator.channels=8"],
    "cifar_r3gan": ["generator.widths=[16,16,16,16]", "discriminator.widths=[16,16,16,16]"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["cifar_acgan", *(pytest.param(name, marks=pytest.mark.extended) for name in SMALL if name != "cifar_acgan")],
)
def test_the_zoo_on_cifar(name: str, ganlab: Command) -> None:
    """Each recipe but for its widths and its batch; on digits, which have classes too and need no download."""
    path = EXPERIMENTS / f"{name}.toml"
    settings = [*SMALL[name], "dataset={name='digits'}", "dataset.size=32", "train.steps=2", "train.batch_size=10"]
    settings += ["train.sample_count=20", "train.log_every=1", "metric=[]"]
    code, _, err = ganlab("run", path, *(part for setting in settings for part in ("--set", setting)), "--out", "r")
    assert code == 0, err
    records = read_records(Path("r/log.jsonl"))
    assert len(records) == 2
    assert all(np.isfinite(value) for record in records for key, value in record.items() if key != "alarms")
    with_classes = name in ("cifar_cgan", "cifar_acgan", "cifar_projection")
    assert (json.loads(Path("r/run.json").read_text())["condition"] is not None) == with_classes
    with Image.open("r/samples/step-00000002.png") as grid:
        columns, rows = (2, 10) if with_classes else (5, 4)  # a row for each of ten classes
        assert (grid.width - 2) * rows == (grid.height - 2) * columns


TRANSLATIONS = [
    *("photographs_superresolution", "glyphs_pix2pix", "glyphs_cyclegan", "glyphs_cut"),
    *("photographs_colour", "photographs_inpainting"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [TRANSLATIONS[0], *(pytest.param(name, marks=pytest.mark.extended) for name in TRANSLATIONS[1:])]
)
def test_translations_offline(name: str, ganlab: Command) -> None:
    """Each recipe but for its channels and its batch, scored against the targets of the test split."""
    settings = ["train.steps=2", "train.batch_size=4", "train.log_every=1", "train.sample_count=4", "floor=false"]
    settings += ["generator.channels=4", "discriminator.channels=4"]
    settings += ["metric.2.features.updates=2"] if name == "glyphs_pix2pix" else []
    settings += ["dataset.dataset.stride=16"] if name.startswith("photographs") else []
    path = EXPERIMENTS / f"{name}.toml"
    code, _, err = ganlab("run", path, *(part for setting in settings for part in ("--set", setting)), "--out", "r")
    assert code == 0, err
    records = read_records(Path("r/log.jsonl"))
    assert len(records) == 2
    assert all(np.isfinite(value) for record in records for key, value in record.items() if key != "alarms")
    scores = read_records(Path("r/metrics.jsonl"))
    assert {score["name"] for score in scores} == {"psnr", "ssim"} | ({"output_fid"} if "pix2pix" in name else set())
    assert all(score["protocol"]["reference"]["split"] == "test" for score in scores)
    assert Path("r/samples/step-00000002.png").is_file()


@pytest.mark.extended
@pytest.mark.slow
def test_translations_of_folders(ganlab: Command, tmp_path: Path) -> None:
    """Each recipe on folders of the form that its header says, and a folder through the trained run, both ways."""
    random = np.random.default_rng(0)
    for split, (kind, letter) in product(("train", "test"), (("images", "B"), ("conditions", "A"))):
        for folder in (f"pairs/{split}/{kind}", f"unpaired/{split}{letter}"):
            (tmp_path / "data" / folder).mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{number}.png")
    small = ["train.epochs=1", "train.sample_count=2", "floor=false", "train.log_every=1"]
    small += ["generator.channels=4", "discriminator.channels=4"]
    for name, ways, more in (("folder_pix2pix", [""], []), ("folder_cyclegan", ["", "a"], ["schedule.0.start=1"])):
        settings = [part for setting in [*small, *more] for part in ("--set", setting)]
        code, _, err = ganlab("run", EXPERIMENTS / f"{name}.toml", *settings, "--out", name)
        assert code == 0, err
        assert len(read_records(Path(name, "log.jsonl"))) == 3, "a step for each image"
        for to in ways:
            direction = ["--to", to] if to else []
            given, out = tmp_path / "data" / "unpaired" / "testA", Path(f"{name}_{to}")
            assert ganlab("translate", name, given, *direction, "--out", out)[0] == 0
            assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "2.png"]
            with Image.open(out / "0.png") as picture:
                assert picture.size == (40, 40)


CODES = ["digits_vae_gan", "mnist_aae", "mnist_bigan", "mnist_infogan"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [CODES[0], *(pytest.param(name, marks=pytest.mark.extended) for name in CODES[1:])])
def test_games_with_codes(name: str, ganlab: Command) -> None:
    """Each recipe but for its steps and its batch, on digits, which need no download, with one of its metrics."""
    metric = "code_accuracy" if name == "mnist_infogan" else "reconstruction_error"
    settings = ["train={steps=2, batch_size=4, log_every=1, sample_count=4}", f"metric=[{{name='{metric}'}}]"]
    settings += ["dataset={name='digits', size=16}"] if name == "mnist_infogan" else ["dataset={name='digits'}"]
    path = EXPERIMENTS / f"{name}.toml"
    code, _, err = ganlab("run", path, *(part for setting in settings for part in ("--set", setting)), "--out", "r")
    assert code == 0, err
    records = read_records(Path("r/log.jsonl"))
    assert len(records) == 2
    assert all(np.isfinite(value) for record in records for key, value in record.items() if key != "alarms")
    scores = read_records(Path("r/metrics.jsonl"))
    assert {score["name"] for score in scores} == {metric}
    assert all(score["protocol"]["reference"]["split"] == "test" for score in scores)
    assert Path("r/samples/step-00000002.png").is_file()
