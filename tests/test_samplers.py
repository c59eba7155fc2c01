"""Further samplers of a game, pairs in sample grids, options of samplers: held against the networks called by hand."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import quick_plots
from ganlab import UserError, load_run, to_float, to_uint8
from ganlab.cli import main
from ganlab.config.overrides import parse_options
from ganlab.run.records import read_records
from ganlab.run.run_folder import read_info
from ganlab.utils.from_python import command_running
from ganlab.utils.paths import places
from ganlab.viz import plots
from ganlab.viz.pairs import side_by_side
from ganlab_plugins.datasets.digits import Digits

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]

GAME = """
import ganlab, torch
from attrs import frozen
from torch import nn

class OfClass(nn.Conv2d):
    def forward(self, images, labels): return super().forward(images + labels[:, None, None, None] / 10)

@frozen
class Both:
    source: ganlab.DatasetConfig = ganlab.component("dataset")

    def build(self, data):
        def images(networks, z, condition, gain, invert, levels, tint):
            made = gain * networks["there"](condition)
            made = -made if invert else made
            return {"dark": made - 1, "plain": made}[tint].mul(levels).round().div(levels)
        there = ganlab.translator_of("there", source="source")
        options = {"gain": 1.0, "invert": False, "levels": 100, "tint": "plain"}
        return ganlab.Rules(
            networks={
                "there": ganlab.Network(lambda: nn.Conv2d(3, 1, 3, padding=1)),
                "back": ganlab.Network(lambda: nn.Conv2d(1, 3, 3, padding=1)),
                "classes": ganlab.Network(lambda: OfClass(1, 1, 3, padding=1)),
            },
            moves=[ganlab.Move("all", players=("there", "back", "classes"), terms=self.terms)],
            sampler=ganlab.Sampler(("there",), images, there.latents, "source", options),
            samplers={
                "to_source": ganlab.translator_of("back", source="dataset", makes="source"),
                "of_class": ganlab.Sampler(
                    ("classes",), lambda networks, z, labels: networks["classes"](z, labels),
                    lambda networks, count, generator, truncation: torch.randn(count, 1, 8, 8, generator=generator),
                ),
            },
        )

    def terms(self, turn):
        given = turn.batch.streams["source"].images
        made = turn.forward("there", given), turn.forward("classes", turn.real, turn.condition)
        there = sum((images - turn.real).square().mean() for images in made)
        return there + (turn.forward("back", turn.real) - given).square().mean()

@frozen
class Colours:
    def build(self, places, split):
        random = torch.Generator().manual_seed(0)
        return ganlab.ImageDataset(torch.randint(0, 256, (64, 3, 8, 8), generator=random).byte(), "colours", split)

@ganlab.hookimpl
def register_games(register): register("both", Both)

@ganlab.hookimpl
def register_datasets(register): register("colours", Colours)
"""


EXPERIMENT = """
name = "tiny"
plugins = ["both.py"]
game = "both"
dataset = "digits"
source = "colours"
optimizer = "adam"
metric = [{ name = "fid", samples = 64, features = "pixels" }]
train = { steps = 4, batch_size = 16, log_every = 2, sample_count = 5, ema = 0.5 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Path:
    """A run of a game of two directions and of classes, of the digits, whose main sampler has options.

    Tests only read it.
    """
    folder = tmp_path_factory.mktemp("both")
    (folder / "both.py").write_text(GAME)
    (folder / "both.toml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANLAB_CACHE", str(shared_folder / "cache"))
        for name, stand_in in quick_plots.STAND_INS.items():
            patch.setattr(plots, name, stand_in)
        assert main.call(["run", str(folder / "both.toml"), "--out", str(folder / "r")]) == 0
    return folder / "r"


def grid_cells(path: Path, width: int, height: int, padding: int = 2) -> Tensor:
    """The cells of a picture of a grid, uint8 (rows, columns, C, height, width), and that gaps are white."""
    with Image.open(path) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    rows, columns = (pixels.shape[1] - padding) // (height + padding), (pixels.shape[2] - padding) // (width + padding)
    at = [
        pixels[:, top : top + height, left : left + width]
        for top in range(padding, rows * (height + padding), height + padding)
        for left in range(padding, columns * (width + padding), width + padding)
    ]
    return torch.stack(at).unflatten(0, (rows, columns))


def test_every_sampler_of_a_run(run: Path, ganlab: Ganlab) -> None:
    """By `load_run` and the command line; all sampled networks are averaged; each sampler has its conditions."""
    loaded = load_run(run)
    assert {file.name for file in run.glob("checkpoints/*4/ema*")} == {
        f"ema.{name}.safetensors" for name in ("there", "back", "classes")
    }
    assert not torch.equal(loaded.back.weight, torch.zeros(()))
    back, condition = loaded.sample_with_condition(7, seed=3, sampler="to_source")
    assert condition is not None
    with torch.no_grad():
        assert torch.equal(back, to_uint8(loaded.back(condition)))
    known = to_float(Digits().build(places(), "train").images).flatten(1)
    assert all((known == one).all(1).any() for one in condition.flatten(1))
    _, labels = loaded.sample_with_condition(7, seed=3, sampler="of_class")
    assert labels is not None
    assert labels.dtype == torch.int64
    assert (loaded.with_sampler("of_class").classes, loaded.classes) == ((), ())
    assert len(loaded.with_sampler("of_class").conditions.counts) == 10
    assert read_info(run)["samplers"] == {
        "to_source": "images",
        "of_class": loaded.with_sampler("of_class").conditions.counts,
    }
    for name, images in (("to_source", back), ("", loaded.sample(7, seed=3))):
        more = ("--sampler", name) if name else ()
        assert ganlab("sample", run, "--count", 7, "--seed", 3, "--out", f"s{name}.npz", *more)[0] == 0
        with np.load(f"s{name}.npz") as arrays:
            assert np.array_equal(arrays["images"], images.permute(0, 2, 3, 1).numpy())
    assert ganlab("sample", run, "--count", 3, "--out", "s", "--sampler", "to_source")[0] == 0
    with Image.open("s/00000.png") as picture:
        assert picture.mode == "RGB"  # as the samples of that direction are
    code, _, err = ganlab("sample", run, "--count", 3, "--out", "s")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds other samples" in err


@pytest.mark.extended
@pytest.mark.slow
def test_a_copy_and_a_pickle_keep_the_sampler(run: Path) -> None:
    chosen = load_run(run).with_sampler("", {"gain": 0.5})
    other = load_run(run).with_sampler("to_source")
    for one in (chosen, other):
        for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301
            assert torch.equal(again.sample(4), one.sample(4))
    assert not torch.equal(chosen.sample(4), load_run(run).sample(4))


def test_a_grid_of_a_run_has_every_sampler_in_pairs(run: Path, ganlab: Ganlab) -> None:
    """Input and output of the first five samples, in two columns for pairs; below them those of the other samplers."""
    loaded = load_run(run)
    expected = []
    for name in ("", "to_source"):
        images, condition = loaded.sample_with_condition(5, seed=0, sampler=name)
        assert condition is not None
        expected.append(torch.cat([part.expand(-1, 3, -1, -1) for part in (to_uint8(condition), images)], 3))
    for name, pairs in zip(("", "to_source"), expected, strict=True):
        out = f"grid{name}.png"
        assert ganlab("sample", run, "--count", 5, "--out", out, *(("--sampler", name) if name else ()))[0] == 0
        cells = grid_cells(Path(out), 96, 48).flatten(0, 1)[:5]
        assert torch.equal(cells, pairs.repeat_interleave(6, 2).repeat_interleave(6, 3))
    with Image.open(run / "samples" / "step-00000004.png") as whole, Image.open("grid.png") as first:
        pixels, top = (np.array(picture.convert("RGB")) for picture in (whole, first))
        assert np.array_equal(pixels[: top.shape[0], : top.shape[1]], top)
    with Image.open("gridto_source.png") as second:
        middle = np.array(second)
    start = top.shape[0] + 16
    assert np.array_equal(pixels[start : start + middle.shape[0], : middle.shape[1]], middle)
    assert pixels.shape[0] > start + middle.shape[0] + 16  # then the classes, one in each row
    assert (pixels[start - 16 : start] == 255).all()


def test_a_grid_of_translations_has_the_targets(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    """Of `paired`, where an image is the negative of its condition."""
    import paired_images
    from support import REPOSITORY

    method = REPOSITORY / "tests" / "methods" / "pix2pix.py"
    common = {key: table[key] for key in ("name", "optimizer", "train")}
    files = [str(method), paired_images.__file__]
    table = common | {"plugins": files, "dataset": {"name": "paired"}, "game": {"name": "small_pix2pix"}}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    images, condition = load_run("r").sample_with_condition(4, seed=0)
    assert condition is not None
    given = to_uint8(condition)
    triples = torch.cat([given, images, 255 - given], 3).expand(-1, 3, -1, -1)
    cells = grid_cells(Path("r/samples/step-00000004.png"), 144, 48).flatten(0, 1)[:4]
    assert torch.equal(cells, triples.repeat_interleave(6, 2).repeat_interleave(6, 3))


def test_options_are_given_to_the_sampler_and_stand_in_the_protocol(run: Path, ganlab: Ganlab) -> None:
    loaded = load_run(run)
    _, condition = loaded.sample_with_condition(6, seed=1)
    with torch.no_grad():
        made = loaded.there(condition)
    rounded = {levels: lambda images, levels=levels: images.mul(levels).round().div(levels) for levels in (100, 2)}
    for given, expected in (
        ({}, rounded[100](made)),
        ({"gain": 2, "invert": True}, rounded[100](-2.0 * made)),
        ({"levels": 2, "tint": "dark"}, rounded[2](made - 1)),
    ):
        assert torch.equal(loaded.sample(6, seed=1, options=given), to_uint8(expected))
    arguments = ("--option", "gain=2", "--option", "invert=true", "--option", "tint=plain")
    assert ganlab("sample", run, "--count", 6, "--seed", 1, "--out", "o.npz", *arguments)[0] == 0
    with np.load("o.npz") as arrays:
        assert np.array_equal(arrays["images"], to_uint8(rounded[100](-2.0 * made)).permute(0, 2, 3, 1).numpy())

    own = read_records(run / "metrics.jsonl")[-1]
    assert own["protocol"]["options"] == {"gain": 1.0, "invert": False, "levels": 100, "tint": "plain"}
    for more, options in (((), {}), (("--option", "gain=0.5"), {"gain": 0.5})):
        assert ganlab("eval", run, "--out", "e.json", *more)[0] == 0
        (record,) = json.loads(Path("e.json").read_text())
        assert record["protocol"] == own["protocol"] | {"options": own["protocol"]["options"] | options}
        assert (record["value"] == own["value"]) == (not options)


NO_SAMPLER = "the game of this run has no such sampler"
NO_OPTION = "the sampler has no such option"
REFUSED = {
    ("to_sorce",): f"--sampler 'to_sorce': {NO_SAMPLER}; did you mean 'to_source'?",
    ("x",): f"--sampler 'x': {NO_SAMPLER}; the further samplers are: to_source, of_class",
    ("", "gian=2"): f"--option gian: {NO_OPTION}; did you mean 'gain'?",
    ("", "size=2"): f"--option size: {NO_OPTION}; its options are: gain, invert, levels, tint",
    ("", "gain=true"): "--option gain=true: expected a finite number, such as 1.0",
    ("", "gain=nan"): "--option gain=nan: expected a finite number, such as 1.0",
    ("", "levels=1.5"): "--option levels=1.5: expected a whole number, such as 100",
    ("", "invert=1"): "--option invert=1: expected true or false, such as false",
    ("", "gain"): "--option gain: expected KEY=VALUE, such as psi=0.5",
    ("", "a.b=1"): "--option a.b: expected NAME=VALUE, such as psi=0.5",
    ("to_source", "gain=2"): f"--option gain: {NO_OPTION}; it has none",
}


def test_samplers_and_options_that_there_are_not(run: Path, ganlab: Ganlab) -> None:
    loaded = load_run(run)
    for (name, *options), said in REFUSED.items():
        with pytest.raises(UserError) as refused, command_running():
            loaded.with_sampler(name, parse_options(options))
        assert refused.value.problems == (said,)
    with pytest.raises(UserError, match=r"^name 'x': the game of this run has no such sampler"):
        loaded.with_sampler("x")
    code, _, err = ganlab("sample", run, "--out", "x.png", "--sampler", "to_source", "--option", "gain=2")
    assert (code, err.strip()) == (2, f"--option gain: {NO_OPTION}; it has none")
    code, _, err = ganlab("eval", run, "--option", "gain=x", "--out", "x.json")
    assert (code, err.strip()) == (2, "--option gain='x': expected a finite number, such as 1.0")
    assert not any(Path(name).exists() for name in ("x.png", "x.json"))


def test_pairs_of_images_of_other_shapes() -> None:
    """A small grey input beside colour three times as high, two channels, and colour beside what is a little lower."""
    shades = torch.arange(2 * 20 * 30, dtype=torch.uint8).reshape(2, 1, 20, 30)
    colour = torch.full((2, 3, 60, 64), 9, dtype=torch.uint8)
    pair = side_by_side([shades, colour])
    assert pair.shape == (2, 3, 60, 90 + 64)
    assert torch.equal(pair[:, :, ::3, :90:3], shades.expand(-1, 3, -1, -1))
    assert torch.equal(pair[..., 90:], colour)
    points = torch.arange(2, dtype=torch.uint8).reshape(1, 2, 1, 1).expand(-1, -1, 50, 50)
    shown = side_by_side([points, torch.full((1, 4, 40, 50), 5, dtype=torch.uint8)])
    assert shown.shape == (1, 4, 50, 150)
    assert shown[0, :, 0, [0, 50, 100]].T.tolist() == [[0, 0, 0, 255], [1, 1, 1, 255], [5, 5, 5, 5]]
    assert (shown[:, :, 40:, 100:] == 255).all()
