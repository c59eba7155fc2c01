"""The pages of the kinds of plugins: each page's plugin passes `ganlab check` as the page shows it, and trains."""

from __future__ import annotations

import json
import math
import os
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import ganlab
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.run.records import read_records
from ganlab.testing import conformance
from ganlab_plugins.losses.relativistic import Relativistic
from pages import BLOCK, commands, files, timeless
from stubs import an_evaluation
from support import REPOSITORY

Ganlab = Callable[..., tuple[int, str, str]]
FOLDER = REPOSITORY / "docs" / "kinds"


EACH = [
    pytest.param(kind, marks=[] if kind in ("loss", "penalty") else [pytest.mark.extended, pytest.mark.slow])
    for kind in KINDS
]
"""Every kind, two of them in the default tier."""


@pytest.fixture
def page(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind's page, with its plugin and the data that it speaks of in the current folder."""
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path))
    digits = load_digits()
    np.savez("digits.npz", images=(digits.images * 15).astype(np.uint8)[..., None], labels=digits.target)
    text = (FOLDER / f"{kind}.md").read_text()
    ((name, source),) = files(text).items()
    Path(name).write_text(source)
    return text


def test_every_kind_has_its_page_and_every_page_its_kind() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*KINDS, "index"}
    index = (FOLDER / "index.md").read_text()
    (toctree,) = [text for text in index.split("```") if text.startswith("{toctree}")]
    assert toctree.split("\n\n")[1].split() == list(KINDS)


@pytest.mark.parametrize("kind", EACH)
def test_the_check_that_a_page_shows(kind: str, page: str, ganlab: Ganlab, tmp_path: Path) -> None:
    (console,) = [text for language, text in BLOCK.findall(page) if language == "console"]
    ((command, shown),) = commands(console)
    words = shlex.split(command)
    assert words[:3] == ["ganlab", "check", *files(page)]
    code, out, err = ganlab(*words[1:])
    assert (code, err) == (0, "")
    assert timeless(out.replace(str(tmp_path), "/home/ada/gan")) == timeless(shown)


@pytest.mark.parametrize("kind", EACH)
def test_what_a_page_shows_trains(
    kind: str,
    page: str,
    table: dict[str, object],
    write: Callable[..., Path],
    ganlab: Ganlab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (toml,) = [text for language, text in BLOCK.findall(page) if language == "toml"]
    assert len(toml.splitlines()) <= 2
    given = tomllib.loads(toml)
    (plugin,) = files(page)
    if kind == "launcher":
        monkeypatch.setenv("GANLAB_PLUGINS", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "plugins"))))
        write(table)
        sweep = write({"base": "tiny.toml", "variants": {"a": {}}, **given}, "sweep.toml")
        code, out, err = ganlab("sweep", sweep, "--out", "s")
        assert (code, err) == (0, "")
        assert json.loads(Path("s/a/seed-0/run.json").read_text())["status"] == "finished"
        return
    code, out, err = ganlab("run", write(table | given), "--out", "r")
    assert code == 0, out + err
    used = json.loads(Path("r/run.json").read_text())["components"]
    (mine,) = [name for name, origin in used.items() if origin["plugin"] == Path(plugin).stem]
    assert mine.startswith(f"{kind}.")


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_shows_what_is_bundled(kind: str) -> None:
    (name,) = files((FOLDER / f"{kind}.md").read_text())
    assert Path(name).stem not in {part.name for part in load_plugins().registry.of_kind(kind)}


# ---------------------------------------------------------------------------------------------------------------------
# What the plugins compute, held against results that are known
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cls(kind: str, page: str) -> Any:
    """The class of a page's plugin."""
    (component,) = conformance(Path(next(iter(files(page)))))
    return component.cls


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["discriminator"])
def test_spectral_normalisation_against_singular_values(cls: Any) -> None:
    network = cls(width=4).build(ganlab.ImageSpec(1, 8, 8))
    for _ in range(100):  # the power iteration converges over the steps
        network(noise(2, 1, 8, 8), None)
    network.eval()
    for layer in network.layers:
        if hasattr(layer, "weight"):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["loss"])
def test_relativistic_least_squares_by_hand(cls: Any) -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0])  # their means are 2 and -1
    assert cls().discriminator(real, fake) == ((2 - 1) ** 2 + (4 - 1) ** 2) / 2 + ((-2 + 1) ** 2 + (-4 + 1) ** 2) / 2
    assert cls().generator(real, fake) == ((-2 - 1) ** 2 + (-4 - 1) ** 2) / 2 + ((2 + 1) ** 2 + (4 + 1) ** 2) / 2


@pytest.mark.parametrize("kind", ["loss_wrapper"])
def test_the_generator_learns_from_the_best_alone(cls: Any) -> None:
    loss = cls(share=0.5)(Relativistic())
    real, fake = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([5.0, -1.0, 7.0, 0.0], requires_grad=True)
    loss.generator(real, fake).backward()
    assert fake.grad is not None
    assert fake.grad.ne(0).tolist() == [True, False, True, False]
    assert loss.generator(real, fake) == Relativistic().generator(real[[2, 0]], fake[[2, 0]])  # pairs stay pairs
    assert loss.discriminator(real, fake) == Relativistic().discriminator(real, fake)


@pytest.mark.parametrize("kind", ["augmentation"])
def test_noise_has_its_standard_deviation(cls: Any) -> None:
    images = noise(64, 3, 16, 16)
    torch.manual_seed(0)
    added = cls(std=0.2).augment(images) - images
    assert added.std().item() == pytest.approx(0.2, rel=0.01)
    assert added.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", ["optimizer"])
def test_optimistic_adam_against_adams_own_changes(cls: Any) -> None:
    """Where the gradient does not depend on the weight, Adam's changes are the same wherever the weight is."""
    gradients = noise(5, 3)
    weight, plain = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizer, adam = cls(lr=0.1).build([weight]), torch.optim.Adam([plain], lr=0.1, betas=(0.5, 0.9))
    expected, last = torch.zeros(3), torch.zeros(3)
    for gradient in gradients:
        weight.grad, plain.grad, before = gradient.clone(), gradient.clone(), plain.detach().clone()
        optimizer.step()
        adam.step()
        change = plain.detach() - before
        expected, last = expected + 2 * change - last, change
        torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("kind", ["schedule"])
def test_stairs_against_torchs_own(cls: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    torchs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    ours = cls(factor=0.1, every=ganlab.Interval(7))
    for step in range(30):
        assert ours.value(0.3, step, 30) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize("kind", ["dataset"])
def test_the_archives_images_are_all_in_one_split_or_the_other(cls: Any, tmp_path: Path) -> None:
    places = ganlab.Places(tmp_path, tmp_path)
    train, test = (cls("digits.npz").build(places, split) for split in ("train", "test"))
    images = torch.from_numpy(np.load("digits.npz")["images"]).permute(0, 3, 1, 2)
    assert torch.equal(test.images, images[9::10])
    assert len(train.images) + len(test.images) == len(images)
    assert torch.equal(train.condition[:10], torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 0]))
    np.savez("floats.npz", images=np.zeros((20, 8, 8, 1)))
    (tmp_path / "text.npz").write_text("no archive")
    refused = {"gone.npz": "No such file", "floats.npz": r"expected uint8 .* got float64", "text.npz": "text.npz"}
    for file, words in refused.items():
        with pytest.raises(ganlab.ComponentError, match=words):
            cls(file).build(places, "train")


@pytest.mark.parametrize("kind", ["features"])
def test_a_wave_is_in_the_ring_of_its_frequency(cls: Any) -> None:
    columns = torch.arange(16)
    for cycles, ring in ((4, 2), (8, 5)):  # a radius of `cycles / 16` of sqrt(1/2), in 8 rings
        wave = 128 + 100 * torch.cos(2 * math.pi * cycles * columns / 16)
        images = wave.round().to(torch.uint8).expand(1, 1, 16, 16)
        features = cls(rings=8).build(None)(images)[0]
        assert features[1:].argmax() + 1 == ring
        assert features[0] > features[7]  # the mean level


@pytest.mark.parametrize("kind", ["metric"])
def test_sliced_wasserstein_of_equal_and_of_shifted_images(cls: Any, tmp_path: Path) -> None:
    """Images that are all brighter by one step lie further along each direction by its sum."""
    data = torch.randint(0, 200, (300, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)

    def value(generated: torch.Tensor) -> float:
        return float(cls(samples=300).evaluate(an_evaluation(tmp_path, data, generated)).values["sliced_wasserstein"])

    assert value(data) == pytest.approx(0, abs=1e-6)
    directions = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    sums = (directions / directions.norm(dim=0)).sum(0)
    assert value(data + 51) == pytest.approx((51 / 127.5 * sums).abs().mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["tracker"])
def test_the_page_has_every_score_and_the_latest_grid(
    cls: Any, page: str, table: dict[str, Any], write: Callable[..., Path], ganlab: Ganlab
) -> None:
    table |= tomllib.loads("".join(text for language, text in BLOCK.findall(page) if language == "toml"))
    table["metric"] = [{"name": "fid", "samples": 16, "every": 2, "features": "pixels"}]
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    lines = Path("r/README.md").read_text().splitlines()
    assert lines[0] == "# tiny, seed 0"
    (grid,) = [line.partition("(")[2].rstrip(")") for line in lines if line.startswith("![")]
    assert Path("r", grid) == max(Path("r/samples").iterdir())
    scores = [f"| {r['step']} | {r['name']} | {r['value']} |" for r in read_records(Path("r/metrics.jsonl"))]
    assert [line for line in lines if line.startswith("| ") and line[2].isdigit()] == scores
    assert len(scores) == 3


@pytest.mark.parametrize("kind", ["launcher"])
def test_the_words_come_first(cls: Any, tmp_path: Path) -> None:
    task = ganlab.Task("one", ("sh", "-c", "echo $WORD; exit 3"), tmp_path / "logs" / "one.log")
    assert list(cls(words=("env", "WORD=first")).launch([task], jobs=1)) == [(task, 3)]
    assert task.log.read_text() == "first\n"
