"""Right plugins that are unusual in one way each: the conformance suite finds no fault in them, and may note why."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import HEAD, D, G, loss, metric, network, of, optimizer, penalty, schedule, tracker
from ganlab.run.run_folder import NEEDED
from ganlab.testing import Check, conformance
from tiers import spread

pytestmark = pytest.mark.usefixtures("quick_timing")

LAZY = of(
    "penalty",
    """
@frozen
class Bad:
    "every: the interval, of at least 4."
    every: int = field(default=4, validator=ganlab_at_least(4))
    player = "discriminator"
    def penalty(self, step): return step.fake_logits.square().mean()
""",
).replace("import ganlab\n", "import ganlab\nfrom attrs.validators import ge as ganlab_at_least\n", 1)

MANY = metric("float(torch.cat([*evaluation.generated(self.samples, 0)]).float().mean())").replace(
    "    def evaluate",
    "    samples: int = field(default=2500, validator=at_least)\n    def evaluate",
)
MANY = MANY.replace('    """every: how often."""', '    """every: how often.\n\n    samples: how many.\n    """')
MANY = MANY.replace("import ganlab\n", "import ganlab\nfrom attrs.validators import ge\nat_least = ge(2500)\n", 1)

TWO_LOGITS = network(
    "discriminator", "return [self.down(x.flatten(1)).squeeze(1), self.down(x.flatten(1).sin()).squeeze(1)]"
)
AGREEMENT = penalty("(lambda one, two: (one - two).square().mean())(*step.real_logits)").replace(HEAD, "")
AGREEMENT = AGREEMENT.replace("class Bad", "class Term").replace('"bad", Bad', '"term", Term')

SUM = loss(
    "sum(one.discriminator(real, fake) for one in self.losses)",
    "sum(one.generator(real, fake) for one in self.losses)",
    '"""losses: which are added."""; losses: tuple[ganlab.Loss, ...] = ganlab.components("loss")',
)
PASSES_ON = of(
    "loss_wrapper",
    """
@frozen
class Same:
    loss: object
    def discriminator(self, real, fake): return self.loss.discriminator(real, fake)
    def generator(self, real, fake): return self.loss.generator(real, fake)
@frozen
class Bad:
    def __call__(self, loss): return Same(loss)
""",
)
READS = tracker().replace(
    "return Log()",
    "return Log() if run.info['device'] and run.info['dataset']['count'] and run.info['versions']['torch'] else None",
)

RIGHT: dict[str, tuple[str, str]] = {
    "a penalty that refuses a shorter interval": (LAZY, "penalty"),
    "a metric that refuses fewer samples": (MANY, "metric"),
    "an optimizer that draws noise": (
        optimizer("weight.sub_(weight.grad, alpha=0.1).add_(1e-4 * torch.randn_like(weight))"),
        "optimizer",
    ),
    "a tracker that reads run.json": (READS, "tracker"),
    "a sum of losses": (SUM, "loss"),
    "a penalty of two logits": (TWO_LOGITS + AGREEMENT, "penalty"),
    "a wrapper of a loss with a state": (PASSES_ON, "loss_wrapper"),
}


def checked(source: str, folder: Path, kind: str) -> list[Check]:
    file = folder / "plugin.py"
    file.write_text(source)
    (subject,) = [subject for subject in conformance(file) if subject.kind == kind]
    return subject.check()


@pytest.mark.parametrize("case", spread(7, RIGHT))
def test_a_right_plugin_passes_all_checks(case: str, tmp_path: Path) -> None:
    source, kind = RIGHT[case]
    assert [str(found) for found in checked(source, tmp_path, kind) if found.result != "passed"] == []


STOPS = "stops_gradient: ClassVar[bool] = True"
STOPPED: dict[str, tuple[str, str, str]] = {
    "a loss": (
        loss(g="(torch.sigmoid(-fake).detach() * softplus(-fake)).mean()", more=STOPS),
        "loss",
        "the gradient of the generator's loss is stopped on purpose: along a random direction",
    ),
    "a penalty": (
        penalty("(step.judge(step.real.flip(3)) - step.judge(step.real).detach()).square().mean()").replace(
            "class Bad:", f"class Bad:\n    {STOPS}"
        ),
        "penalty",
        "the gradient of the penalty is stopped on purpose",
    ),
    "a discriminator": (
        network(
            "discriminator",
            "x = x.flatten(1) * self.down.weight; return (x + (x.sign() - x).detach()).sum(1) + self.down.bias",
        ).replace("class Bad:", f"class Bad:\n    {STOPS}"),
        "discriminator",
        "the gradient of its output is stopped on purpose",
    ),
    "nothing": (loss(more=STOPS), "loss", "stops_gradient is True, and this gradient is not stopped"),
}


@pytest.mark.parametrize("case", STOPPED)
def test_a_gradient_that_is_declared_to_be_stopped_is_noted(case: str, tmp_path: Path) -> None:
    source, kind, note = STOPPED[case]
    source = "from typing import ClassVar\n" + source
    checks = checked(source, tmp_path, kind)
    assert [str(found) for found in checks if found.result != "passed"] == []
    (found,) = [found for found in checks if found.what.startswith("gradient: agrees")]
    assert note in found.detail
    if case != "nothing":
        undeclared = checked(source.replace(STOPS, "pass"), tmp_path, kind)
        (fault,) = [found for found in undeclared if found.result == "fault"]
        assert "where it is stopped on purpose (detach), declare stops_gradient: ClassVar[bool] = True" in fault.detail


NOTED: dict[str, tuple[str, str, str, str]] = {
    "a schedule that begins at 0": (
        schedule("first if step >= 100 else 0.0"),
        "schedule",
        "trains",
        "under its values these 6 steps leave the generator's weights unchanged",
    ),
    "a loss of one logit for each image": (
        loss(d=D.replace("mean()", "sum(0) / len(real)"), g=G.replace("mean()", "sum(0) / len(real)")),
        "loss",
        "finite",
        "for logits (N,) only: of maps (N, 1, h, w), which patches have, the discriminator's loss returns ",
    ),
    "a metric with one score": (metric("0.5"), "metric", "other data", "all images have the same score"),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_may_be_meant_is_noted(case: str, tmp_path: Path) -> None:
    source, kind, what, note = NOTED[case]
    checks = checked(source, tmp_path, kind)
    assert [str(found) for found in checks if found.result != "passed"] == []
    (found,) = [found for found in checks if found.what.startswith(what)]
    assert note in found.detail


def test_a_tracker_sees_what_every_run_holds(tmp_path: Path) -> None:
    needed = ", ".join(f"run.info[{key!r}]" for key in NEEDED)
    reads = tracker().replace("return Log()", f"return [{needed}] and Log()")
    assert [str(found) for found in checked(reads, tmp_path, "tracker") if found.result != "passed"] == []
