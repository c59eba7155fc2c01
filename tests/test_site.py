"""The site as it is built, without a warning: every key, component and public name of the code is on its page."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest

import ganlab
from ganlab import testing
from ganlab.config.schema import Experiment, Train
from ganlab.plugin.fields import NESTED
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.loader import load_plugins
from ganlab.sweep.plan import SweepFile
from support import REPOSITORY

pytestmark = [pytest.mark.docs, pytest.mark.xdist_group("site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    (command,) = re.findall(r"`(sphinx-build .*?)`", (REPOSITORY / "README.md").read_text())
    build, *options, source, _ = command.split()
    assert (build, source) == ("sphinx-build", "docs")
    arguments = [*options, "-q", "-d", str(out / "doctrees"), source, str(out / "html")]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    return out / "html"


class Page(HTMLParser):
    """A page's anchors, the terms of its lists of definitions, and where its links and pictures lead."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.terms: dict[str, str] = {}
        self.links: list[str] = []
        self._in_term, self._at = False, ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = dict(attributes)
        self._in_term = self._in_term or tag == "dt"
        if name := of.get("id"):
            self.anchors.add(name)
            if self._in_term:
                self._at = name
        self.links += [of[key] or "" for key in ("href", "src") if key in of]

    def handle_endtag(self, tag: str) -> None:
        if tag == "dt":
            self._in_term, self._at = False, ""

    def handle_data(self, data: str) -> None:
        if self._in_term and self._at:
            self.terms[self._at] = self.terms.get(self._at, "") + data


def anchor(*parts: str) -> str:
    return "-".join(parts).replace("_", "-").replace(".", "-").lower()


def assert_has(page: Page, cls: type, *at: str) -> None:
    """Each option has its term, with its default where that is a number or a truth value."""
    for f in (f for f in attrs.fields(cls) if f.init):
        name = f"TABLE.{f.metadata[NESTED]}" if NESTED in f.metadata else f.alias
        term = page.terms[anchor(*at, name)]
        assert term.startswith(f"{name}: "), term
        if f.default is attrs.NOTHING and not f.metadata.get("ganlab.default"):
            assert term.endswith("; required"), term
        elif isinstance(f.default, bool | int | float):
            assert term.endswith(f"; default {str(f.default).lower()}"), term


@pytest.mark.extended
def test_every_key_of_the_files_has_its_type_and_default(site: Path) -> None:
    page = Page(site / "experiment_file.html")
    assert_has(page, Experiment)
    assert_has(page, Train, "train")
    assert_has(page, SweepFile, "sweep")
    assert page.terms["train-batch-size"] == "batch_size: a whole number, at least 1, at most 2^24; default 64"
    assert page.terms["train-ema"] == "ema: a number, at least 0, less than 1; default 0.0"


@pytest.mark.extended
def test_every_bundled_component_and_option_is_there(site: Path) -> None:
    page = Page(site / "components.html")
    for kind in KINDS:
        for component in load_plugins().registry.of_kind(kind):
            assert anchor(kind, component.name) in page.anchors
            assert_has(page, component.cls, kind, component.name)


@pytest.mark.extended
def test_every_public_name_is_there(site: Path) -> None:
    anchors = Page(site / "api.html").anchors
    names = [name for name in ganlab.__all__ if name != "__version__"]
    assert [name for name in names if f"ganlab.{name}" not in anchors] == []
    own = set(testing.__all__) - set(names)
    assert [name for name in own if f"ganlab.testing.{name}" not in anchors] == []


@pytest.mark.extended
@pytest.mark.docs
def test_every_link_leads_somewhere_and_nothing_is_fetched(site: Path) -> None:
    pages = {file: Page(file) for file in site.rglob("*.html")}
    assert {"index.html", "hooks.html", "publishing.html"} <= {file.name for file in pages}
    for file, page in pages.items():
        for link in page.links:
            path, _, fragment = link.partition("#")
            if re.match(r"\w+:", path):
                continue
            target = (file.parent / path.partition("?")[0]).resolve() if path else file
            assert target.is_file(), f"{file.name}: {link}"
            if fragment and target in pages:
                assert fragment in pages[target].anchors, f"{file.name}: {link}"
    fetched = r"<(?:script|img|link)[^>]*(?:src|href)=\"(?:https?:)?//"
    assert [file.name for file in pages if re.search(fetched, file.read_text(encoding="utf-8"))] == []
