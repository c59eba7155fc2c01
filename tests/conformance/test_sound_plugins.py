"""Sound plugins of published kinds, in which the conformance suite must find no fault, and their faulty twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import HEAD, faults, loss, network, penalty
from ganlab.testing import Check, conformance
from tiers import spread

pytestmark = pytest.mark.usefixtures("quick_timing")


def checked(source: str, folder: Path, of_kind: str = "") -> list[Check]:
    file = folder / "plugin.py"
    file.write_text(source)
    (subject,) = [subject for subject in conformance(file) if of_kind in subject.kind]
    return subject.check()


def assert_sound(source: str, folder: Path, of_kind: str = "") -> list[Check]:
    checks = checked(source, folder, of_kind)
    assert [str(found) for found in checks if found.result != "passed"] == []
    return checks


# ---------------------------------------------------------------------------------------------------------------------
# Heads that only a penalty trains, and layers that begin at 0
# ---------------------------------------------------------------------------------------------------------------------

OBJECT = """
@frozen
class Output:
    logits: torch.Tensor
    extra: object
"""
CODES = "self.codes = nn.Linear(images.channels * images.height * images.width, 2)"
HEADS = {
    "an object with codes": "Output({logits}, self.codes(x.flatten(1)))",
    "a list of features": "Output({logits}, [x, {{'codes': self.codes(x.flatten(1))}}])",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_only_a_penalty_trains(head: str, tmp_path: Path) -> None:
    output = HEADS[head].format(logits="self.down(x.flatten(1)).squeeze(1)")
    source = network("discriminator", f"return {output}", CODES).replace(HEAD, HEAD + OBJECT)
    assert_sound(source, tmp_path)
    unused = source.replace("self.codes(x.flatten(1))", "x.flatten(1)")
    (fault,) = faults(checked(unused, tmp_path))
    assert fault.detail == "no gradient reaches codes.weight, codes.bias"
    nan = source.replace("self.codes(x.flatten(1))", "self.codes(x.flatten(1)) + torch.nan")
    (fault,) = faults(checked(nan, tmp_path))
    assert "returns NaN or infinity" in fault.detail


ZEROS = "[part.data.zero_() for part in self.{layer}.parameters()]"


@pytest.mark.parametrize(
    ("kind", "body", "layer"),
    [
        ("discriminator", "return self.down(x.flatten(1)).squeeze(1)", "down"),
        ("generator", "return torch.tanh(self.up(x)).unflatten(1, self.shape)", "up"),
    ],
)
def test_a_last_layer_that_begins_at_0(kind: str, body: str, layer: str, tmp_path: Path) -> None:
    assert_sound(network(kind, body, ZEROS.format(layer=layer)), tmp_path)


def test_a_gain_that_begins_at_0(tmp_path: Path) -> None:
    gain = "self.gain = nn.Parameter(torch.zeros(()))"
    source = network("discriminator", "return self.gain * self.down(x.flatten(1)).squeeze(1)", gain)
    assert_sound(source, tmp_path)
    (fault,) = faults(checked(source.replace("self.gain *", "0 * self.gain *"), tmp_path))
    assert fault.detail == "the gradient is 0 for every weight"


# ---------------------------------------------------------------------------------------------------------------------
# State that begins at 0
# ---------------------------------------------------------------------------------------------------------------------

STATE = "k: torch.Tensor = field(factory=lambda: torch.zeros(()), init=False, eq=False)"
SAVED = """def state_dict(self): return {"k": self.k}
    def load_state_dict(self, state): self.k.copy_(state["k"])
"""
MOVED = "self.k.add_(0.01 * (0.5 * -real.detach().mean() + fake.detach().mean())).clamp_(0, 1)"


def began(d: str, g: str, options: str = STATE, more: str = SAVED) -> str:
    return loss(d, g, options, f"{more}    def moved(self, real, fake): return {MOVED}\n")


BEGAN = began("-real.mean() + self.k.clone() * fake.mean() + 0 * self.moved(real, fake)", "-fake.mean()")


def test_began(tmp_path: Path) -> None:
    """Berthelot et al. 2017, arXiv:1703.10717: the weight k of the fake images begins at 0; logits are minus errors."""
    assert_sound(BEGAN, tmp_path)
    never = BEGAN.replace("clamp_(0, 1)", "clamp_(0, 0)")
    (fault,) = faults(checked(never, tmp_path))
    assert fault.detail == "the discriminator's loss has no gradient with respect to the logits of fake images"


def test_a_generators_loss_that_uses_real_logits_once_its_state_has_moved(tmp_path: Path) -> None:
    uses = BEGAN.replace("-fake.mean()\n", "-fake.mean() * (1 + self.k * real.mean())\n")
    (declared,) = [found for found in checked(uses, tmp_path) if found.what.startswith("real logits")]
    assert (declared.result, declared.detail) == ("passed", "")
    from_typing = "from typing import ClassVar\n" + uses.replace(
        STATE, f"{STATE}\n    generator_uses_real: ClassVar[bool] = False"
    )
    (fault,) = faults(checked(from_typing, tmp_path))
    assert "generator_uses_real is False" in fault.detail


RAMP = "step.fake_logits.square().mean() * (step.images_seen / 1e5).clamp(max=1)"
GROWS = "step.fake_logits.square().mean() * self.k.add_(0.1).clone()"


@pytest.mark.parametrize("body", [RAMP, GROWS])
def test_a_penalty_whose_weight_begins_at_0(body: str, tmp_path: Path) -> None:
    source = penalty(body).replace("class Bad:\n", f"class Bad:\n    {STATE}\n    {SAVED}", 1)
    assert_sound(source.replace("self.k.add_(0.1)", "self.k.add_(0.1).sub(0.1)"), tmp_path)
    (fault,) = faults(checked(source.replace("square()", "detach().square()"), tmp_path))
    assert "reaches no weight of the discriminator" in fault.detail


# ---------------------------------------------------------------------------------------------------------------------
# Networks whose condition is an image
# ---------------------------------------------------------------------------------------------------------------------

UP = "torch.tanh(self.up(x)).unflatten(1, self.shape)"
CONDITIONED: dict[str, tuple[str, str, str, str]] = {
    "an image of the same shape": (
        "generator",
        f"return ({UP} + self.mix(condition)).tanh()",
        "self.mix = nn.Conv2d(images.channels, images.channels, 3, padding=1)",
        "its condition is images (3, 8, 8) for images (3, 8, 8)",
    ),
    "a grey image": (
        "generator",
        f"return ({UP} + self.mix(condition)).tanh()",
        "self.mix = nn.Conv2d(1, images.channels, 3, padding=1)",
        "its condition is images (1, 8, 8) for images (3, 8, 8)",
    ),
    "a smaller image": (
        "generator",
        f"return ({UP} + self.mix(condition)).tanh()",
        "self.mix = nn.ConvTranspose2d(images.channels, images.channels, 4, 4)",
        "its condition is images (3, 2, 2) for images (3, 8, 8)",
    ),
    "a pair": (
        "discriminator",
        "return self.down(x.flatten(1)).squeeze(1) + self.mix(torch.cat([x, condition], 1)).mean((1, 2, 3))",
        "self.mix = nn.Conv2d(2 * images.channels, 1, 3)",
        "its condition is images (3, 8, 8) for images (3, 8, 8)",
    ),
    "none": (
        "generator",
        f"if condition is not None: raise ganlab.ComponentError('takes no condition')\n        return {UP}",
        "pass",
        "it takes no condition",
    ),
}


@pytest.mark.parametrize("case", spread(1, CONDITIONED))
def test_a_network_whose_condition_is_no_label(case: str, tmp_path: Path) -> None:
    kind, body, init, note = CONDITIONED[case]
    checks = assert_sound(network(kind, body, init), tmp_path)
    (shape,) = [found for found in checks if found.what.startswith("shape")]
    assert note in shape.detail


def test_a_network_that_fails_for_labels_and_needs_none_is_at_fault(tmp_path: Path) -> None:
    body = f"x = x if condition is None else x + self.scale(condition.long())\n        return {UP}"
    source = network("generator", body, "self.scale = nn.Embedding(2, 5)")
    (fault,) = faults(checked(source, tmp_path))
    assert "IndexError" in fault.detail


# ---------------------------------------------------------------------------------------------------------------------
# Penalties that need networks of their own
# ---------------------------------------------------------------------------------------------------------------------


INNER = network("discriminator", "return self.down(self.inner(x)).squeeze(1)").replace("class Bad", "class Own")
INNER = INNER.replace('register("bad", Bad)', 'register("own", Own)').replace(
    "    def forward", "    def inner(self, x): return torch.tanh(2 * x.flatten(1))\n    def forward"
)
MATCHING = "(step.discriminator.inner(step.fake) * step.discriminator.down.weight).square().mean()"
CODED = network("generator", f"self.codes = x[:, :2]\n        return {UP}").replace("class Bad", "class Coder")
CODED = CODED.replace('register("bad", Bad)', 'register("coder", Coder)').replace("class Net", "class Coding")
CODED = CODED.replace("Net(images)", "Coding(images)")
INFORMED = "(step.generator.codes[:, 0] - step.fake_logits).square().mean()"
OWN: dict[str, tuple[str, str, str, str]] = {
    "inner features": (INNER, MATCHING, "discriminator", "needs a discriminator with 'inner'"),
    "codes": (CODED, INFORMED, "generator", "needs a generator with 'codes'"),
    "a part of the output": (
        network(
            "discriminator", "return Output(self.down(x.flatten(1)).squeeze(1), self.down(x.flatten(1)).tanh())"
        ).replace(HEAD, HEAD + OBJECT),
        "step.fake_logits.extra.square().mean()",
        "discriminator",
        "needs a discriminator whose output has 'extra'",
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_a_penalty_that_needs_a_network_of_its_own_file(case: str, tmp_path: Path) -> None:
    source, body, player, needed = OWN[case]
    alone = penalty(body, player).replace("class Bad", "class Term").replace('"bad", Bad', '"term", Term')
    checks = assert_sound(source + alone.replace(HEAD, ""), tmp_path, "penalty")
    assert any("checked with" in found.detail for found in checks)
    (refused,) = [found for found in checked(alone, tmp_path) if found.result not in ("passed", "skipped")]
    assert (refused.result, refused.detail) == (
        "refused",
        f"refuses: {needed}, and was checked without one; register it in the same file",
    )


def test_a_penalty_that_needs_images_as_the_condition(tmp_path: Path) -> None:
    """The reconstruction term of pix2pix (Isola et al. 2017, arXiv:1611.07004), whose condition is an image."""
    source = penalty("(step.fake - step.condition).abs().mean()", player="generator")
    assert_sound(source, tmp_path)
    (fault,) = faults(checked(source.replace("step.fake -", "step.fake.detach() -"), tmp_path))
    assert "reaches no weight of the generator" in fault.detail


def test_a_penalty_with_a_mistyped_name_is_at_fault(tmp_path: Path) -> None:
    (fault,) = faults(checked(penalty("step.fkae.mean()"), tmp_path))
    assert "'Step' object has no attribute 'fkae'" in fault.detail
    both = INNER + penalty("step.discriminator.inner(step.fkae).mean()").replace(HEAD, "")
    (fault,) = faults(checked(both, tmp_path, "penalty"))
    assert "'Step' object has no attribute 'fkae'" in fault.detail


# ---------------------------------------------------------------------------------------------------------------------
# What looks at values on the CPU only
# ---------------------------------------------------------------------------------------------------------------------


def test_one_hot(tmp_path: Path) -> None:
    """On CUDA it reads nothing back where the number of classes is given."""
    body = "(step.fake_logits[:, None] * nn.functional.one_hot(step.condition, {})).square().mean()  # here"
    assert_sound(penalty(body.format(4)), tmp_path)
    (fault,) = faults(checked(penalty(body.format(-1)), tmp_path))
    assert "reads a value back from the device" in fault.detail


def test_repeat_interleave(tmp_path: Path) -> None:
    """The shape is taken from values, unless it is given."""
    body = "return self.down(x.flatten(1)).squeeze(1).repeat_interleave(torch.ones(len(x)).long(){})"
    assert_sound(network("discriminator", body.format(", output_size=len(x)")), tmp_path)
    (fault,) = faults(checked(network("discriminator", body.format("")), tmp_path))
    assert "takes a shape from values (repeat_interleave)" in fault.detail
