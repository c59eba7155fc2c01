"""`ganlab translate` and `Run.translate`: held against the networks called by hand and pictures decoded by Pillow."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import quick_plots
from ganlab import UserError, load_run, to_float, to_uint8
from ganlab.cli import main
from ganlab.run import translate_files
from ganlab.run.sample_files import as_array
from ganlab.run.translate import sampler_to, translator
from ganlab.viz import plots
from ganlab_plugins.datasets.degraded import Degraded
from ganlab_plugins.datasets.image_folder import ImageFolder

Ganlab = Callable[..., tuple[int, str, str]]

GAME = """
import ganlab, torch
from attrs import frozen
from torch import nn

def larger(): return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 1, 3, padding=1))
def smaller(): return nn.Conv2d(1, 3, 2, stride=2)
def fixed(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8)))

@frozen
class Both:
    a: ganlab.DatasetConfig = ganlab.component("dataset")

    def build(self, data):
        there = ganlab.translator_of("larger", source="a")
        made = lambda networks, z, condition, gain: gain * networks["larger"](condition) + z[:, :1, None, None] / 9
        drawn = lambda networks, count, generator, truncation: torch.randn(count, 1, generator=generator)
        return ganlab.Rules(
            networks={name: ganlab.Network(make) for name, make in
                      {"larger": larger, "smaller": smaller, "fixed": fixed}.items()},
            moves=[ganlab.Move("all", players=("larger", "smaller", "fixed"), terms=self.terms)],
            sampler=ganlab.Sampler(("larger",), made, drawn, "a", {"gain": 1.0}),
            samplers={
                "b_to_a": ganlab.translator_of("smaller", source="dataset", makes="a"),
                "b_to_fixed": ganlab.translator_of("fixed", source="dataset"),
            },
        )

    def terms(self, turn):
        a, b = turn.batch.streams["a"].images, turn.real
        errors = ((turn.forward("larger", a) - b), (turn.forward("smaller", b) - a), (turn.forward("fixed", b) - b))
        return sum(error.square().mean() for error in errors)

@frozen
class Colours:
    def build(self, places, split):
        random = torch.Generator().manual_seed(0)
        return ganlab.ImageDataset(torch.randint(0, 256, (64, 3, 4, 4), generator=random).byte(), "colours", split)

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
a = "colours"
optimizer = "adam"
train = { steps = 2, batch_size = 16, log_every = 2, sample_count = 4 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Path:
    """A run that makes grey images of twice the size of colour ones, the other way, and of one size. Only read."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "both.py").write_text(GAME)
    (folder / "both.toml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANLAB_CACHE", str(shared_folder / "cache"))
        for name, stand_in in quick_plots.STAND_INS.items():
            patch.setattr(plots, name, stand_in)
        assert main.call(["run", str(folder / "both.toml"), "--out", str(folder / "r")]) == 0
    return folder / "r"


def by_hand(run: Path, network: str, pixels: np.ndarray) -> np.ndarray:
    """What a network makes of the pixels (H, W, C) of one picture."""
    given = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    with torch.no_grad():
        made: Tensor = to_uint8(load_run(run).networks[network](to_float(given)))
    return as_array(made)[0]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.array(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_picture_of_any_size_is_translated_there_and_back(run: Path, ganlab: Ganlab, tmp_path: Path) -> None:
    grey = noise(10, 6, 1)
    Image.fromarray(grey[:, :, 0]).save(tmp_path / "grey.png")
    code, said, _ = ganlab("translate", run, tmp_path / "grey.png", "--to", "a", "--out", tmp_path / "made.png")
    assert (code, said) == (0, f"1 image, 3x5 pixels, from plain weights at step 2: {tmp_path / 'made.png'}\n")
    assert np.array_equal(read(tmp_path / "made.png"), by_hand(run, "smaller", grey))
    assert ganlab("translate", run, tmp_path / "made.png", "--out", tmp_path / "to")[0] == 0
    assert read(tmp_path / "to" / "made.png").shape == (10, 6, 1)
    for name in ("a", "b_to_a"):  # the sampler's own name is a direction too
        assert ganlab("translate", run, tmp_path / "grey.png", "--to", name, "--out", tmp_path / name)[0] == 0
        assert read(tmp_path / name / "grey.png").tobytes() == read(tmp_path / "made.png").tobytes()


def test_the_main_direction_has_the_name_that_others_begin_with(run: Path) -> None:
    loaded, images = load_run(run), torch.from_numpy(noise(3, 3, 4, 6))
    main_one = loaded.translate(images)
    assert torch.equal(loaded.translate(images, to="b"), main_one)
    assert main_one.shape == (3, 1, 8, 12)
    assert main_one.dtype == torch.uint8


def test_only_directions_that_there_are_are_offered() -> None:
    rules = SimpleNamespace(samplers=dict.fromkeys(("photo_b", "b_to_a"), SimpleNamespace(source="other")))
    with pytest.raises(UserError, match=r"it has: a, photo_b$"):
        sampler_to(SimpleNamespace(rules=rules), "x")  # type: ignore[arg-type]


def test_latents_depend_on_the_seed_and_not_on_the_count_and_options_are_the_samplers(run: Path) -> None:
    loaded, images = load_run(run), torch.from_numpy(noise(140, 3, 4, 4))
    made = loaded.translate(images)
    assert torch.equal(loaded.translate(images[:130]), made[:130])
    assert not torch.equal(loaded.translate(images, seed=1), made)
    with pytest.raises(UserError, match=r"^seed 1: has no effect, as this translation has no latents"):
        loaded.translate(made[:2], to="a", seed=1)
    z = (to_float(made) - loaded.networks["larger"](to_float(images)))[:2].flatten(1).median(1).values
    flat = loaded.translate(images[:2], options={"gain": 0.0})
    assert torch.equal(flat.flatten(1).amin(1), flat.flatten(1).amax(1))  # nothing but the latent is left
    assert (to_float(flat)[:, 0, 0, 0] - z).abs().max() < 0.02


def test_a_folder_keeps_its_names_and_pictures_are_decoded_as_in_data_sets(
    run: Path, ganlab: Ganlab, tmp_path: Path
) -> None:
    """Transparency on white, palettes, 16 bits and a rotation by EXIF; colour whose channels are equal is grey."""
    pixels, folder = noise(4, 6, 3), tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    (folder / "notes.txt").write_text("no picture")
    Image.fromarray(pixels).save(folder / "colour.bmp")
    Image.fromarray(pixels).quantize(4).save(folder / "palette.png")
    opacity = noise(4, 6, 1)
    Image.fromarray(np.concatenate([pixels, opacity], 2)).save(folder / "below" / "transparent.webp", lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    Image.fromarray(pixels).save(folder / "below" / "turned.png", exif=exif)
    Image.fromarray(pixels[:, :, :1].astype(np.uint16)[:, :, 0] * 257).save(folder / "deep.png")
    assert ganlab("translate", run, folder, "--option", "gain=1", "--out", tmp_path / "out")[0] == 0
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert made == ["below/transparent.png", "below/turned.png", "colour.png", "deep.png", "palette.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert (tmp_path / "out").stat().st_mode == folder.stat().st_mode
    with Image.open(folder / "below" / "transparent.webp") as picture:
        on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    with Image.open(folder / "palette.png") as picture:
        palette = np.array(picture.convert("RGB"))
    wanted = {
        "below/transparent": np.array(on_white),
        "below/turned": np.rot90(pixels, -1),
        "colour": pixels,
        "deep": pixels[:, :, :1].repeat(3, 2),
        "palette": palette,
    }
    loaded, latents = load_run(run), []
    for index, (name, given) in enumerate(wanted.items()):
        with torch.no_grad():
            plain = loaded.networks["larger"](to_float(torch.from_numpy(given.copy()).permute(2, 0, 1)[None]))
        got = to_float(torch.from_numpy(read(tmp_path / "out" / f"{name}.png")).permute(2, 0, 1)[None])
        inside = got.abs() < 1  # not clipped
        difference = (got - plain)[inside]
        assert difference.max() - difference.min() < 0.02, (index, name)  # a latent is added to each
        latents.append(float(difference.mean()))
    assert len({round(value, 2) for value in latents}) == 5


def test_pictures_are_read_as_the_data_set_of_the_given_ones_reads_them(run: Path, tmp_path: Path) -> None:
    loaded, grey = load_run(run), noise(8, 6, 1)
    Image.fromarray(grey[:, :, 0].astype(np.uint16) * 16).save(tmp_path / "twelve.png")  # 12 bits in 16
    reading = ImageFolder(path="x", range=(0, 4080))
    for data in (reading, Degraded(reading, blur=1.0)):
        ranged = attrs.evolve(loaded, experiment=attrs.evolve(loaded.experiment, dataset=data))
        translate_files.translate_files(translator(ranged, "a"), tmp_path / "twelve.png", tmp_path / "made.png")
        assert np.array_equal(read(tmp_path / "made.png"), by_hand(run, "smaller", grey))
    game = attrs.evolve(loaded.experiment.game, a=ImageFolder(path="x", background="#ff0000"))
    coloured = attrs.evolve(loaded, experiment=attrs.evolve(loaded.experiment, game=game))
    clear = np.dstack([noise(4, 6, 3), np.zeros((4, 6, 1), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    translate_files.translate_files(translator(coloured), tmp_path / "clear.png", tmp_path / "red.png")
    red = np.full((4, 6, 3), [255, 0, 0], np.uint8)
    assert np.array_equal(
        read(tmp_path / "red.png"), as_array(coloured.translate(torch.tensor(red).permute(2, 0, 1)[None]))[0]
    )


def test_grey_runs_take_colour_without_colour(run: Path, ganlab: Ganlab, tmp_path: Path) -> None:
    grey = noise(8, 8, 1)
    Image.fromarray(grey.repeat(3, 2)).save(tmp_path / "grey.png")
    assert ganlab("translate", run, tmp_path / "grey.png", "--to", "a", "--out", tmp_path / "made.png")[0] == 0
    assert np.array_equal(read(tmp_path / "made.png"), by_hand(run, "smaller", grey))


def test_an_array_is_translated_to_an_array(run: Path, ganlab: Ganlab, tmp_path: Path) -> None:
    images = noise(150, 6, 4, 1)
    np.savez(tmp_path / "in.npz", images=images, labels=np.arange(150))
    assert ganlab("translate", run, tmp_path / "in.npz", "--to", "a", "--out", tmp_path / "out.npz")[0] == 0
    with np.load(tmp_path / "out.npz") as made:
        assert made.files == ["images"]
        wanted = [by_hand(run, "smaller", image) for image in images[::49]]
        assert np.array_equal(made["images"][::49], np.stack(wanted))
        assert made["images"].shape == (150, 3, 2, 3)


def _picture(path: Path, *shape: int) -> Path:
    pixels = noise(*shape)
    Image.fromarray(pixels[:, :, 0] if shape[2] == 1 else pixels).save(path)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "a direction that there is not": (
        lambda folder: _picture(folder / "x.png", 8, 8, 1),
        ["--to", "c", "--out", "new.png"],
        "--to 'c': the game of this run has no such direction; it has: a, b, fixed",
    ),
    "a size that the networks do not take": (
        lambda folder: _picture(folder / "x.png", 9, 8, 1),
        ["--to", "fixed", "--out", "new.png"],
        "x.png: 8x9 pixels: the networks of this run do not take this size, and were trained with 8x8 pixels (",
    ),
    "a size that comes out as another": (
        lambda folder: _picture(folder / "x.png", 7, 8, 1),
        ["--to", "a", "--out", "new.png"],
        "x.png: 8x7 pixels: the networks of this run make 4x3 pixels of it; wanted 4x4 pixels",
    ),
    "colour": (
        lambda folder: _picture(folder / "x.png", 8, 8, 3),
        ["--to", "a", "--out", "new.png"],
        "x.png: is in colour, and the run translates grey images; convert it to grey",
    ),
    "an array with other channels": (
        lambda folder: [np.savez(folder / "x.npz", images=noise(2, 8, 8, 4)), folder / "x.npz"][1],  # type: ignore[list-item]
        ["--out", "new.npz"],
        "x.npz: has 4 channels, and the run translates images with 3",
    ),
    "an archive of two arrays": (
        lambda folder: [np.savez(folder / "x.npz", a=noise(2, 4, 4, 3), b=noise(2, 4, 4, 3)), folder / "x.npz"][1],  # type: ignore[list-item]
        ["--out", "new.npz"],
        "x.npz: holds 2 arrays and none named images: a uint8 (2, 4, 4, 3), b uint8 (2, 4, 4, 3); save the wanted one",
    ),
    "an array alone": (
        lambda folder: [np.save(folder / "x.npy", noise(2, 4, 4, 3)), folder / "x.npy"][1],  # type: ignore[list-item]
        ["--out", "new.npz"],
        "x.npy: is one array without a name; wanted an .npz file: numpy.savez('x.npz', images=numpy.load('x.npy'))",
    ),
    "a place below a file": (
        lambda folder: _picture(folder / "x.png", 8, 8, 3),
        ["--out", "../given/x.png/y.png"],
        "--out ../given/x.png/y.png: ../given/x.png is not a folder",
    ),
    "no such file": (lambda folder: folder / "x.png", ["--out", "new.png"], "x.png: no such file or folder"),
    "another kind of file": (
        lambda folder: _picture(folder / "x.png", 8, 8, 3),
        ["--out", "new.jpg"],
        "--out new.jpg: expected FILE.png or a folder",
    ),
    "a folder with a damaged picture": (
        lambda folder: [
            (folder / "in").mkdir(),
            _picture(folder / "in" / "a.png", 4, 4, 3),
            (folder / "in" / "b.png").write_bytes((folder / "in" / "a.png").read_bytes()[:60]),
            folder / "in",
        ][3],  # type: ignore[list-item]
        ["--out", "new"],
        "b.png: cannot be read as an image (",
    ),
    "two pictures of one name": (
        lambda folder: [
            (folder / "in").mkdir(),
            _picture(folder / "in" / "a.png", 4, 4, 3),
            _picture(folder / "in" / "a.bmp", 4, 4, 3),
            folder / "in",
        ][3],  # type: ignore[list-item]
        ["--out", "new"],
        "in: a.bmp and a.png would both become a.png; rename one of them",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_translated_is_refused_in_one_line_and_nothing_is_written(
    run: Path, ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, arguments, line = REFUSED[case]
    (tmp_path / "given").mkdir()
    given = make(tmp_path / "given")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, said = ganlab("translate", run, given, *arguments)
    assert code == 2
    # On a slow machine there are lines of progress before it.
    (error,) = (text for text in said.splitlines() if not text.startswith("new: image"))
    assert line in error
    assert list((tmp_path / "here").iterdir()) == []


def test_the_input_is_never_replaced(run: Path, ganlab: Ganlab, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture = _picture(tmp_path / "in" / "x.png", 4, 4, 3)
    before = picture.read_bytes()
    for given, out, words in (
        (picture, picture, f"--out {picture}: is the input itself; choose another"),
        (picture, picture.parent, f"--out {picture.parent}: is the input itself; choose another"),
        (picture.parent, picture.parent / "new", f"lies in the input {picture.parent}; choose a folder beside it"),
    ):
        code, _, said = ganlab("translate", run, given, "--out", out)
        assert (code, len(said.splitlines())) == (2, 1)
        assert words in said
    assert [*picture.parent.iterdir()] == [picture]
    assert picture.read_bytes() == before


def test_a_run_that_translates_nothing_is_refused(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    loaded.rules.samplers["noise"] = loaded.rules.sampler.__class__(("larger",), lambda n, z, c: z, lambda *_: None)  # type: ignore[index, arg-type, return-value]
    line = "'noise' of this run translates nothing: its game, 'both', is given no images; set to b_to_a or b_to_fixed"
    with pytest.raises(UserError, match=line):
        loaded.translate(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), to="noise")
    with pytest.raises(UserError, match="images: holds no images to translate"):
        loaded.translate(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


def test_a_signal_ends_it_and_nothing_is_left(
    run: Path, ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        _picture(tmp_path / "in" / f"{index}.png", 4, 4 + index, 3)
    encode = translate_files.encode_pixels

    def interrupted(pixels: np.ndarray) -> bytes:
        if pixels.shape[1] == 10:
            signal.raise_signal(signal.SIGTERM)
        return encode(pixels)

    monkeypatch.setattr(translate_files, "encode_pixels", interrupted)
    code, _, said = ganlab("translate", run, tmp_path / "in", "--out", tmp_path / "out")
    assert code == 75
    assert said.splitlines()[-1] == f"{tmp_path / 'out'}: nothing is written; the same command starts again"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_no_data_set_is_needed(run: Path, ganlab: Ganlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganlab_plugins.datasets.digits import Digits

    monkeypatch.setattr(Digits, "build", lambda *_: pytest.fail("was read"))
    assert ganlab("translate", run, _picture(tmp_path / "x.png", 4, 4, 3), "--out", tmp_path / "o.png")[0] == 0
    stream = io.BytesIO((tmp_path / "o.png").read_bytes())
    assert Image.open(stream).size == (8, 8)
