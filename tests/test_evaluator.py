"""Scoring: floors, what metrics share, batches that fit, shares of a count; each held against its definition."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from ganlab import ComponentError, FittingBatches, ImageDataset, NoSplit, Places, Scores, UserError
from ganlab.evaluation.evaluator import Evaluator, _code_sha256
from ganlab.evaluation.run_metrics import run_metrics_with_progress
from ganlab.evaluation.sampling import sample
from ganlab.utils.hashing import file_sha256, sha256
from ganlab_plugins.metrics import fid
from stubs import CPU, StubFeatures, images


@frozen
class TwoSplits:
    """Noise in a training split, and in a test split of `test` images; 0 for no such split, -1 for a broken one."""

    test: int = 20

    def build(self, places: Places, split: str) -> ImageDataset:
        if split == "test" and self.test < 1:
            raise ComponentError("a.png cannot be read") if self.test else NoSplit("no test split")
        return ImageDataset(images(50, 1) if split == "train" else images(self.test, 2), "noise", split)


@define(eq=False)
class MeanShade:
    """The mean of all pixels, so that what was scored is known; `asked` counts evaluations."""

    every: int = 0
    split: str = "train"
    least: int = 1
    times: int = 2
    asked: list[int] = field(factory=list, repr=False)

    def evaluate(self, evaluation: Any) -> Scores:
        made = torch.cat(list(evaluation.generated(30, 0)))
        self.asked.append(len(made))
        if len(made) < self.least:
            raise ComponentError(f"{len(made)} images are fewer than {self.least}")
        protocol = {"metric": "shade", "reference": {"split": self.split}, "generated": 30, "least": self.least}
        value = float(made.double().mean())
        details = {"twice": {"times": self.times}}
        return Scores({"shade": value, "twice": self.times * value}, protocol, {"shade": "lower"}, details)


def an_evaluator(tmp_path: Path, **options: Any) -> Evaluator:
    return Evaluator(TwoSplits(**options), None, Places(tmp_path / "data", tmp_path / "cache"), CPU)


def test_the_floor_is_the_score_of_real_images_computed_once(tmp_path: Path) -> None:
    metric = MeanShade()
    evaluator = an_evaluator(tmp_path)
    shade, twice = evaluator.for_images(images(30, 9)).score(metric)
    assert shade["floor"] == {"value": float(images(20, 2).double().mean()), "split": "test", "count": 20}
    assert "floor" not in twice  # a value that is not ranked has none
    assert metric.asked == [30, 20]
    for again in (evaluator, an_evaluator(tmp_path)):  # in memory, and on disk
        assert again.for_images(images(30, 8)).score(metric)[0]["floor"] == shade["floor"]
    assert metric.asked == [30, 20, 30, 30]


def test_the_floor_of_a_test_reference_is_of_training_images(tmp_path: Path) -> None:
    """Random ones, as many as were asked for."""
    (shade, _) = an_evaluator(tmp_path).for_images(images(30, 9)).score(MeanShade(split="test"))
    assert (shade["floor"]["split"], shade["floor"]["count"]) == ("train", 30)
    assert shade["floor"]["value"] != float(images(50, 1)[:30].double().mean())


@pytest.mark.parametrize("second", [MeanShade(least=2), MeanShade(times=3)])
def test_another_protocol_has_another_floor(second: MeanShade, tmp_path: Path) -> None:
    first = MeanShade()
    evaluator = an_evaluator(tmp_path)
    for metric in (first, second):
        evaluator.for_images(images(30, 9)).score(metric)
    assert second.asked == [30, 20]


def test_no_floor_where_there_is_none(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert "floor" not in an_evaluator(tmp_path, test=0).for_images(images(30, 9)).score(MeanShade())[0]
    assert len(recwarn) == 0
    evaluator = an_evaluator(tmp_path)
    for _ in range(2):
        assert "floor" not in evaluator.for_images(images(30, 9)).score(MeanShade(least=25))[0]
    broken = an_evaluator(tmp_path, test=-1)
    for _ in range(2):
        assert "floor" not in broken.for_images(images(30, 9)).score(MeanShade())[0]
    few, unread = (str(warning.message) for warning in recwarn)
    assert few == "shade: no floor from real images: 20 images are fewer than 25"
    assert unread == "shade: no floor from real images: a.png cannot be read"


def test_the_floor_of_a_bundled_metric_does_not_depend_on_which_modules_are_loaded() -> None:
    """Else floors would be computed again in other commands."""
    own = [file_sha256(Path(fid.__file__))]
    assert _code_sha256(fid.FID.evaluate) == sha256(json.dumps(own).encode())


def test_a_metric_that_was_edited_has_another_floor(tmp_path: Path) -> None:
    for factor in (1, 100):
        scope: dict[str, Any] = {"MeanShade": MeanShade, "Scores": Scores}
        file = tmp_path / "metric.py"
        file.write_text(f"""
class Edited(MeanShade):
    def evaluate(self, evaluation):
        made = MeanShade.evaluate(self, evaluation)
        return Scores({{name: {factor} * value for name, value in made.values.items()}}, made.protocol, made.better)
""")
        exec(compile(file.read_text(), str(file), "exec"), scope)
        (shade, _) = an_evaluator(tmp_path).for_images(images(30, 9)).score(scope["Edited"]())
        assert shade["floor"]["value"] == pytest.approx(factor * float(images(20, 2).double().mean()))


@define(eq=False)
class Refusing(MeanShade):
    """It is given no images when it prepares."""

    def prepare(self, evaluation: Any) -> None:
        assert list(evaluation.generated(30, 0)) == []
        raise ComponentError("has no weights")


def test_no_metric_runs_where_another_refuses(tmp_path: Path) -> None:
    """Else the scores of hours would be lost, since records are written when all metrics have run."""
    first, runner = MeanShade(), an_evaluator(tmp_path).for_images(images(30, 9))
    with pytest.raises(UserError, match=r"^r: metric 'second': has no weights$"):
        run_metrics_with_progress(runner, [("first", "", first), ("second", "", Refusing())], "r")
    assert first.asked == []
    assert len(run_metrics_with_progress(runner, [("first", "", first)], "r")) == 2


@define(eq=False)
class Wrong:
    """A third-party metric that returns what no metric may."""

    given: Any
    every: int = 0

    def evaluate(self, evaluation: Any) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "evaluate gave NoneType, wanted ganlab.Scores"),
        (Scores({"x": "high"}, {}, {}), "the value 'x' is 'high', wanted a number"),  # type: ignore[dict-item]
        (Scores({"x": 1.0}, {}, {"y": "lower"}), "better names 'y', and the values are x"),
        (Scores({"x": 1.0}, {}, {"x": "min"}), "better is 'min' for 'x', wanted 'lower' or 'higher'"),  # type: ignore[dict-item]
        (Scores({"x": 1.0}, {}, {}, {"z": {}}), "details names 'z', and the values are x"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_refused(given: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=said):
        an_evaluator(tmp_path).for_images(images(30, 9)).score(Wrong(given))


def test_a_value_has_its_own_details(tmp_path: Path) -> None:
    shade, twice = an_evaluator(tmp_path).for_images(images(30, 9)).score(MeanShade())
    assert twice["protocol"] == shade["protocol"] | {"times": 2}


def test_metrics_share_features_and_images(tmp_path: Path) -> None:
    """FID, KID and FID again with other options, on the same 40 images: the network sees each image once."""
    from ganlab_plugins.metrics.fid import FID
    from ganlab_plugins.metrics.kid import KID

    features = StubFeatures()

    @frozen
    class Config:
        def build(self, evaluation: Any) -> StubFeatures:
            built.append(1)
            return features

    built: list[int] = []
    evaluator = an_evaluator(tmp_path, test=0)
    scoring = evaluator.for_images(images(40, 9))
    metrics = [FID(samples=40, features=Config()), KID(samples=40, features=Config(), subset_size=10)]
    scoring.score(metrics[0])
    before = features.calls
    scoring.score(FID(samples=40, features=Config(), split="train", infinity=False))
    assert features.calls == before
    scoring.score(metrics[1])
    assert features.calls == before + 1  # the reference's features, of which FID keeps the moments only
    assert built == [1]
    alone = [evaluator.for_images(images(40, 9)).score(metric)[0]["value"] for metric in metrics]
    assert alone == [scoring.score(metric)[0]["value"] for metric in metrics]


class Linear(nn.Module):
    latent_dim = 3

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        return torch.tanh(z)[:, :, None, None]


@pytest.mark.parametrize("count", [1, 5, 128, 300])
@pytest.mark.parametrize("parts", [2, 3])
def test_shares_of_a_count_are_the_whole(count: int, parts: int) -> None:
    whole = torch.cat([images for images, _ in sample(Linear(), count, 0, CPU)])
    edges = [count * i // parts for i in range(parts + 1)]
    shares = [[i for i, _ in sample(Linear(), count, 0, CPU, share=edge)] for edge in itertools.pairwise(edges)]
    parts_of_shares = [part for share in shares for part in share]
    assert torch.equal(torch.cat(parts_of_shares), whole)
    assert all(len(part) for part in parts_of_shares), "a network need not take a batch of none"


def test_batches_are_halved_where_memory_runs_out(recwarn: pytest.WarningsRecorder) -> None:
    sizes: list[int] = []

    def hungry(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * rows

    batches = FittingBatches(hungry, 8)
    rows = torch.arange(10.0)[:, None]
    assert torch.equal(batches(rows), 2 * rows)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert torch.equal(batches(rows[:4]), 2 * rows[:4])  # it has learned
    assert sizes[7:] == [2, 2]
    assert [str(w.message) for w in recwarn] == [
        "out of memory at 8 images at a time; continuing with 4",
        "out of memory at 4 images at a time; continuing with 2",
    ]
    assert batches(rows[:0]).shape == (0, 1)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_sampling_keeps_the_size_that_fits() -> None:
    sizes: list[int] = []

    class Hungry(Linear):
        def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
            sizes.append(len(z))
            if len(z) > 40:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(z, condition)

    made = torch.cat([images for images, _ in sample(Hungry(), 300, 0, CPU)])
    assert sizes == [128, 64, 32, 32, 32, 32, *[32] * 4, 32, 12]
    assert torch.equal(made, torch.cat([images for images, _ in sample(Linear(), 300, 0, CPU)]))


def test_other_failures_and_one_image_too_many_are_raised() -> None:
    def failing(rows: Tensor) -> Tensor:
        raise RuntimeError(message)

    for message in ("DefaultCPUAllocator: can't allocate memory", "mat1 and mat2 shapes cannot be multiplied"):
        with pytest.raises(RuntimeError, match=message[:10]):
            FittingBatches(failing, 4)(torch.zeros(1 if "allocate" in message else 4, 2))


WRITER = """
import sys, time
from pathlib import Path
import torch
from ganlab import cached_tensors

def compute():
    with open("computed", "a") as stream: stream.write("once\\n")
    time.sleep(1)
    return {"x": torch.arange(1000.0)}

Path(f"ready-{sys.argv[1]}").touch()
while len(list(Path().glob("ready-*"))) < 4: time.sleep(0.01)
found = cached_tensors(Path("cache"), "test", {"key": 1}, compute)
assert torch.equal(found["x"], torch.arange(1000.0))
"""


@pytest.mark.extended
@pytest.mark.slow
def test_of_many_writers_of_one_cache_one_computes(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(number)]) for number in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert Path("computed").read_text() == "once\n"
