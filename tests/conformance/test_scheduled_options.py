"""The conformance check of options under schedules, against options whose effect is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import MEMORY, MOVES, STATE, G, faults, loss, of
from ganlab.testing import conformance
from ganlab_plugins import optimizers
from tiers import spread

pytestmark = pytest.mark.usefixtures("quick_timing")


@pytest.mark.parametrize(
    ("options", "generator", "said"),
    spread(
        3,
        [
            ("scale: float = 1.0", f"self.scale * {G}", "scale"),
            ("scale: float = 0.1", f"2 * self.scale * {G}", "scale"),
            (
                "scale: float = 1.0",
                f"{G} if self.scale > 0 else -{G}  # here",
                "scale (no other value that was tried changes anything here)",
            ),
            (
                "scale: float = 1.0",
                f"self.scale * {G} if self.scale > 0 else {G}  # here",
                "scale (steps are eager under it: line LINE reads a value back from the device (item, bool, float or "
                "int of a tensor))",
            ),
            (
                "scale: float = field(default=1.0, converter=float)",
                f"self.scale * {G}",
                "scale (cannot be scheduled: 'loss.scale' cannot be moved: its class makes a number of a tensor)",
            ),
            (
                "scale: float = 1.0",
                f"float.__add__(self.scale, 1.0) * {G}",
                "scale (cannot be scheduled, the step raises: TypeError: ",
            ),
            ("scale: int = 1", f"self.scale * {G}", "it has none that a schedule could change"),
        ],
    ),
)
def test_what_a_schedule_may_do_with_an_option(options: str, generator: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "scaled.py"
    source = loss(options=f'"""scale: a factor."""; {options}', g=generator)
    file.write_text(source)
    (subject,) = conformance(file)
    checks = subject.check()
    assert faults(checks) == []
    (found,) = [found for found in checks if found.what.startswith("schedules")]
    line = next((number for number, text in enumerate(source.splitlines(), 1) if "# here" in text), 0)
    said = said.replace("LINE", str(line))
    assert found.detail.startswith(said) if said.endswith(": ") else found.detail == said


def schedules_of(file: Path, source: str) -> str:
    file.write_text(source)
    (subject,) = conformance(file)
    checks = subject.check()
    assert faults(checks) == []
    (found,) = [found for found in checks if found.what.startswith("schedules")]
    assert found.result == "passed"
    return found.detail


def test_what_one_training_learnt_is_not_the_nexts(tmp_path: Path) -> None:
    """An option that nothing reads changes nothing, though a loss that has learnt would."""
    options = f'"""scale: a factor. unread: nothing."""; scale: float = 1.0; unread: float = 1.0; {MEMORY}'
    takes = f"{STATE[:-8]}\n    def load_state_dict(self, state): self.memory.copy_(state['memory'])"
    said = schedules_of(tmp_path / "learning.py", loss(d=f"self.scale * {MOVES}", options=options, more=takes))
    assert said == "scale, unread (no other value that was tried changes anything here)"


def test_a_value_that_is_refused_is_not_the_one_to_try(tmp_path: Path) -> None:
    wrapper = '"""factor: at least 1."""\n    factor: float = 1.0\n    def __call__(self, loss):\n' + (
        "        if self.factor < 1: raise ganlab.ComponentError('too small')\n        return Bad.Scaled(loss, self)\n"
        "    class Scaled:\n        def __init__(self, loss, bad): self.loss, self.bad = loss, bad\n"
        "        def discriminator(self, *logits): return self.bad.factor * self.loss.discriminator(*logits)\n"
        "        def generator(self, *logits): return self.loss.generator(*logits)\n"
    )
    said = schedules_of(tmp_path / "wrapper.py", of("loss_wrapper", f"@frozen\nclass Bad:\n    {wrapper}"))
    assert said == "factor"


def test_options_of_an_optimiser_make_steps_eager(tmp_path: Path) -> None:
    (sgd,) = [one for one in conformance(optimizers) if one.name == "sgd"]
    (found,) = [found for found in sgd.check() if found.what.startswith("schedules")]
    eager = "steps are eager under it: moved by a schedule, and the optimiser takes no tensor for it"
    assert found.detail == f"lr, momentum ({eager}), weight_decay ({eager})"
