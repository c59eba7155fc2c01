"""Walks through latents, held against scipy's formula of the arc, the samples of their stops, and two film readers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import geometric_slerp
from torch import Tensor, nn

import ganlab as library
from ganlab import UserError, load_run
from ganlab.evaluation.between import ALONG, FIRST, SECOND, BlendingSampler, latents_between
from ganlab.evaluation.network_sampler import NetworkSampler, sampler_of
from ganlab.evaluation.sampling import generate_images
from ganlab.nn.layers import spectrally_normed
from ganlab.run.latents_file import read_latents, write_latents
from ganlab.run.walk import WalkRequest, walk_film, write_walk
from ganlab.viz.film import Film, write_film
from image_files import save
from tiers import spread

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def run(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    assert ganlab("run", write(table), "--out", "r", "--set", "train.steps=1")[0] == 0
    return Path("r")


@pytest.fixture
def classes(table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    """A run whose networks look at the class, on a folder of three classes."""
    for label, name in enumerate(("ant", "bee", "cow")):
        for index in range(4):
            save(Path("set") / name / f"{index}.png", np.full((8, 8, 3), 40 + 80 * label + index, np.uint8))
    table["dataset"] = {"name": "image_folder", "path": str(Path("set").absolute()), "size": 8}
    table["generator"] = {"name": "conditional", "network": table["generator"]}
    table["discriminator"] = {"name": "conditional", "network": table["discriminator"]}
    table["train"] |= {"batch_size": 4, "steps": 1}
    assert ganlab("run", write(table), "--out", "named")[0] == 0
    return Path("named")


def test_between_normal_latents_lies_an_arc_and_between_others_a_line() -> None:
    first, second = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (part / part.norm(dim=1, keepdim=True) for part in (first, second))
    along = torch.tensor([0, 0.25, 0.5, 0.9, 1], dtype=torch.float64)
    for index, share in enumerate(along.tolist()):
        wanted = geometric_slerp(first[index].numpy(), second[index].numpy(), share)
        row = slice(index, index + 1)
        np.testing.assert_allclose(latents_between(first[row], second[row], along[row], True)[0], wanted, atol=1e-12)
    ends = latents_between(first, second, along, True)[[0, 4]]
    assert torch.allclose(ends, torch.stack([first[0], second[4]]), rtol=1e-15)
    maps = latents_between(first.view(5, 4, 4), second.view(5, 4, 4), along, False)
    assert torch.allclose(maps, ((1 - along[:, None]) * first + along[:, None] * second).view(5, 4, 4))
    for end in (first, -first):  # no single arc joins them
        assert latents_between(first, end, along, True).isfinite().all()


@pytest.mark.parametrize("loop", spread(1, [True, False]))
def test_a_walk_passes_the_samples_of_its_seeds(run: Path, loop: bool) -> None:
    loaded = load_run(run)
    seeds = [3, 1, 7]
    film = loaded.walk(seeds, frames=12 if loop else 9, loop=loop)
    stops = torch.cat([loaded.sample(1, seed) for seed in seeds])
    assert (film.frames[::4].int() - stops.int()).abs().max() <= 1
    changes = (film.frames[1:].float() - film.frames[:-1].float()).abs().amax((1, 2, 3))
    assert changes.min() > 0
    middle = film.frames[2].float()
    assert (middle - film.frames[1].float()).abs().mean() < (stops[0].float() - stops[1].float()).abs().mean()
    few = loaded.walk(5, count=3, frames=3, truncation=0.5).frames
    assert (few.int() - loaded.sample(3, 5, truncation=0.5).int()).abs().max() <= 1


class Labelled(nn.Module):
    """Images of latents and labels, which are looked up in one of three ways."""

    latent_dim = 2

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.table = spectrally_normed(nn.Sequential(nn.Embedding(4, 2)))[0].eval()

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        weight = self.table.weight.detach()
        if self.way == "embedding":
            row = self.table(condition)
        elif self.way == "one-hot":
            row = nn.functional.one_hot(condition, 4).float() @ weight
        else:
            row = weight[condition]
        return (z + row)[:, :, None, None].tanh()


@pytest.mark.parametrize("way", ["embedding", "one-hot", "index"])
def test_labels_are_blended_where_they_are_looked_up(way: str) -> None:
    network = Labelled(way)
    sampler = BlendingSampler.of(NetworkSampler(sampler_of("g"), {"g": network}))
    z, first, second = torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.tensor([3, 2, 1])
    along = torch.tensor([0.0, 0.3, 0.8])
    assert sampler.blends(z, first, second) == (way != "index")
    if way != "index":
        made = sampler(z, {FIRST: first, SECOND: second, ALONG: along})
        weight = network.table.weight
        rows = (1 - along[:, None]) * weight[first] + along[:, None] * weight[second]
        assert torch.allclose(made[:, :, 0, 0], rows.tanh(), atol=1e-6)
    assert torch.equal(sampler(z, first), network(z, first))


def test_a_walk_between_classes(classes: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_run(classes)
    z = loaded.sampler.latents(1, torch.Generator().manual_seed(0))
    film = loaded.walk(labels=["cow", 0], frames=4, latents=z)
    with torch.no_grad():
        cow, between, ant = (
            next(generate_images(network, z, loaded.device, condition))
            for network, condition in (
                (loaded.sampler, torch.tensor([2])),
                (
                    BlendingSampler.of(loaded.sampler),
                    {FIRST: torch.tensor([2]), SECOND: torch.tensor([0]), ALONG: torch.tensor([0.5])},
                ),
                (loaded.sampler, torch.tensor([0])),
            )
        )
    for frame, wanted in zip(film.frames, (cow, between, ant, between), strict=True):
        assert (frame.int() - wanted[0].int()).abs().max() <= 1
    assert (film.frames[0].int() - film.frames[2].int()).abs().max() > 1
    monkeypatch.setattr(BlendingSampler, "blends", lambda *given: False)
    code, _, err = ganlab("sample", classes, "--walk", "--label", "cow", "--label", "ant", "--out", "w.gif")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "give one --label" in err
    one = loaded.walk(labels=["bee"], count=2, frames=2).frames
    assert (one.int() - loaded.sample(2, label="bee").int()).abs().max() <= 1


@pytest.mark.extended
@pytest.mark.slow
def test_latents_of_a_file_are_sampled_and_walked_through(classes: Path, ganlab: Ganlab) -> None:
    loaded = load_run(classes)
    z, labels = torch.randn(3, *loaded.sampler.latents(1, torch.Generator()).shape[1:]), torch.tensor([2, 0, 2])
    wanted = next(generate_images(loaded.sampler, z, loaded.device, labels))
    for name in ("z.npz", "z.safetensors"):
        write_latents(Path(name), z, labels)
        given = read_latents(loaded, Path(name))
        assert torch.equal(given.z, z)
        assert torch.equal(given.condition, labels)
    assert ganlab("sample", classes, "--latents", "z.npz", "--out", "i.npz")[0] == 0
    with np.load("i.npz") as arrays:
        assert np.array_equal(arrays["images"], wanted.permute(0, 2, 3, 1).numpy())
        assert arrays["labels"].tolist() == [2, 0, 2]
    assert ganlab("sample", classes, "--latents", "z.npz", "--out", "i.png")[0] == 0
    assert ganlab("sample", classes, "--latents", "z.npz", "--walk", "--frames", "3", "--out", "w")[0] == 0
    frames = [np.asarray(Image.open(file)) for file in sorted(Path("w").iterdir())]
    assert np.abs(np.stack(frames).astype(int) - wanted.permute(0, 2, 3, 1).numpy()).max() <= 1
    write_latents(Path("other.npz"), z[:, :2], labels)
    write_latents(Path("high.npz"), z, labels + 5)
    write_latents(Path("none.npz"), z[:0], labels[:0])
    Path("broken.safetensors").write_bytes(b"nothing")
    for file, words in (
        ("other.npz", "(3, 2); the run's are floats (N, "),
        ("high.npz", "labels are 5 to 7; expected below 3"),
        ("none.npz", "holds no latents"),
        ("broken.safetensors", "cannot be read as safetensors"),
        ("i.npz", "has no array 'latents'"),
        ("i.png", "expected FILE.npz or FILE.safetensors"),
        ("gone.npz", "No such file"),
    ):
        with pytest.raises(UserError, match=f"^--latents {file}: .*{re.escape(words)}"):
            read_latents(loaded, Path(file))


def test_a_damaged_file_of_latents_is_refused() -> None:
    np.savez_compressed("z.npz", latents=np.random.default_rng(0).random((9, 9)))
    data = bytearray(Path("z.npz").read_bytes())
    data[80:90] = bytes(10)
    Path("z.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"^--latents z.npz: cannot be read as npz \(Error -3 while decompressing"):
        read_latents(None, Path("z.npz"))  # type: ignore[arg-type]


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    """The frames of a film and its length in seconds, as Pillow or FFmpeg reads them; equal frames may be one."""
    if path.suffix == ".mp4":
        av = pytest.importorskip("av")
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            length = float(video.duration * video.time_base)
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video)], length
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        frames, length = [], 0
        for index in range(film.n_frames):
            film.seek(index)
            frames.append(np.asarray(film.convert("RGB")))
            length += film.info["duration"]
        return frames, length / 1000


@pytest.mark.parametrize(
    ("ending", "channels", "side", "fps"),
    spread(
        2,
        [
            (ending, *form)
            for form in ((1, 8, 24.0), (3, 131, 30.0), (4, 20, 7.5))
            for ending in (".gif", ".webp", ".mp4")[:: -1 if form[0] == 3 else 1]
        ],
    ),
)
def test_a_film_has_its_frames_its_pixels_and_its_length(ending: str, channels: int, side: int, fps: float) -> None:
    """Ramps that move, of odd sides too: 131 pixels are 132 in an .mp4 file."""
    ramp = torch.arange(side) * 4 % 256
    images = torch.stack(
        [(ramp[:, None] + ramp + 9 * index).remainder(200).expand(channels, -1, -1) for index in range(25)]
    )
    images = images.to(torch.uint8)
    if channels == 4:
        images[:, 3] = 255
        images[:, 3, :2] = 0
    if ending == ".mp4":
        pytest.importorskip("av")
    Film(images, fps).save(f"film{ending}")
    found, length = frames_of(Path(f"film{ending}"))
    assert len(found) == 25
    assert length == pytest.approx(25 / fps, abs=0.011 if ending == ".gif" else 0.002)
    factor = -(-128 // side)
    colour = images[:, :3].clone()
    if channels == 4:
        colour[:, :, :2] = 255
    wanted = colour.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    even = factor * side + (factor * side) % 2 * (ending == ".mp4")
    assert {frame.shape for frame in found} == {(even, even, 3)}
    difference = np.abs(np.stack(found)[:, : factor * side, : factor * side].astype(int) - wanted.numpy())
    assert difference.mean() < (0.6 if side == 8 or (channels == 4 and ending != ".mp4") else 4)


@pytest.mark.extended
@pytest.mark.slow
def test_a_film_is_written_whole_or_not_at_all(run: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = ("sample", run, "--walk", "--frames", 200, "--out")

    def ends(*given: Any, **named: Any) -> Iterator[Tensor]:
        yield from itertools.islice(generate_images(*given, **named), 1)
        raise KeyboardInterrupt

    before = sorted(Path().iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("ganlab.run.walk.generate_images", ends)
        for name in ("w.gif", "w.webp", "w"):
            code, out, err = ganlab(*walk, name)
            assert (code, out) == (75, "")
            assert err.splitlines()[-1] == f"{name}: nothing is written; the same command starts again"
    assert sorted(Path().iterdir()) == before
    Path("full").mkdir()
    Path("full/mine").touch()
    Path("file").touch()
    write_latents(Path("one.npz"), torch.zeros(1, 8), None)
    loaded = load_run(run)
    one = read_latents(loaded, Path("one.npz"))
    for out, wanted, words in (
        ("w.avi", {}, "--out w.avi: expected FILE.mp4, FILE.webp, FILE.gif or a folder"),
        ("full", {}, "--out full: a folder that is not empty"),
        ("file", {}, "--out file: is a file"),
        ("file/w.gif", {}, "--out file/w.gif: file is not a folder"),
        ("w.gif", {"fps": 60}, "--fps 60: expected 0.1 to 50 frames a second of a GIF"),
        ("w.gif", {"fps": float("nan")}, "--fps nan: expected 0.1 to 50"),
        ("w.gif", {"frames": 0}, "--frames 0: expected at least 1"),
        ("w.gif", {"count": 1}, "--walk: leads from 1 stop to nowhere"),
        ("w.gif", {"latents": one}, "--walk: leads from 1 stop to nowhere"),
        ("w.gif", {"latents": one, "seeds": (1, 2)}, "--latents: goes without"),
        ("w.gif", {"latents": one, "seeds": (3,)}, "--seed 3: has no effect with --latents"),
        ("w", {"fps": 5, "count": 2}, "--fps 5: is of a film; a folder of PNG files has none"),
        ("w.gif", {"seeds": (1, 1, 1)}, "--walk: its 3 stops are one and the same image"),
        ("w.gif", {"count": 2, "seeds": (1, 2)}, "--count 2: goes without several --seed; 2 are given"),
        ("w.gif", {"seeds": (1, -2)}, "--seed -2: expected at least 0"),
        ("w.gif", {"labels": ["ant"]}, "--label 'ant': the networks of this run know no classes"),
    ):
        with pytest.raises(UserError, match=re.escape(words)) as caught:
            write_walk(loaded, WalkRequest(**wanted), Path(out))
        assert len(caught.value.problems) == 1
    for wanted, words in (
        ({"fps": 0}, "--fps 0: expected 0.1 to 240 frames a second"),
        ({"fps": "x"}, "--fps 'x': expected a number"),
        ({"seeds": ()}, "--seed: none is given"),
        ({"truncation": 0}, "--truncation 0: expected a finite number above 0"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            walk_film(loaded, WalkRequest(**wanted))
    for more, words in (
        (["--fps", 5], "--fps: is for a film; add --walk"),
        (["--seed", 1, "--seed", 2], "--seed: can be repeated for a walk only; add --walk"),
        (["--walk", "--interpolate"], "--walk: goes without --interpolate, --mix and --by-class"),
        (["--walk", "--count", 0], "--count 0: expected at least 1"),
        (["--latents", "one.npz", "--seed", 3], "--seed 3: has no effect with --latents, as nothing is drawn"),
        (["--latents", "one.npz", "--truncation", 1], "--latents: goes without --interpolate and --truncation"),
    ):
        code, _, err = ganlab("sample", run, "--out", "w.png", *more)
        assert (code, len(err.splitlines())) == (2, 1)
        assert err.startswith(words)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape("pip install 'ganlab[video]'")):
        write_walk(loaded, WalkRequest(), Path("w.mp4"))
    assert not [*Path().glob("w*"), *Path("full").glob("[!m]*")]


@pytest.mark.extended
@pytest.mark.slow
def test_a_run_without_latents_or_samples_has_no_walk(
    run: Path, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_run(run)
    monkeypatch.setattr("ganlab.run.latents_file.draw_latents", lambda *given: torch.zeros(1, 0))
    with pytest.raises(UserError, match="what is sampled has no latents"):
        loaded.walk()
    # Before data are read, which conditions are drawn from.
    monkeypatch.setattr("ganlab.run.load_run.run_conditions", lambda *given: pytest.fail("data are read"))
    for command in (["sample", run, "--walk"], ["project", run, "any.png"]):
        code, _, err = ganlab(*command, "--out", "x")
        assert (code, err.split(", so ")[0]) == (2, "r: what is sampled has no latents")
    monkeypatch.setattr(library.Rules, "why_no_samples", "it makes none")
    with pytest.raises(UserError, match="it makes none"):
        loaded.walk()


def test_equal_frames_that_a_gif_file_cannot_hold_are_refused() -> None:
    with pytest.raises(UserError, match=r"^a GIF file cannot hold equal frames of more than 655 s together; use .webp"):
        Film(torch.zeros(70, 1, 8, 8, dtype=torch.uint8), 0.1).save("w.gif")
    assert [*Path().iterdir()] == []


def test_the_frames_of_float_data_and_signals_are_drawn(tmp_path: Path) -> None:
    write_film([torch.linspace(-3, 5, 64).view(1, 1, 8, 8)], tmp_path / "a", 1)
    assert np.asarray(Image.open(tmp_path / "a" / "00000.png")).shape == (8, 8)
    deep = torch.arange(64).mul(1000).to(torch.uint16).view(1, 1, 8, 8)
    write_film([deep], tmp_path / "b", 1)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b" / "00000.png")), deep[0, 0].numpy())
    Film(torch.randn(3, 2, 50), Fraction(5)).save(tmp_path / "s.gif")
    assert Image.open(tmp_path / "s.gif").n_frames == 3
