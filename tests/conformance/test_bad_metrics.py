"""The conformance checks of metrics, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, faults, metric
from ganlab.testing import conformance

pytestmark = pytest.mark.usefixtures("quick_timing")


def test_a_metric_that_refuses_data_is_not_at_fault(tmp_path: Path) -> None:
    file = tmp_path / "refusing.py"
    source = metric("0.5").replace("(images,) =", "raise ganlab.ComponentError('the value names no class')  #")
    file.write_text(source)
    (subject,) = conformance(file)
    (refused,) = [found for found in subject.check() if found.result == "refused"]
    assert refused.detail == "refuses 1 channel: the value names no class"
    assert faults(subject.check()) == []


BAD: dict[str, BadPlugin] = {
    "metric random": (metric("float(torch.rand(()))"), "# evaluate", "again", "another score"),
    "metric nan": (metric("float('nan')"), "# evaluate", "scores", "bad is nan"),
    "metric in place": (
        metric("float(evaluation.dataset('train').images.clamp_(1, 254).float().mean())"),
        "# evaluate",
        "scores",
        "changes the images of the train split in place",
    ),
    "metric of labels": (
        metric("float(sum((labels == 0).sum() for _, labels in evaluation.conditioned(16, 0)))"),
        "return ganlab.Scores",
        "other data",
        "AttributeError",
    ),
    "metric of many": (
        metric("float(torch.cat([*evaluation.generated(1000, 0)])[999].float().mean())"),
        "return ganlab.Scores",
        "other data",
        "IndexError",
    ),
    "metric text": (metric("'good'"), "# evaluate", "scores", "the value 'bad' is 'good', wanted a number"),
    "metric better": (metric("0.5", better='{"bad": "more"}'), "# evaluate", "scores", "better is 'more'"),
    "metric protocol": (
        metric("0.5", protocol='{"metric": object()}'),
        "# evaluate",
        "scores",
        "as JSON",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
