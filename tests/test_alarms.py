"""The alarms: what losses ask for against closed forms, when an alarm comes and goes, runs that go wrong for real."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ganlab.run import alarms
from ganlab.run.alarms import COLLAPSED, STOPPED, WON, Alarms, spans
from ganlab.run.loss_optimum import optimal_gap
from ganlab.run.records import read_records
from ganlab.run.sample_spread import real_spread, spread
from ganlab.viz.progress import LiveView, PlainView
from ganlab_plugins.loss_wrappers.label_smoothing import LabelSmoothing
from ganlab_plugins.losses.bce import BCE
from ganlab_plugins.losses.least_squares import LeastSquares
from ganlab_plugins.losses.relativistic import Relativistic
from run_folders import assert_same_bits, records
from saboteur import interrupted_at

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# ---------------------------------------------------------------------------------------------------------------------
# What a loss asks for
# ---------------------------------------------------------------------------------------------------------------------


class Discriminators:
    """A loss of which only the discriminator's half is there."""

    def __init__(self, compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.discriminator = compute


HINGE = Discriminators(lambda real, fake: (1 - real).relu().mean() + (1 + fake).relu().mean())
ENERGY = Discriminators(lambda real, fake: real.square().mean() + (3 - fake).relu().mean())


@pytest.mark.parametrize(
    ("loss", "gap"),
    [
        # Bounded by no logit, so as far as the probe looks: sigmoids of 8 and -8.
        (BCE(), sigmoid(8) - sigmoid(-8)),
        (BCE(reduction="mean"), sigmoid(8) - sigmoid(-8)),
        # The cross-entropy of a target has its minimum where the sigmoid is the target.
        (BCE(real_target=0.9), 0.9 - sigmoid(-8)),
        (LabelSmoothing(real=0.8, fake=0.1)(BCE()), 0.8 - 0.1),
        (LeastSquares(), sigmoid(1) - sigmoid(0)),
        (LeastSquares(real_target=2.5, fake_target=-2.5), sigmoid(2.5) - sigmoid(-2.5)),
        (HINGE, sigmoid(1) - sigmoid(-1)),
        (Relativistic(), sigmoid(8) - sigmoid(-8)),
        # A relativistic hinge: any two logits that lie 1 apart; those next to 0 are +-1/2.
        (Discriminators(lambda real, fake: (1 - (real - fake)).relu().mean()), sigmoid(0.5) - sigmoid(-0.5)),
        # Energies: real images are to have the smaller output.
        (ENERGY, sigmoid(0) - sigmoid(3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_gap_that_a_loss_asks_for(loss: Any, gap: float) -> None:
    assert optimal_gap(loss) == pytest.approx(gap, abs=0.005)


@pytest.mark.parametrize(
    "compute",
    [
        lambda real, fake: fake.mean() - real.mean(),  # Wasserstein
        lambda real, fake: 1e-3 * (fake - real).mean(),
        lambda real, fake: (real - fake).square().mean(),  # asks for no gap
        lambda real, fake: real.mean() * 0 + 1,
        lambda real, fake: real.mean() * torch.nan,
        lambda real, fake: real,  # no scalar
        lambda real, fake: real.reshape(64, -1),
        lambda real, fake: exec("raise SystemExit(3)"),
    ],
)
def test_a_loss_that_asks_for_no_gap_has_none(compute: Any) -> None:
    assert optimal_gap(Discriminators(compute)) is None


def test_the_probe_changes_nothing() -> None:
    class Counting:
        def __init__(self) -> None:
            self.calls = torch.zeros(())

        def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            random.random()
            return BCE().discriminator(real, fake) + 0 * torch.rand(())

    loss, before = Counting(), (torch.get_rng_state(), random.getstate())
    assert optimal_gap(loss) is not None  # type: ignore[arg-type]
    assert loss.calls == 0
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


# ---------------------------------------------------------------------------------------------------------------------
# The spread of images
# ---------------------------------------------------------------------------------------------------------------------


def test_the_spread_is_the_root_of_the_mean_variance() -> None:
    images = torch.randint(0, 256, (50, 3, 4, 5), dtype=torch.uint8)
    wanted = images.double().var(0).mean().sqrt()
    assert spread((part, None) for part in images.split(7)) == pytest.approx(float(wanted), rel=1e-12)
    # Squares of so many of the largest values do not fit into a float.
    images = 255 - torch.randint(0, 2, (2000, 1, 2, 2), dtype=torch.uint8)
    assert spread([(images, None)]) == pytest.approx(float(images.double().var(0).mean().sqrt()), rel=1e-9)
    assert spread([(images[:1].expand(9, -1, -1, -1), None)]) == 0
    # Of floats, whose mean is a thousand times as large.
    values = 1000 + torch.randn(50, 3, 4, 5)
    deviation = np.sqrt(values.numpy().astype(np.float64).var(0, ddof=1).mean())
    assert spread((part, None) for part in values.split(7)) == pytest.approx(deviation, rel=1e-9)


def test_points_are_images() -> None:
    points = torch.tensor([[0, 10], [20, 30]], dtype=torch.uint8).view(2, 2, 1, 1)
    assert spread([(points, None)]) == pytest.approx(math.sqrt(200))


def test_within_classes_it_is_the_residual_of_a_one_way_analysis_of_variance() -> None:
    images = torch.randint(0, 256, (60, 2, 3, 3), dtype=torch.uint8)
    labels = torch.randint(0, 4, (60,))
    images += (20 * labels).to(torch.uint8)[:, None, None, None]
    rows = images.double().flatten(1)
    residual = sum((rows[labels == one] - rows[labels == one].mean(0)).square().sum(0) for one in range(4))
    wanted = torch.as_tensor(residual).div(60 - 4).mean().sqrt()
    parts = zip(images.split(7), labels.split(7), strict=True)
    assert spread(parts) == pytest.approx(float(wanted), rel=1e-12)
    one_picture_a_class = torch.arange(4)[labels].mul(60).to(torch.uint8)[:, None, None, None]
    assert spread([(one_picture_a_class, labels)]) == 0
    assert spread([(one_picture_a_class, None)]) > 50


def test_every_class_of_the_data_is_looked_at() -> None:
    labels = torch.arange(1000) % 16
    images = torch.randint(0, 2, (1000, 1, 2, 2), dtype=torch.uint8) * 100 + labels.to(torch.uint8)[:, None, None, None]
    assert real_spread(images, labels) == pytest.approx(50, abs=6), "the classes' own levels are left out"
    assert real_spread(labels.to(torch.uint8)[:, None, None, None], labels) == 0
    assert real_spread(images[:22], labels[:22]) == 0, "too few"
    assert real_spread(images[:23], labels[:23]) > 0


def test_the_data_is_looked_at_from_end_to_end() -> None:
    """A data set in the order of its classes is not judged by the first of them."""
    images = torch.zeros(1000, 1, 2, 2, dtype=torch.uint8)
    images[500:] = 200
    assert real_spread(images) == pytest.approx(100 * math.sqrt(64 / 63))
    assert real_spread(images[:7]) == 0, "too few"
    assert real_spread(images[:100]) == 0, "all the same"


# ---------------------------------------------------------------------------------------------------------------------
# When an alarm comes and goes
# ---------------------------------------------------------------------------------------------------------------------


def on_at(own: Alarms, records: list[dict[str, Any]]) -> dict[int, list[str]]:
    return {record["step"]: on for record in records if (on := own.read(record))}


def ticks(gaps: dict[int, float]) -> list[dict[str, Any]]:
    return [{"step": step, "d_real": (1 + gap) / 2, "d_fake": (1 - gap) / 2} for step, gap in gaps.items()]


def test_a_discriminator_has_won_after_long_enough_and_until_it_is_met() -> None:
    gaps = {100: 0.5, **dict.fromkeys(range(200, 1400, 100), 0.96), 1400: 0.94, 1500: 0.96, 2400: 0.96, 2500: 0.96}
    assert on_at(Alarms(1.0), ticks(gaps)) == {step: [WON] for step in (1100, 1200, 1300, 2400, 2500)}
    # Of least squares much less is asked; what a loss with the other sign asks for is the other way round.
    gaps = dict.fromkeys(range(500, 2001, 500), 0.22)
    assert on_at(Alarms(0.231), ticks(gaps)) == {step: [WON] for step in (1000, 1500, 2000)}
    assert on_at(Alarms(-0.231), ticks(gaps)) == {}
    assert on_at(Alarms(-0.231), ticks({step: -gap for step, gap in gaps.items()})).keys() == {1000, 1500, 2000}
    assert on_at(Alarms(None), ticks(dict.fromkeys(range(500, 2001, 500), 1.0))) == {}, "not armed"


def test_what_is_not_finite_raises_no_alarm() -> None:
    """In a record that was read from log.jsonl NaN is text."""
    for nothing in (math.nan, "nan"):
        records = [{"step": step, "d_real": nothing, "d_fake": 0.0} for step in (1000, 2000, 3000)]
        assert on_at(Alarms(1.0), records) == {}


def test_samples_have_collapsed_after_long_enough_and_until_they_spread() -> None:
    low, high = alarms.SPREAD_SHARE / 2, alarms.SPREAD_SHARE * 2
    spreads = {500: low, 1000: low, 1050: None, 2000: high, 2500: low, 3000: low, 3050: None, 3500: high, 5000: low}
    records = [{"step": step, **({} if s is None else {"sample_spread": s})} for step, s in spreads.items()]
    assert on_at(Alarms(1.0), records) == {step: [COLLAPSED] for step in (1000, 1050, 3000, 3050, 5000)}


def test_an_average_is_given_the_time_to_forget_its_first_weights() -> None:
    records = [{"step": step, "sample_spread": 0.0} for step in range(500, 6001, 500)]
    assert min(on_at(Alarms(1.0, ema=0.999), records)) == 4000
    records.insert(0, {"step": 100, "sample_spread": 1.0})
    assert min(on_at(Alarms(1.0, ema=0.999), records)) == 4000, "a healthy record does not shorten it"


MOVES = ("discriminator", "generator")


def test_neither_player_is_trained_where_every_update_of_both_is_stopped() -> None:
    shares = {0: (1.0, 1.0), 500: (1.0, 0.9), 600: (1.0, 1.0), 1500: (1.0, 1.0), 1600: (0.99, 1.0), 2600: (1.0, 1.0)}
    records = [{"step": at, "stopped_generator": g, "stopped_discriminator": d} for at, (g, d) in shares.items()]
    assert on_at(Alarms(None, moves=MOVES), records) == {1500: [STOPPED], 2600: [STOPPED]}
    assert on_at(Alarms(None, moves=MOVES), [{"step": at, "stopped_generator": 1.0} for at in (1, 2000)]) == {}
    # The discriminator's move is made in every fourth step, and records are of two.
    rare = [
        {"step": at, "stopped_generator": 1.0, **({} if at % 4 else {"stopped_discriminator": 1.0})}
        for at in range(2, 1201, 2)
    ]
    assert min(on_at(Alarms(None, moves=MOVES), rare)) == 1002


def test_the_spans_of_alarms() -> None:
    log = [
        {"step": 10 * i, **({"alarms": on} if on else {})} for i, on in enumerate([[], ["a"], ["a", "b"], ["b"], ["a"]])
    ]
    assert spans(log) == [("a", 10, 20), ("b", 20, 30), ("a", 40, 40)]


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(table: dict[str, Any]) -> dict[str, Any]:
    """A DCGAN whose rates are far too large: every latent gives the same picture, which the discriminator knows."""
    table["dataset"]["size"] = 16
    table["generator"] = {"name": "dcgan", "latent_dim": 8, "channels": 4, "optimizer": {"lr": 0.3}}
    table["discriminator"] = {"name": "dcgan", "channels": 4, "optimizer": {"lr": 1e-2}}
    table["train"] |= {"steps": 1200, "log_every": 50, "sample_every": 200, "checkpoint_every": 0}
    return table


@pytest.mark.extended
@pytest.mark.large
def test_a_lost_game_raises_both_alarms(
    lost: dict[str, Any], write: Write, ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganlab.viz.progress.PLAIN_SECONDS", 0.0)
    code, out, err = ganlab("run", write(lost), "--out", "r")
    assert (code, err) == (0, "")
    log = read_records(Path("r/log.jsonl"))
    on = {record["step"]: record["alarms"] for record in log if "alarms" in record}
    begun = min(on)
    assert begun == 1000, "the samples have never spread"
    assert on[1000] == [COLLAPSED]
    assert on[1150] == on[1200] == [WON, COLLAPSED], "the discriminator has learnt at first"
    assert out.count("ALARM: the discriminator has won: D(real) 1.000 and D(fake) 0.000") == 1
    assert out.count("step 1,000: ALARM: the samples have collapsed: their spread is 0.") == 1
    (last,) = (line for line in out.splitlines() if line.startswith("step 1,200/1,200"))
    assert last.endswith(f"  ALARM: {WON}  ALARM: {COLLAPSED}")
    # Readers of the log take a text where they find numbers elsewhere.
    assert ganlab("report", "r", "--html", "r.html")[0] == 0
    page = Path("r.html").read_text()
    assert f"Alarm: {COLLAPSED}, from step 1,000 to step 1,200." in page
    assert ganlab("run", write(lost), "--out", "r", "--resume")[0] == 0


PAINTER = """
import torch
from attrs import frozen
from torch import nn
import ganlab

class Net(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.latent_dim, self.shape = 8, (images.channels, images.height, images.width)
        self.pictures = nn.Embedding(ganlab.classes_of(images, "a painter"), images.height * images.width)

    def forward(self, z, condition):
        return torch.tanh(self.pictures(condition) + 0 * z.sum()).unflatten(1, self.shape)

@frozen
class Painter:
    def build(self, images):
        return Net(images)

@ganlab.hookimpl
def register_generators(register):
    register("painter", Painter)
"""


@pytest.mark.extended
@pytest.mark.slow
def test_one_picture_a_class_is_a_collapse_too(
    table: dict[str, Any], write: Write, ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "LONG", 40)
    Path("painter.py").write_text(PAINTER)
    table["generator"] = "painter"
    table["train"] |= {"steps": 80, "log_every": 10, "sample_every": 20, "checkpoint_every": 0}
    code, out, _ = ganlab("run", write(table), "--out", "r", "--plugin", "painter.py")
    assert code == 0
    log = read_records(Path("r/log.jsonl"))
    assert [record["sample_spread"] for record in log if "sample_spread" in record] == [0, 0, 0, 0]
    assert COLLAPSED in log[-1]["alarms"]
    assert "ALARM: the samples have collapsed: their spread is 0.000 of the data's" in out
    # Networks that are told more of the latent than of the class spread, and are held against digits of one class.
    table["generator"] = {"name": "conditional", "network": {"name": "mlp", "latent_dim": 32, "hidden": [64]}}
    code, out, _ = ganlab("run", write(table), "--out", "told")
    assert code == 0
    within = [record["sample_spread"] for record in read_records(Path("told/log.jsonl")) if "sample_spread" in record]
    assert min(within) > 0.02
    assert COLLAPSED not in out


@pytest.mark.extended
@pytest.mark.slow
def test_a_healthy_game_raises_none(table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["generator"] |= {"hidden": [64]}
    table["train"] |= {"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 0}
    code, out, _ = ganlab("run", write(table), "--out", "r")
    assert code == 0
    assert "ALARM" not in out
    log = read_records(Path("r/log.jsonl"))
    assert not [record for record in log if "alarms" in record]
    assert [record["step"] for record in log if "sample_spread" in record] == [500, 1000, 1500]
    assert ganlab("report", "r", "--html", "r.html")[0] == 0
    assert "Alarm:" not in Path("r.html").read_text()


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("stop", [37, 95, 130])
def test_a_resumed_run_has_the_alarms_of_an_uninterrupted_one(
    stop: int, lost: dict[str, Any], write: Write, ganlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before they come, when they are on, and between a grid and the tick after it; nothing lines up."""
    monkeypatch.setattr(alarms, "LONG", 40)
    monkeypatch.setattr(alarms, "WON_SHARE", 0.5)
    lost["train"] |= {"steps": 140, "log_every": 7, "sample_every": 32, "ema": 0.9}
    path = write(lost)
    assert ganlab("run", path, "--out", "whole")[0] == 0
    with interrupted_at(stop):
        assert ganlab("run", path, "--out", "stopped")[0] == 75
    code, out, _ = ganlab("run", path, "--out", "stopped", "--resume")
    assert code == 0
    assert_same_bits(Path("whole"), Path("stopped"))
    assert records(Path("whole")) == records(Path("stopped"))
    whole = [record.get("alarms", []) for record in records(Path("whole"))]
    assert whole[0] == []
    assert whole[-1] == [WON, COLLAPSED]
    # Nor is what was on before told again as news.
    known = {name for record in records(Path("whole")) if record["step"] <= stop for name in record.get("alarms", [])}
    assert {name for name in (WON, COLLAPSED) if f"ALARM: {name}: " in out} == {WON, COLLAPSED} - known


# ---------------------------------------------------------------------------------------------------------------------
# What a person sees
# ---------------------------------------------------------------------------------------------------------------------

TICK = {"step": 1, "loss_generator": 1.0, "d_real": 1.0, "d_fake": 0.0, "images_per_second": 5.0}


def test_the_live_view_shows_what_is_on_below_its_table_in_a_colour() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=90, color_system="standard")
    view = LiveView(console)
    view.started(0, 2)

    def shown() -> str:
        with console.capture() as capture:
            console.print(view._render())
        return capture.get()

    view.tick(TICK)
    assert "ALARM" not in shown()
    view.tick(TICK | {"alarms": [WON, COLLAPSED]})
    *_, first, second = shown().rstrip().splitlines()
    assert first == f"\x1b[1;31mALARM: {WON}\x1b[0m"
    assert second == f"\x1b[1;31mALARM: {COLLAPSED}\x1b[0m"
    view.tick(TICK)
    assert "ALARM" not in shown()


def test_the_plain_view_says_it_in_each_line() -> None:
    file = io.StringIO()
    view = PlainView(Console(file=file, width=300))
    view.started(0, 1)
    view.tick(TICK | {"alarms": [WON]})
    assert file.getvalue().endswith(f"left  ALARM: {WON}\n")


@pytest.mark.parametrize(
    ("losses", "labels"),
    [
        ({"discriminator": 1.0, "generator": 2.0}, "loss D 1.000  loss G 2.000"),
        ({"generators_cycle": 0.5, "generators": 1.0, "discriminators": 2.0}, "loss G 1.000  loss D 2.000"),
        ({"encoder": 1.0, "estimator": 2.0}, "loss encoder 1.000  loss estimator 2.000"),
    ],
)
def test_the_live_view_shows_the_losses_of_any_game(losses: dict[str, float], labels: str) -> None:
    file = io.StringIO()
    view = PlainView(Console(file=file, width=300))
    view.started(0, 1)
    view.tick({"step": 1, "images_per_second": 5.0} | {f"loss_{name}": value for name, value in losses.items()})
    assert file.getvalue().startswith(f"step 1/1  {labels}  img/s 5  ")
