"""Drawing never decides how a run ends: whatever matplotlib raises, the status is written and the run is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from PIL import Image

from ganlab.run.callbacks import samples
from ganlab.run.run_folder import read_info
from ganlab.viz import plots

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
PLOTS = ("losses", "metrics", "scores")


def drawn(run: Path) -> list[str]:
    """The plots that a run has, each of which must be a picture."""
    found = sorted((run / "plots").glob("*.png"))
    for path in found:
        with Image.open(path) as image:
            assert image.width > 300
    return [path.stem for path in found]


def fails(*arguments: object, **options: object) -> None:
    raise RuntimeError("no\nLaTeX here")


@pytest.mark.extended
@pytest.mark.slow
def test_a_backend_that_does_not_exist(table: dict[str, Any], write: Write) -> None:
    """What a notebook hands to the commands that it starts."""
    environment = os.environ | {"MPLBACKEND": "module://no_such_package.backend"}
    command = [sys.executable, "-m", "ganlab", "run", str(write(table)), "--out", "r"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_info(Path("r"))["status"] == "finished"
    assert drawn(Path("r")) == list(PLOTS)


@pytest.mark.usefixtures("real_plots")
def test_the_users_style_of_plots_is_left_alone_and_is_not_used(
    table: dict[str, Any], write: Write, ganlab: Ganlab, tmp_path: Path
) -> None:
    with mpl.rc_context({"text.usetex": True, "text.latex.preamble": r"\nothing", "savefig.format": "nonsense"}):
        before = dict(mpl.rcParams)
        assert ganlab("run", write(table), "--out", "r")[0] == 0
        assert dict(mpl.rcParams) == before
    assert drawn(Path("r")) == list(PLOTS)


def test_plots_that_cannot_be_drawn(
    table: dict[str, Any], write: Write, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(table)
    with monkeypatch.context() as broken:
        broken.setattr(plots, "plot_metrics", fails)
        code, out, err = ganlab("run", file, "--out", "r")
    assert (code, err) == (0, "")
    assert out.count("some plots are missing: RuntimeError: no LaTeX here") == 1
    assert read_info(Path("r"))["status"] == "finished"
    assert not Path("r/plots/metrics.png").exists()
    # What is missing is drawn later, and nothing is trained again.
    checkpoint = next(Path("r/checkpoints").iterdir())
    before = checkpoint.stat().st_mtime_ns
    code, out, _ = ganlab("run", file, "--out", "r", "--resume")
    assert code == 0
    assert "resuming r at step 4" in out
    assert Path("r/plots/metrics.png").exists()
    assert read_info(Path("r"))["status"] == "finished"
    assert checkpoint.stat().st_mtime_ns == before
    assert "already finished" in ganlab("run", file, "--out", "r", "--resume")[1]


def test_a_finished_run_of_a_game_without_a_judge_is_whole(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    codes = {"game": {"name": "aae"}, "encoder": {"name": "mlp_encoder", "hidden": [16]}}
    file = write(table | codes | {"discriminator": {"name": "mlp", "hidden": [16]}})
    assert ganlab("run", file, "--out", "r")[0] == 0
    assert not Path("r/plots/scores.png").exists()
    assert "already finished" in ganlab("run", file, "--out", "r", "--resume")[1]


def test_the_status_is_written_before_the_plots(
    table: dict[str, Any], write: Write, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(plots, "plot_losses", lambda *_: seen.append(read_info(Path("r"))["status"]))
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert seen == ["finished"]


def test_a_grid_that_cannot_be_drawn(
    table: dict[str, Any], write: Write, ganlab: Ganlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "save_grids", fails)
    code, out, err = ganlab("run", write(table), "--out", "r")
    assert (code, err) == (0, "")
    for step in (0, 4):
        assert f"r/samples/step-{step:08}.png: RuntimeError: no LaTeX here; going on without it" in out
    assert read_info(Path("r"))["status"] == "finished"


@pytest.mark.usefixtures("real_plots")
def test_a_comparison_with_curves_whatever_the_style(table: dict[str, Any], write: Write, ganlab: Ganlab) -> None:
    table["metric"] = [{"name": "fid", "samples": 16, "features": {"name": "classifier", "updates": 20}}]
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    with mpl.rc_context({"text.usetex": True}):
        assert ganlab("compare", "r", "--html", "page.html")[0] == 0
    assert "data:image/png" in Path("page.html").read_text()
