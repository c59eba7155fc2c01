"""Runs from Python and in notebooks, held against the command's records, pandas, polars and an HTML parser.

A notebook is stood in for by a module IPython.display that keeps what is displayed.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import ganlab
from ganlab.run.notebook import data_frame, run_frame, run_html
from ganlab.utils.errors import UserError
from ganlab.viz.notebook_view import NotebookView
from support import REPOSITORY
from test_compare import make_run

HOSTILE = "<script>alert(1)</script>&\"'"

STOPS = """
import os, signal
from ganlab import hookimpl

@hookimpl
def tick_finished(run, record):
    if record["step"] == 2:
        os.kill(os.getpid(), signal.SIGINT)
"""


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.images: list[bytes] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(base64.b64decode((dict(attrs)["src"] or "").partition(",")[2]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_interrupted_training_returns_its_run_and_goes_on(table: dict[str, Any], tmp_path: Path) -> None:
    """A dictionary, whose plugin file lies in the current folder; then the same folder to the end."""
    Path("stops.py").write_text(STOPS)
    run = ganlab.train({**table, "plugins": ["stops.py"]}, out="r")
    assert (run.info["status"], run.step, run.path) == ("interrupted", 2, Path("r"))
    run = ganlab.train({**table, "plugins": ["stops.py"]}, out="r", resume=True)
    assert (run.info["status"], run.step) == ("finished", 4)
    frame = run.frame()
    assert list(frame["step"]) == [record["step"] for record in run.log] == [2, 4]
    assert list(frame["train/loss_generator"]) == [record["loss_generator"] for record in run.log]
    page = Page(run._repr_html_())
    assert "finished" in page.text
    (image,) = page.images
    assert image == (Path("r") / "samples" / "step-00000004.png").read_bytes()


def test_what_is_refused_from_python(table: dict[str, Any]) -> None:
    for given, line in (
        ({**table, "loss": "bec"}, "experiment: loss.name: unknown loss 'bec'; did you mean 'bce'?"),
        (
            {**table, "seed": None},
            "experiment: seed: expected a text, a number, True or False, ",
        ),
        ("gone.toml", "gone.toml: no such file"),
        ({"base": "gone.toml"}, f"experiment: base: {Path.cwd()}/gone.toml: no such file"),
    ):
        with pytest.raises(UserError) as caught:
            ganlab.train(given)
        assert len(caught.value.problems) == 1
        assert str(caught.value).startswith(line), caught.value
    with pytest.raises(UserError, match=r"train: overrides: expected a list of texts, got 'seed=1'; write"):
        ganlab.train(table, overrides="seed=1")
    assert not Path("runs").exists()


LOG = [{"step": 2, "loss_d": 0.5}, {"step": 4, "loss_d": "nan", "penalty_r1": 1.5}]
METRICS = [
    {"step": 3, "metric": 0, "name": "fid", "value": 7.5, "protocol": {}},
    # What `ganlab eval` adds, of which the protocol may be another.
    {"eval": True, "step": 3, "metric": 0, "name": "fid", "value": 99.0, "protocol": {}},
    {"eval": True, "step": 5, "metric": 0, "name": "kid", "value": 99.0, "protocol": {}},
]


def test_a_frame_has_a_row_a_step() -> None:
    frame = run_frame(LOG, METRICS, "pandas")
    assert list(frame.columns) == ["step", "train/loss_d", "train/penalty_r1", "score/fid"]
    assert list(frame["step"]) == [2, 3, 4]
    np.testing.assert_array_equal(frame["score/fid"], [np.nan, 7.5, np.nan])
    np.testing.assert_array_equal(frame["train/penalty_r1"], [np.nan, np.nan, 1.5])


def test_a_frame_of_polars_has_the_same_values() -> None:
    polars = pytest.importorskip("polars")
    frame = run_frame(LOG, METRICS, "polars")
    assert isinstance(frame, polars.DataFrame)
    assert frame["score/fid"].to_list() == [None, 7.5, None]


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="expected 'pandas' or 'polars', got 'numpy'"):
        data_frame({}, library="numpy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="frame: pandas or polars is needed: pip install pandas"):
        data_frame({})


def test_what_a_notebook_shows_is_escaped(tmp_path: Path) -> None:
    info = {"name": HOSTILE, "seed": 0, "status": HOSTILE}
    page = Page(run_html(tmp_path / "a<b>", 3, info, []))
    assert set(page.tags) == {"div", "b", "table", "tr", "th", "td"}
    assert page.text.count(HOSTILE) == 2
    assert "a<b>" in page.text


def test_a_comparison_shows_itself_and_is_a_frame(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / "a" / str(seed), [3.0, 2.0 + seed], seed=seed)
    compared = ganlab.compare_runs(tmp_path / "a")
    (table,) = compared
    page = Page(compared._repr_html_())
    assert page.tags.count("tr") == 1 + len(table.rows)
    assert table.rows[0].variant in page.text
    frame = compared.frame()
    assert list(frame["final_mean"]) == [table.rows[0].final.mean] == [2.5]
    assert list(frame["variant"]) == [table.rows[0].variant]
    with pytest.raises(UserError, match="name at least one run"):
        ganlab.compare_runs()


def test_images_are_shown_as_they_are(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 50, 50), dtype=torch.uint8)
    shown = ganlab.show_images(images, columns=3)
    (png,) = Page(shown._repr_html_()).images
    drawn = np.asarray(Image.open(io.BytesIO(png)))
    for place in range(3):
        left = 2 + place * 52
        np.testing.assert_array_equal(drawn[2:52, left : left + 50], images[place].permute(1, 2, 0).numpy())
    shown.save(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == png
    assert ganlab.show_images(images.float() / 127.5 - 1, columns=3).png == png
    assert ganlab.show_images(images, columns=10**9).png == png, "no wider than its images"
    with pytest.raises(UserError, match="NaN or infinite"):
        ganlab.show_images(images / torch.zeros(()))
    for wrong in (images[0], images.long(), images[:0]):
        with pytest.raises(UserError, match=r"show_images: expected images \(N, C, h, w\)"):
            ganlab.show_images(wrong)


def test_the_view_of_a_notebook_is_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, html: str) -> None:
            shown[-1] = html

    def display(html: str, display_id: bool) -> Handle:
        shown.append(html)
        return Handle()

    module: Any = types.ModuleType("IPython.display")
    module.display, module.HTML = display, str
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("ganlab.viz.notebook_view.SECONDS", 0)
    lines = io.StringIO()
    with NotebookView(Console(file=lines)) as view:
        view.started(0, 10)
        view.progress(HOSTILE, 1, 2)
        assert HOSTILE in Page(shown[0]).text
        view.tick({"step": 5, "loss_d": 0.25, "images_per_second": 100.0, "alarms": ["<b>", "won"]})
        view.score({"step": 5, "name": "fid", "value": 7.5})
        view.line("said")
    (html,) = shown
    page = Page(html)
    assert "step 5/10" in page.text
    assert "loss D 0.250" in page.text
    assert "fid 7.5 at 5" in page.text
    assert "ALARM: <b>" in page.text
    assert '<progress value="5" max="10">' in html
    assert HOSTILE not in page.text, "what was done is over"
    assert lines.getvalue() == "said\n"


def test_a_list_of_plugins_shows_itself(tmp_path: Path) -> None:
    """What `ganlab plugins --json` has, as cells, with the texts of a hostile plugin escaped."""
    file = tmp_path / "hostile.py"
    file.write_text(
        "import attrs\nfrom ganlab import hookimpl\n"
        "@attrs.frozen\nclass Hostile:\n"
        f"    {HOSTILE!r}\n"
        f"    text: str = {HOSTILE!r}\n"
        "    def discriminator(self, real, fake): return real.mean()\n"
        "    def generator(self, real, fake): return fake.mean()\n"
        "@hookimpl\ndef register_losses(register): register('hostile', Hostile)\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('<i>no</i>')")
    found = ganlab.list_plugins("loss", [file])
    page = Page(found._repr_html_())
    assert set(page.tags) <= {"div", "table", "tr", "th", "td", "br"}
    assert page.tags.count("tr") == 2 + len(found)
    assert page.text.count(HOSTILE) == 1, "the class's words"
    assert "text: text = " in page.text
    names = [record["name"] for record in found]
    assert {"bce", "hinge", "hostile"} <= set(names)
    assert all(name in page.text for name in names)
    broken = Page(ganlab.list_plugins("broken", [tmp_path / "broken.py"])._repr_html_())
    assert "<i>no</i>" in broken.text
    with pytest.raises(UserError, match="did you mean 'loss'"):
        ganlab.list_plugins("los")
    assert ganlab.list_plugins("loss", [tmp_path / "broken.py"]).failures, "it may have registered a loss"
    with pytest.raises(UserError, match="no such file"):
        ganlab.list_plugins(plugins=["gone.py"])


@pytest.mark.extended
@pytest.mark.docs
def test_the_notebook_of_the_docs_runs() -> None:
    """Its code cells, one after the other; the last expression of each is what a notebook would show."""
    cells = json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text())["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    names: dict[str, Any] = {}
    shown: list[Any] = []
    for cell in cells:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "notebook", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names))
    run, images, frame, comparison, walk, found, losses = shown
    assert run.info["status"] == "finished"
    for thing in (run, images, comparison, walk, found, losses):
        assert len(Page(thing._repr_html_()).text) + len(Page(thing._repr_html_()).images) > 0
    assert len(frame) > 3
    assert frame["score/fid"].notna().sum() == 3
    assert walk.frames.shape == (45, 1, 8, 8)
    assert len(comparison.tables[0].rows) == 2
    assert (names["found"].errors < names["found"].first_errors).all()
