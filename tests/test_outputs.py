"""What a game makes of a split, for metrics: held against the run's networks called by hand, on one process and two.

The metrics of images are held against torchmetrics, scikit-image (where it is installed) and a loop over windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from ganlab import ComponentError, ImageDataset, ImageSpec, Rules, load_run, to_float, to_uint8
from ganlab.evaluation.game_outputs import GameOutputs
from ganlab.run.records import read_records
from ganlab.utils.errors import SamplesNotFinite, UserError
from ganlab.utils.paths import places
from ganlab.viz.image_grid import save_grid
from ganlab.viz.pairs import side_by_side
from ganlab_plugins.datasets.digits import Digits
from ganlab_plugins.metrics import (
    code_accuracy,
    codebook_use,
    output_fid,
    psnr,
    reconstruction_error,
    ssim,
    target_accuracy,
)
from ganlab_plugins.metrics._restored_pixels import restored_pixels
from paired_images import PairedImages
from stubs import CPU, StubConfig, StubFeatures, an_evaluation, photos
from test_distributed import forked

Write = Callable[..., Path]
Ganlab = Callable[..., tuple[int, str, str]]

GAME = """
import ganlab, torch
from attrs import frozen
from torch import nn

class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 64))
    def forward(self, images): return self.layers(images).tanh().reshape(-1, 1, 8, 8)

@frozen
class Coding:
    weight: float = 1.0
    def build(self, data):
        move = ganlab.Move("coder", players=("coder", "judge"), terms=self.terms)
        return ganlab.Rules(
            networks={
                "coder": ganlab.Network(Coder),
                "judge": ganlab.Network(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))),
            },
            moves=[move],
            sampler=ganlab.translator_of("coder", source="dataset"),
            outputs={"class_logits": lambda networks, images, condition: networks["judge"](images)},
        )
    def terms(self, turn):
        made = turn.forward("coder", turn.real)
        judged = nn.functional.cross_entropy(turn.forward("judge", turn.real), turn.condition)
        return (made - turn.real).square().mean() + self.weight * judged

@frozen
class Untested:
    def build(self, places, split):
        if split == "test":
            raise ganlab.ComponentError("untested has no test split")
        random = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (64, 1, 8, 8), generator=random).byte()
        return ganlab.ImageDataset(images, "untested", split, torch.arange(64) % 10)

@ganlab.hookimpl
def register_games(register): register("coding", Coding)

@ganlab.hookimpl
def register_datasets(register): register("untested", Untested)
"""

METRICS = [
    {"name": "reconstruction_error", "every": 3},
    {"name": "psnr", "output": "reconstruction"},
    {"name": "target_accuracy", "split": "train"},
]


@pytest.fixture
def coding(table: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """An autoencoder and a classifier of the digits, with an average and metrics of their outputs."""
    (tmp_path / "coding.py").write_text(GAME)
    for name in ("generator", "discriminator", "loss"):
        del table[name]
    table |= {"plugins": ["coding.py"], "game": "coding", "metric": METRICS}
    table["train"] |= {"ema": 0.5, "steps": 6}
    return table


def digits(split: str) -> tuple[Tensor, Tensor]:
    dataset = Digits().build(places(), split)
    assert dataset.condition is not None
    return to_float(dataset.images), dataset.condition


def last_records(run: Path) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in read_records(run / "metrics.jsonl")}


def test_scores_of_outputs_are_those_of_the_networks_by_hand(
    coding: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """Averaged where they are sampled, in eval mode; by `ganlab run` and `ganlab eval` of any step."""
    file = write(coding)
    code, _, err = ganlab("run", file, "--out", "r", "--set", "train.checkpoint_every=3")
    assert (code, err) == (0, "")  # no warning of a floor that there is not
    scores = last_records(Path("r"))
    run = load_run("r")
    (images, labels), (test, _) = digits("train"), digits("test")
    with torch.no_grad():
        made = run.coder(test)
        right = (run.judge(images).argmax(1) == labels).double().mean()
    error = (made - test).double().square().mean()
    assert scores["reconstruction_error"]["value"] == pytest.approx(float(error), rel=1e-6)
    assert scores["psnr"]["value"] == pytest.approx(float(psnr.psnr(made, test).mean()), rel=1e-6)
    assert scores["target_accuracy"]["value"] == pytest.approx(float(right), rel=1e-6)
    for record in scores.values():
        assert "floor" not in record
        assert record["protocol"]["weights"] == "ema"
        assert "condition_sha256" in record["protocol"]["reference"]
    steps = [r["step"] for r in read_records(Path("r/metrics.jsonl")) if r["name"] == "reconstruction_error"]
    assert steps == [0, 3, 6]

    before = len(read_records(Path("r/metrics.jsonl")))
    assert ganlab("eval", "r")[0] == 0
    assert ganlab("eval", "r", "--step", 3, "--metric", "reconstruction_error")[0] == 0
    again = read_records(Path("r/metrics.jsonl"))
    for record in again[before:-1]:
        assert record["value"] == pytest.approx(scores[record["name"]]["value"], rel=1e-9)
        assert record["protocol"] == scores[record["name"]]["protocol"]
    (own,) = (r for r in again[:before] if (r["name"], r["step"]) == ("reconstruction_error", 3))
    assert (again[-1]["step"], again[-1]["protocol"]) == (3, own["protocol"])
    assert again[-1]["value"] == pytest.approx(own["value"], rel=1e-9)


def test_a_game_without_samples(coding: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path) -> None:
    """Its outputs are scored, averaged and shown, where they are images; what needs samples is refused in one line."""
    reconstruction = """"reconstruction": lambda networks, images, condition: networks["coder"](images), """
    source = GAME.replace('            sampler=ganlab.translator_of("coder", source="dataset"),\n', "")
    (tmp_path / "coding.py").write_text(source.replace("outputs={", "outputs={" + reconstruction))
    file = write(coding)
    code, _, err = ganlab("run", file, "--out", "r", "--set", "train.sample_count=4")
    assert (code, err) == (0, "")
    run, (test, _) = load_run("r"), digits("test")
    scores = last_records(Path("r"))
    with torch.no_grad():
        error = (run.coder(test) - test).double().square().mean()
    assert scores["reconstruction_error"]["value"] == pytest.approx(float(error), rel=1e-6)
    assert scores["target_accuracy"]["protocol"]["weights"] == "ema"
    assert {part.name for part in Path("r/checkpoints/step-00000006").glob("ema*")} == {
        "ema.coder.safetensors",
        "ema.judge.safetensors",
    }
    assert all("sample_spread" not in record for record in read_records(Path("r/log.jsonl")))

    train, _ = digits("train")
    chosen = train[torch.linspace(0, len(train) - 1, 4).round().long()]
    with torch.no_grad():
        pairs = torch.cat([chosen, run.coder(chosen)], 3)
    save_grid(side_by_side([to_uint8(part) for part in pairs.split(8, 3)]), tmp_path / "expected.png", 1)
    assert Path("r/samples/step-00000006.png").read_bytes() == (tmp_path / "expected.png").read_bytes()

    none = "the game makes no samples; what it makes of real images is: reconstruction, class_logits"
    for command in (["sample", "r"], ["sample", "r", "--out", "folder"], ["eval", "r", "--truncation", "1"]):
        assert ganlab(*command)[::2] == (2, f"r: {none}\n")
    with pytest.raises(UserError, match=none):
        run.sample(3)
    assert not Path("folder").exists()
    kid = {"name": "kid", "features": "pixels", "samples": 40, "subset_size": 20}
    code, _, err = ganlab("run", write({**coding, "metric": [kid]}), "--out", "q")
    assert (code, err.count("\n")) == (2, 1)
    assert f"metric[0] 'kid': scores samples, and {none}" in err
    assert not Path("q").exists()
    code, _, err = ganlab("eval", "r", "--set", "metric=[{name='kid',features='pixels'}]")
    said = f"scores samples, and {none}; a metric of these asks for them when it prepares"
    assert (code, err.splitlines()[-1]) == (2, f"r: metric 'kid': {said}"), "as a run says it"


def test_a_truncation_that_no_latents_have_is_refused(coding: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    assert ganlab("run", write(coding), "--out", "r")[0] == 0
    for command in ("sample", "eval"):
        code, _, err = ganlab(command, "r", "--truncation", "0.5")
        assert (code, err) == (
            2,
            "--truncation 0.5: the game's sampler takes none: its latents are the same with any\n",
        )


@pytest.mark.extended
@pytest.mark.torchrun
def test_two_processes_score_the_outputs_that_one_does(
    coding: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    """And the protocol names an option that the outputs may depend on."""
    assert ganlab("run", write(coding), "--out", "r")[0] == 0
    scores = last_records(Path("r"))
    forked(2, tmp_path, "eval", "r", "--set", "game.weight=2.0")
    for record in read_records(Path("r/metrics.jsonl"))[-3:]:
        assert record["value"] == pytest.approx(scores[record["name"]]["value"], rel=1e-6)
        assert record["protocol"] == scores[record["name"]]["protocol"] | {"overrides": {"game.weight": 2.0}}


@pytest.mark.extended
@pytest.mark.slow
def test_scoring_outputs_leaves_the_training_as_it_is(coding: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    coding["metric"][1]["every"] = 1
    for name, more in (("scored", ()), ("bare", ("--set", "metric=[]"))):
        assert ganlab("run", write(coding), "--out", name, *more)[0] == 0
    for name in ("coder", "judge"):
        first, second = (load_run(run).networks[name].state_dict() for run in ("scored", "bare"))
        assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(
    ("metric", "dataset", "said"),
    [
        (
            {"name": "psnr", "output": "reconstruction"},
            "untested",
            "metric[0] 'psnr': untested has no test split",
        ),
        (
            {"name": "psnr", "output": "reconstructoin"},
            "digits",
            "metric[0] 'psnr': the game 'coding' has no output 'reconstructoin'; it has: class_logits, reconstruction; "
            "did you mean 'reconstruction'?",
        ),
        (
            {"name": "ssim", "output": "reconstruction"},
            "digits",
            "metric[0] 'ssim': images of 8x8 are smaller than the window; set `window` to an odd number from 3 to 8; "
            "it is 11",
        ),
        (
            {"name": "psnr", "output": "reconstruction", "luminance": True},
            "digits",
            "metric[0] 'psnr': luminance = true needs images of 3 channels; these have 1",
        ),
        (
            {"name": "ssim", "output": "reconstruction", "border": 4},
            "digits",
            "metric[0] 'ssim': border = 4 leaves nothing of images of 8x8",
        ),
    ],
)
def test_a_game_without_the_output_is_refused_before_training(
    metric: dict[str, Any], dataset: str, said: str, coding: dict[str, Any], write: Write, ganlab: Ganlab
) -> None:
    coding |= {"metric": [metric], "dataset": dataset}
    for command in (("--out", "r"), ("--dry-run",)):
        code, _, err = ganlab("run", write(coding), *command)
        assert (code, err.count("\n")) == (2, 1)
        assert err.rstrip().endswith(said)
    assert not Path("r").exists()


def test_an_ordinary_run_has_no_outputs(table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path) -> None:
    """Neither a GAN, nor images of any tool, nor data without a test split."""
    code, _, err = ganlab("run", write({**table, "metric": [{"name": "psnr"}]}))
    assert (code, err.count("\n")) == (2, 1)
    assert "metric[0] 'psnr': the game 'gan' has no output 'translation'; it has none" in err
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    code, _, err = ganlab("eval", "r", "--metric", "reconstruction_error")
    assert (code, err.strip()) == (
        2,
        "r: metric 'reconstruction_error': the game 'gan' has no output 'reconstruction'; it has none",
    )
    assert read_records(Path("r/metrics.jsonl")) == []
    np.savez("x.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    code, _, err = ganlab("score", "x.npz", "--against", "digits", "--metric", "psnr")
    assert (code, err.count("\n")) == (2, 1)
    assert "metric 'psnr': only the networks of a run have an output 'translation'; these are images alone" in err


def test_a_sampler_of_condition_images_translates_the_test_split(
    table: dict[str, Any], write: Write, ganlab: Ganlab
) -> None:
    """pix2pix says nothing of outputs; its generator is called by hand."""
    import paired_images
    from support import REPOSITORY

    method = REPOSITORY / "tests" / "methods" / "pix2pix.py"
    common = {key: table[key] for key in ("name", "optimizer", "train")}
    metrics = [{"name": "psnr"}, {"name": "ssim", "window": 7}, {"name": "target_accuracy"}]
    paired = {"name": "paired", "count": 200}
    table = {
        **common,
        "plugins": [str(method), paired_images.__file__],
        "dataset": paired,
        "game": {"name": "small_pix2pix", "dropout": 0.0},
    }
    code, _, err = ganlab("run", write(table | {"metric": metrics}))
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "metric[2] 'target_accuracy': the game 'small_pix2pix' has no output 'class_logits'; it has: translation" in err
    )
    code, _, err = ganlab("run", write(table | {"metric": metrics[:2]}), "--out", "r")
    assert code == 0, err
    scores = last_records(Path("r"))
    data = PairedImages(200).build(places(), "test")
    assert data.condition is not None
    with torch.no_grad():
        made = load_run("r").generator(to_float(data.condition))
    assert scores["psnr"]["value"] == pytest.approx(float(psnr.psnr(made, to_float(data.images)).mean()), rel=1e-6)
    assert scores["ssim"]["value"] == pytest.approx(float(ssim.ssim(made, to_float(data.images), 7).mean()), rel=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# The metrics themselves
# ---------------------------------------------------------------------------------------------------------------------


def pairs(channels: int = 3) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1], and others near to them."""
    target = to_float(photos(6, 0, channels))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    return (target + 0.2 * noise).clamp(-1.2, 1.2), target


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_are_those_of_torchmetrics(channels: int) -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    made, target = pairs(channels)
    levels = [to_uint8(images).double() for images in (made, target)]
    theirs = peak_signal_noise_ratio(*levels, data_range=255.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr.psnr(made, target), theirs)
    _, full = structural_similarity_index_measure(*levels, data_range=255.0, reduction="none", return_full_image=True)
    theirs = full[..., 5:-5, 5:-5].flatten(1).mean(1)  # its own mean is also over windows on mirrored borders
    torch.testing.assert_close(ssim.ssim(made, target), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_are_those_of_scikit_image(channels: int) -> None:
    """Its Gaussian window of 3.5 sigma has 11 pixels."""
    metrics = pytest.importorskip("skimage.metrics")
    made, target = pairs(channels)
    for index in range(len(made)):
        a, b = (to_uint8(images[index]).permute(1, 2, 0).numpy() for images in (made, target))
        assert float(psnr.psnr(made, target)[index]) == pytest.approx(metrics.peak_signal_noise_ratio(b, a))
        theirs = metrics.structural_similarity(
            *(b, a), channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ssim.ssim(made, target)[index]) == pytest.approx(theirs, rel=1e-9)


def test_luminance_without_a_border_is_that_of_super_resolution() -> None:
    """The levels of BT.601 for the corners of the colour cube; what is cut off first scores the same."""
    corners = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    levels = restored_pixels(to_float(corners[:, :, None, None]), True, 0)
    assert levels.flatten().tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])
    made, target = pairs()
    inside = (..., slice(4, -4), slice(4, -4))
    assert torch.equal(psnr.psnr(made, target, border=4), psnr.psnr(made[inside], target[inside]))
    assert torch.equal(ssim.ssim(made, target, border=4), ssim.ssim(made[inside], target[inside]))
    a, b = (
        16 + to_uint8(x).double().movedim(1, -1) @ torch.tensor([65.481, 128.553, 24.966]).double() / 255
        for x in pairs()
    )
    wanted = 10 * (255**2 / (a - b).square().flatten(1).mean(1)).log10()
    torch.testing.assert_close(psnr.psnr(made, target, luminance=True), wanted)


def test_luminance_is_that_of_scikit_image() -> None:
    colour = pytest.importorskip("skimage.color")
    made, _ = pairs()
    theirs = colour.rgb2ycbcr(to_uint8(made).numpy(), channel_axis=1)[:, :1]
    np.testing.assert_allclose(restored_pixels(made, True, 0), theirs, rtol=1e-12)


@pytest.mark.parametrize("window", [3, 7])
def test_ssim_is_the_mean_over_windows(window: int) -> None:
    """One window after another, with numpy's weighted means."""
    made, target = (images[:1, :1, :9, :10] for images in pairs())
    a, b = (to_uint8(images)[0, 0].double().numpy() for images in (made, target))
    near = np.arange(window) - window // 2
    weights = np.exp(-(near[:, None] ** 2 + near[None] ** 2) / 4.5)
    found = []
    for top in range(9 - window + 1):
        for left in range(10 - window + 1):
            x, y = (image[top : top + window, left : left + window] for image in (a, b))
            (mx, my), covariance = (np.average(v, weights=weights) for v in (x, y)), None
            vx, vy = (np.average((v - m) ** 2, weights=weights) for v, m in ((x, mx), (y, my)))
            covariance = np.average((x - mx) * (y - my), weights=weights)
            c1, c2 = 2.55**2, 7.65**2
            found.append((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert float(ssim.ssim(made, target, window)) == pytest.approx(np.mean(found), rel=1e-9)


def test_closed_forms() -> None:
    target = torch.full((2, 3, 16, 16), 100 / 127.5 - 1)
    level = 2 / 255
    near = target + torch.tensor([level, 10 * level])[:, None, None, None]
    expected = [20 * math.log10(255), 20 * math.log10(25.5)]
    torch.testing.assert_close(psnr.psnr(near, target), torch.tensor(expected, dtype=torch.float64))
    assert psnr.psnr(target, target).tolist() == [100.0, 100.0]
    assert ssim.ssim(target, target).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("shape", "value"), [((1, 8, 8), math.nan), ((1, 8, 8), math.inf), ((5,), math.nan)])
def test_an_output_that_is_not_finite_is_no_score(shape: tuple[int, ...], value: float) -> None:
    """As of samples. Codes are whole numbers, which always are; logits may be masked."""

    def made(networks: Any, images: Tensor, condition: Any) -> Tensor:
        rows = torch.ones(4, *shape)
        rows[2] = value
        return rows

    def masked(networks: Any, images: Tensor, condition: Any) -> Tensor:
        return torch.tensor([0.0, -math.inf]).expand(4, 2)

    outputs = {"made": made, "codes": lambda networks, images, condition: torch.arange(4), "masked": masked}
    rules = Rules(networks={}, moves=[], outputs=outputs)
    data = ImageDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "black", "test")
    of_game = GameOutputs("coding", rules, ImageSpec(1, 8, 8), networks={})
    with pytest.raises(SamplesNotFinite, match="the output 'made' of the game 'coding' is not finite: NaN or infinity"):
        list(of_game.batches("made", data, CPU))
    ((codes, _, _),) = of_game.batches("codes", data, CPU)
    assert codes.tolist() == [0, 1, 2, 3]
    ((logits, _, _),) = of_game.batches("masked", data, CPU)
    assert logits.tolist() == [[0.0, -math.inf]] * 4


def evaluated(metric: Any, tmp_path: Path, *batches: tuple[Tensor, Tensor, Tensor | None]) -> dict[str, Any]:
    """The values of a metric that is given these batches of an output."""
    reference = torch.cat([to_uint8(images) for _, images, _ in batches])
    labels = [labels for _, _, labels in batches if labels is not None]
    data = ImageDataset(reference, "pairs", "test", torch.cat(labels) if labels else None)
    evaluation = attrs.evolve(
        an_evaluation(tmp_path), dataset=lambda split: data, outputs=lambda name, split: iter(batches)
    )
    return dict(metric.evaluate(evaluation).values)


def test_reconstruction_errors(tmp_path: Path) -> None:
    made, target = pairs()
    batches = [(made[:4], target[:4], None), (made[4:], target[4:], None)]
    for error, theirs in (("squared", torch.nn.functional.mse_loss), ("absolute", torch.nn.functional.l1_loss)):
        (value,) = evaluated(reconstruction_error.ReconstructionError(error=error), tmp_path, *batches).values()  # type: ignore[arg-type]
        assert value == pytest.approx(float(theirs(made, target)), rel=1e-6)


def test_fid_of_an_output_is_torchmetrics_own(tmp_path: Path) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Network(torch.nn.Module):
        num_features = 3

        def forward(self, batch: Tensor) -> Tensor:
            return StubFeatures(3)(batch).double()

    made, target = pairs()
    metric = FrechetInceptionDistance(Network(), antialias=False)
    metric.update(to_uint8(target), real=True)
    metric.update(to_uint8(made), real=False)
    config = output_fid.OutputFID(features=StubConfig(StubFeatures(3)))
    batches = [(made[:4], target[:4], None), (made[4:], target[4:], None)]
    (value,) = evaluated(config, tmp_path, *batches).values()
    assert value == pytest.approx(float(metric.compute()), rel=1e-6)
    (nothing,) = evaluated(config, tmp_path, (target, target, None)).values()
    assert abs(nothing) < 1e-6 < value


def test_target_accuracy(tmp_path: Path) -> None:
    logits = torch.eye(4)[torch.tensor([0, 1, 2, 3, 0])]
    labels, images = torch.tensor([0, 1, 2, 0, 3]), torch.zeros(5, 1, 4, 4)
    assert evaluated(target_accuracy.TargetAccuracy(), tmp_path, (logits, images, labels)) == {"target_accuracy": 0.6}
    with pytest.raises(ComponentError, match=r"has the shape \(3,\); wanted logits of 4 classes or more"):
        evaluated(target_accuracy.TargetAccuracy(), tmp_path, (logits[:, :3], images, labels))
    with pytest.raises(ComponentError, match=r"pairs \(test\) has no class labels"):
        evaluated(target_accuracy.TargetAccuracy(), tmp_path, (logits, images, None))


def test_code_accuracy_by_hand(tmp_path: Path) -> None:
    """Code 0 has both zeros and a two, code 2 both ones; a class is assigned once, in whatever order."""
    logits, images = torch.eye(4)[torch.tensor([0, 0, 0, 2, 2, 3])], torch.zeros(6, 1, 4, 4)
    metric, labels = code_accuracy.CodeAccuracy(), torch.tensor([0, 0, 2, 1, 1, 2])
    batches = [(logits[:4], images[:4], labels[:4]), (logits[4:], images[4:], labels[4:])]
    assert evaluated(metric, tmp_path, *batches) == {"code_accuracy": 5 / 6}
    one = torch.eye(4)[torch.zeros(6, dtype=torch.int64)]  # a single code for all: only one of the classes is right
    assert evaluated(metric, tmp_path, (one, images, labels)) == {"code_accuracy": 2 / 6}
    more = torch.eye(6)  # more codes than classes: the others are wrong
    assert evaluated(metric, tmp_path, (more, images, labels)) == {"code_accuracy": 3 / 6}
    with pytest.raises(ComponentError, match=r"has the shape \(1, 4, 4\); wanted logits of a code"):
        evaluated(metric, tmp_path, (images, images, labels))
    with pytest.raises(ComponentError, match=r"pairs \(test\) has no class labels"):
        evaluated(metric, tmp_path, (logits, images, None))


def test_code_accuracy_is_the_best_of_all_assignments(tmp_path: Path) -> None:
    """Tried one after another, on the table that scikit-learn counts."""
    from itertools import permutations

    from sklearn.metrics.cluster import contingency_matrix

    random = torch.Generator().manual_seed(0)
    codes, labels = (torch.randint(5, (200,), generator=random) for _ in range(2))
    labels = torch.where(torch.rand(200, generator=random) < 0.5, (codes + 2) % 5, labels)
    counts = contingency_matrix(labels.numpy(), codes.numpy())
    best = max(sum(counts[row, column] for row, column in enumerate(chosen)) for chosen in permutations(range(5)))
    batch = (torch.eye(5)[codes], torch.zeros(200, 1, 4, 4), labels)
    assert evaluated(code_accuracy.CodeAccuracy(), tmp_path, batch) == {"code_accuracy": best / 200}


def test_codebook_use_of_shares_is_that_of_all_codes(tmp_path: Path) -> None:
    """Maps of codes of images; of many processes one may have no image, and the others' rows all the same."""
    codes = torch.tensor([[[0, 0], [0, 7]], [[7, 3], [7, 3]]])
    shares = np.array([3, 3, 2]) / 8
    wanted = {"codes_used": 3.0, "code_perplexity": pytest.approx(np.exp(-(shares * np.log(shares)).sum()))}
    images = torch.zeros(2, 1, 4, 4)
    assert evaluated(codebook_use.CodebookUse(), tmp_path, (codes, images, None)) == wanted
    without_a_share = attrs.evolve(
        an_evaluation(tmp_path, to_uint8(images)),
        outputs=lambda name, split: iter([]),
        gather=lambda own: torch.cat([own, codes.flatten()]),
    )
    assert codebook_use.CodebookUse().evaluate(without_a_share).values == wanted


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    made, target = pairs()
    with pytest.raises(ComponentError, match=r"'translation' has the shape \(1, 32, 32\); wanted .* \(3, 32, 32\)"):
        evaluated(psnr.PSNR(), tmp_path, (made[:, :1], target, None))
