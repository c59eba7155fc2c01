"""The conformance checks of losses and loss wrappers, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import LOCK, MEMORY, MOVES, STATE, WRONG, BadPlugin, assert_one_fault, loss, of
from tiers import spread

pytestmark = pytest.mark.usefixtures("quick_timing")


BAD: dict[str, BadPlugin] = {
    "loss nan": (loss(d="(real - fake).log().mean()  # here"), "# here", "finite", "is -inf"),
    "loss infinite": (
        loss(g="-fake.sigmoid().log().mean()  # here"),
        "# here",
        "finite",
        "standard deviation of 100 is inf",
    ),
    "loss not scalar": (loss(g="-fake"), "# generator", "finite", "expected a scalar of floats: take the mean"),
    "loss a number": (loss(g="0.5"), "# generator", "finite", "returns float, expected a scalar tensor"),
    "loss raises": (loss(g="fake.no_such_method()  # here"), "# here", "finite", "AttributeError: "),
    "loss detached": (loss(g="-fake.detach().mean()"), "# generator", "gradient: reaches", "detached from the logits"),
    "loss leaves real": (
        loss(d="softplus(fake).mean() + 0 * real.mean()  # here").replace(
            "def discriminator(self, real, fake):", "def discriminator(self, real, fake):  # d"
        ),
        "# d\n",
        "gradient: reaches",
        "no gradient with respect to the logits of real images",
    ),
    "loss gradient": (
        loss(g="-Twice.apply(fake).mean()", before=WRONG),
        "# generator",
        "gradient: agrees",
        "the gradient of the generator's loss is wrong",
    ),
    "loss gradient of equal logits": (
        loss(g="softplus(-fake).mean() + (fake - fake.mean()).square().mean().sqrt()"),
        "# generator",
        "gradient: reaches",
        "the gradient of the generator's loss is not finite where all logits are equal",
    ),
    "loss in place": (
        loss(d="softplus(fake.mul_(2) - real).mean()"),
        "# discriminator",
        "finite",
        "changes the fake logits in place",
    ),
    "loss measures": (
        loss(more="def measures(self, real, fake): return {'gap': 0.5}  # here"),
        "# here",
        "finite",
        "returns float, expected a scalar tensor",
    ),
    "loss measures raise": (
        loss(more="def measures(self, real, fake): return {'gap': real.no_such}  # here"),
        "# here",
        "finite",
        "AttributeError",
    ),
    "loss shared": (
        loss(d=MOVES, options="memory: torch.Tensor = field(default=torch.zeros(()), init=False, eq=False)"),
        "@frozen",
        "defaults",
        "all instances share one tensor, 'memory', as their state",
    ),
    "loss locked": (loss(options=LOCK), "@frozen", "finite", "cannot be copied, as a run copies it"),
    "loss compares real": (
        loss(g="((fake < real.mean()).float() * fake).mean()", more="generator_uses_real = False"),
        "# generator",
        "real logits",
        "generator_uses_real is False, and the generator's loss changes with the real logits",
    ),
    "loss item": (
        loss(g="-fake.mean() if real.mean().item() < 1e9 else fake.mean()  # here"),
        "# here",
        "capture",
        "reads a value back from the device (item, bool, float or int of a tensor)",
    ),
    "loss shape from values": (
        loss(g="-fake[fake < 1e9].mean()  # here"),
        "# here",
        "capture",
        "a shape from values",
    ),
    "loss random": (
        loss(g="-fake.mean() + 0 * torch.rand(1).sum()  # here"),
        "# here",
        "randomness",
        "the generator's loss draws torch's global random numbers",
    ),
    "loss Python's random": (
        loss(g="-fake.mean() + 0 * random.random()"),
        "# generator",
        "randomness",
        "draws Python's",
    ),
    "loss NumPy's random": (
        loss(g="-fake.mean() + 0 * np.random.rand()"),
        "# generator",
        "randomness",
        "draws NumPy's",
    ),
    "loss undocumented": (loss(options="margin: float = 1.0"), "@frozen", "options", "says nothing of 'margin'"),
    "loss option doubled beforehand": (
        loss(
            g="self.twice * softplus(-fake).mean()",
            options='"""scale: a factor."""; scale: float = 1.0; twice: float = field(init=False)',
            more="@twice.default\n    def _twice(self): return 2 * self.scale",
        ),
        "@frozen",
        "schedules",
        "scale: set to 0.5 by a schedule it does not do what the number 0.5 does",
    ),
    "loss forgets": (loss(d=MOVES, options=MEMORY), "@frozen", "resumes", "from one that never stopped"),
    "loss half a state": (loss(d=MOVES, options=MEMORY, more=STATE), "# here", "state", "no load_state_dict(state)"),
    "loss state not taken": (
        loss(
            d=MOVES,
            options=MEMORY,
            more=f"{STATE[:-8]}\n    def load_state_dict(self, state): pass  # here",
        ),
        "# here",
        "state",
        "memory differs",
    ),
    "loss targets": (
        loss(more="def with_targets(self, *, real, fake): return self  # here"),
        "# here",
        "label targets",
        "leaves the discriminator's loss as it was",
    ),
    "wrapper of real logits": (
        of(
            "loss_wrapper",
            """
@frozen
class Doubled:
    loss: object
    generator_uses_real = False
    def discriminator(self, real, fake): return self.loss.discriminator(real, fake)
    def generator(self, real, fake): return 2 * self.loss.generator(real, fake)  # here
@frozen
class Bad:
    def __call__(self, loss): return Doubled(loss)
""",
        ),
        "# here",
        "real logits",
        "generator_uses_real is False, and the generator's loss changes with the real logits",
    ),
    "wrapper hides a state": (
        of(
            "loss_wrapper",
            """
class Same:
    def __init__(self, loss): self.discriminator, self.generator = loss.discriminator, loss.generator
@frozen  # here
class Bad:
    def __call__(self, loss): return Same(loss)
""",
        ),
        "# here",
        "resumes",
        "from one that never stopped",
    ),
    "wrapper": (
        of("loss_wrapper", "@frozen\nclass Bad:\n    def __call__(self, loss): return None  # here\n"),
        "# here",
        "wraps",
        "returns NoneType",
    ),
}


@pytest.mark.parametrize("case", spread(9, BAD))
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
