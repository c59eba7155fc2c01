"""The conformance suite as a whole: options, what cannot be checked, and what it imports."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

from bad_plugins import G, loss
from ganlab.plugin.kinds import KINDS
from ganlab.testing import check, conformance
from ganlab.testing.suite import CHECKS
from ganlab.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_timing")


def test_every_kind_has_checks_and_a_bad_plugin() -> None:
    assert set(CHECKS) == set(KINDS)
    files = Path(__file__).parent.glob("test_bad_*.py")
    sources = [source for file in files for source, *_ in runpy.run_path(str(file))["BAD"].values()]
    hooks = {kind.hook for kind in KINDS.values() if any(kind.hook in source for source in sources)}
    assert hooks == {kind.hook for kind in KINDS.values()}


def test_an_option_that_must_be_given(tmp_path: Path) -> None:
    file = tmp_path / "scaled.py"
    file.write_text(loss(options='"""scale: a factor."""\n    scale: float', g=f"self.scale * {G}"))
    (bare,) = conformance(file)
    (refused,) = [found for found in bare.check() if found.result == "refused"]
    assert refused.detail == "refuses: scale must be given, by --set NAME.scale=VALUE; nothing else is checked without"
    assert [found.result for found in bare.check()] == ["passed", "passed", "refused", "skipped"]
    (given,) = conformance(file, {"bad": {"scale": 2.0}})
    assert given.instance.scale == 2.0
    assert {found.result for found in given.check()} == {"passed"}
    assert {found.result for found in check(given.cls(3.0), "loss")} == {"passed"}
    with pytest.raises(UserError, match=r"bad\.scale: expected a number, got 'much'"):
        conformance(file, {"bad": {"scale": "much"}})
    with pytest.raises(UserError, match="bat: the file registers no such component; did you mean 'bad'"):
        conformance(file, {"bat": {}})


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown kind 'los'; did you mean 'loss'"):
        check(object, "los")
    with pytest.raises(UserError, match="no such file"):
        conformance(tmp_path / "none.py")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(UserError, match="No module named 'nothing_of_that_name'"):
        conformance(tmp_path / "broken.py")
    (is_one, *rest) = check(frozen(type("Half", (), {"discriminator": lambda self, real, fake: real})), "loss")
    assert (is_one.result, is_one.detail) == ("fault", "Half is not a valid loss: missing generator(self, real, fake)")
    assert {found.result for found in rest} == {"skipped"}


def test_a_module_is_its_file() -> None:
    import ganlab_plugins.losses.bce as module

    assert [str(subject) for subject in conformance(module)] == ["loss bce"]


@pytest.mark.extended
@pytest.mark.slow
def test_the_core_and_the_suite_import_no_pytest() -> None:
    code = "import sys, ganlab.testing; raise SystemExit('pytest' in sys.modules or 'ganlab_plugins' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
