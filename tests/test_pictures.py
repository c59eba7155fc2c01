"""Pictures and progress as a person sees them: lines of plots, grey levels of float data, the width of a terminal."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from ganlab.evaluation.network_sampler import NetworkSampler, sampler_of
from ganlab.run.project import Projection
from ganlab.viz import plots, progress
from ganlab.viz.film import Film
from ganlab.viz.progress_text import tick_values
from stubs import CPU


@pytest.mark.usefixtures("real_plots")
def test_a_value_that_not_every_record_has_is_a_line_and_a_single_one_is_a_dot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lazy penalty was in the legend only, as was all of a run with one tick."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_encode_figure", lambda figure: drawn.append(figure.axes[0].lines) or b"")
    log = [{"step": step, "loss_d": 1.0, **({"penalty_r1": 2.0} if step % 2 else {})} for step in range(1, 8)]
    plots.plot_losses(log, tmp_path / "losses.png")
    plots.plot_losses(log[:1], tmp_path / "losses.png")
    plots.plot_scheduled_options([{"step": 1, "optimizer.lr": 0.1}], ["optimizer.lr"], tmp_path / "schedules.png")
    loss, penalty = drawn[0]
    assert loss.get_xdata().tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert (penalty.get_xdata().tolist(), penalty.get_ydata().tolist()) == ([1, 3, 5, 7], [2, 2, 2, 2])
    assert [line.get_marker() for lines in drawn for line in lines] == ["None", "None", "o", "o", "o"]


def test_the_frames_of_float_data_have_one_scale_in_a_folder_too(tmp_path: Path) -> None:
    """Each 128 frames had a scale of their own."""
    frames = torch.ones(129, 1, 2, 2)
    frames[:, 0, 0, 0] = 0
    frames[128, 0, 1, 1] = 5
    Film(frames, limits=(0.0, 5.0)).save(tmp_path / "film")
    levels = [np.asarray(Image.open(tmp_path / "film" / f"{index:05}.png"))[0, 1] for index in (0, 128)]
    assert levels == [51, 51]


class Half(nn.Module):
    """It makes half of the latents, which are images here."""

    def forward(self, z: Tensor, condition: Any) -> Tensor:
        return z / 2


def test_targets_and_results_of_float_data_have_one_scale() -> None:
    """A result of half of its target's values looked like it."""
    targets, errors = torch.linspace(0, 100, 64).view(1, 1, 8, 8), torch.zeros(1)
    sampler = NetworkSampler(sampler_of("g"), {"g": Half()}, "float32")
    limits = (0.0, 200.0)
    found = Projection(targets, None, targets / 2, targets, errors, errors, targets[None], sampler, CPU, limits)
    png = base64.b64decode(found._repr_html_().split("base64,")[1].split('"')[0])
    for shown in (np.asarray(Image.open(io.BytesIO(png))), found.film().frames[0, 0].numpy()):
        halves = np.split(shown, 2, axis=1)
        assert [half[half < 255].max() for half in halves] == [128, 64]  # the rest is white


def test_huge_losses_are_short() -> None:
    record = {"loss_d": 3.4e25, "loss_g": -0.5, "d_real": float("nan"), "images_per_second": 5.0}
    assert tick_values(record) == {"loss D": "3.4e+25", "loss G": "-0.500", "D(real)": "nan", "img/s": "5"}


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_path_leaves_room_for_the_bar(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=file, width=width, force_terminal=True))
    monkeypatch.delenv("TERM", raising=False)
    with progress.progress_bar() as progress_of:
        progress_of(f"{'/a/long/path' * 9}/samples.npz")("images", 480, 1000)
    assert "samples.npz: images" in file.getvalue()
    assert "48%" in file.getvalue()
