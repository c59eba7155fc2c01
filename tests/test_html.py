"""The pages, opened in a real browser where there is one: what a person looks for is there, and names are text."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganlab.run.records import read_records, record_line
from ganlab.run.run_folder import RunFolder

Command = Callable[..., tuple[int, str, str]]
NASTY = "<script>alert(1)</script>"


@pytest.fixture
def swept(table: dict[str, Any], write: Callable[..., Path], ganlab: Command) -> Path:
    """Two variants over two seeds, run for real."""
    table["metric"] = [{"name": "fid", "every": 2, "samples": 16, "features": {"name": "classifier", "updates": 20}}]
    base = write(table)
    for variant, reduction in (("summed", "sum"), ("averaged", "mean")):
        for seed in (0, 1):
            out = f"s/{variant}/seed-{seed}"
            settings = ["--set", f"seed={seed}", "--set", f"loss.reduction={reduction}"]
            assert ganlab("run", base, *settings, "--out", out)[0] == 0
    Path("s/sweep.json").write_text('{"name": "s", "seeds": [0, 1], "variants": {"summed": {}, "averaged": {}}}')
    return Path("s")


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium; the test is skipped where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def opened(browser: Any, path: Path) -> str:
    """The text of a page, after every picture in it has loaded and the console has stayed empty."""
    browser.get(path.resolve().as_uri())
    widths = browser.execute_script("return [...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert widths
    assert all(width > 50 for width in widths)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('script, link, iframe').length") == 0
    text: str = browser.find_element("tag name", "body").text
    return text


@pytest.mark.usefixtures("real_plots")
@pytest.mark.extended
@pytest.mark.slow
def test_a_comparison_in_a_browser(swept: Path, ganlab: Command, browser: Any) -> None:
    assert ganlab("compare", swept, "--html", "page.html", "--baseline", "summed")[0] == 0
    text = opened(browser, Path("page.html"))
    for words in (
        "summed",
        "averaged",
        "2 of 2",
        "baseline",
        "loss.reduction",
        "95% t interval",
        "ganlab run s/summed",
    ):
        assert words in text
    assert len(browser.find_elements("css selector", ".grids img")) == 2
    assert len(browser.find_elements("css selector", "tbody")[0].find_elements("tag name", "tr")) == 2


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.usefixtures("real_plots")
def test_a_report_in_a_browser(swept: Path, ganlab: Command, browser: Any) -> None:
    assert ganlab("report", swept / "summed" / "seed-0", "--html", "run.html")[0] == 0
    text = opened(browser, Path("run.html"))
    for words in ("tiny, seed 0", "finished at step 4 of 4", "fid", "step 0", "[generator]", "classifier"):
        assert words in text
    assert len(browser.find_elements("tag name", "img")) == 3 + 2


def test_a_run_named_script_is_text(swept: Path, ganlab: Command) -> None:
    """Without a browser: nothing that a run is named, or a record holds, becomes markup."""
    (swept / "sweep.json").unlink()
    for file in swept.rglob("run.json"):
        reduction = "summed" if "summed" in str(file) else "averaged"
        file.write_text(file.read_text().replace('"name": "tiny"', f'"name": "{NASTY} {reduction}"'))
    for file in swept.rglob("metrics.jsonl"):
        records = [{**record, "protocol": {**record["protocol"], "images": NASTY}} for record in read_records(file)]
        file.write_text("".join(map(record_line, records)))
    assert ganlab("compare", swept, "--html", "page.html")[0] == 0
    assert ganlab("report", swept / "summed" / "seed-0", "--html", "run.html")[0] == 0
    for page in ("page.html", "run.html"):
        text = Path(page).read_text()
        assert "&lt;script&gt;" in text
        assert "<script" not in text


def test_a_run_without_scores_has_no_empty_table_and_no_empty_plot(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command
) -> None:
    table["metric"] = []
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert Path("r/plots/metrics.png").is_file()
    assert ganlab("report", "r", "--html", "run.html")[0] == 0
    text = Path("run.html").read_text()
    assert "The run has no scores." in text
    assert "<table>" not in text
    assert 'alt="losses"' in text
    assert 'alt="metrics"' not in text


def test_a_copy_of_a_sample_grid_is_none(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("step-00000100.png", "step-00000020.png", "step-00000100 copy.png", "step-.png", "step-00000030.jpg"):
        (tmp_path / "samples" / name).touch()
    assert [(step, path.name) for step, path in RunFolder(tmp_path).sample_grids().items()] == [
        (20, "step-00000020.png"),
        (100, "step-00000100.png"),
    ]


def test_a_page_is_a_html_file(swept: Path, ganlab: Command) -> None:
    code, _, err = ganlab("report", swept / "summed" / "seed-0", "--html", "run.txt")
    assert (code, err.strip()) == (2, "--html run.txt: expected a file name that ends in .html")
    assert ganlab("report", "nowhere")[0] == 2
