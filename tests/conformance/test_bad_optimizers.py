"""The conformance checks of optimisers and schedules, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, of, optimizer, schedule

pytestmark = pytest.mark.usefixtures("quick_timing")


BAD: dict[str, BadPlugin] = {
    "optimizer option copied": (
        optimizer("weight.sub_(weight.grad, alpha=self.rate)")
        .replace("super().__init__(parameters, {})", "super().__init__(parameters, {'lr': rate}); self.rate = rate")
        .replace("parameters):\n        super", "parameters, rate):\n        super")
        .replace(
            "    def build(self, parameters): return Descent(parameters)",
            "    'lr: the rate.'\n    lr: float = 0.25\n"
            "    def build(self, parameters): return Descent(parameters, self.lr)",
        ),
        "@frozen",
        "schedules",
        "lr: set to 0.125 by a schedule",
    ),
    "schedule divides": (
        schedule("first * (1 - step / (total - 1))  # here"),
        "# here",
        "values: a finite number",
        "ZeroDivisionError",
    ),
    "schedule infinite": (
        schedule("first * 1e308 * total"),
        "# value",
        "values: a finite number",
        "returns inf in step 0",
    ),
    "schedule counts": (schedule("first + next(asked)"), "# value", "pure", "and, asked again, "),
    "optimizer climbs": (optimizer("weight.add_(weight.grad, alpha=0.1)"), "# step", "steps", "took a quadratic from"),
    "optimizer state": (
        optimizer("weight.sub_(weight.grad, alpha=0.2 / (1 + next(self.count)))", "self.count = itertools.count()"),
        "# step",
        "state: another",
        "keeps more than its state",
    ),
    "optimizer of some": (
        of(
            "optimizer",
            "@frozen\nclass Bad:\n"
            "    def build(self, parameters): return torch.optim.SGD(list(parameters)[:1], 0.1)  # here\n",
        ),
        "# here",
        "builds",
        "does not hold the parameter 'network.bias'",
    ),
    "optimizer leaves some": (
        optimizer("weight.sub_(weight.grad, alpha=0.1 * (weight.ndim > 1))"),
        "# step",
        "steps",
        "leave one of its parameters as it was, the bias",
    ),
    "schedule of NumPy": (
        schedule("np.float32(first)"),
        "# value",
        "values: a finite number",
        "expected a Python float; float(...) converts it",
    ),
    "optimizer none": (
        of("optimizer", "@frozen\nclass Bad:\n    def build(self, parameters): return None  # here\n"),
        "# here",
        "builds",
        "expected a torch.optim.Optimizer",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
