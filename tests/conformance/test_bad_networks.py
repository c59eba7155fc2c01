"""The conformance checks of generators and discriminators, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import DOWN, LOCK, UP, BadPlugin, assert_one_fault, network
from ganlab.testing import conformance

pytestmark = pytest.mark.usefixtures("quick_timing")


def test_a_component_that_refuses_a_shape_is_not_at_fault(tmp_path: Path) -> None:
    file = tmp_path / "grey.py"
    source = network("discriminator", f"return {DOWN}").replace(
        "def build(self, images): return",
        "def build(self, images):\n        if images.channels != 1:\n"
        "            raise ganlab.ComponentError('only grey')\n        return",
    )
    file.write_text(source)
    (subject,) = conformance(file)
    checks = subject.check()
    assert {found.result for found in checks} == {"passed"}
    (shape,) = [found for found in checks if found.what.startswith("shape")]
    assert shape.detail == "refuses 3x8x8: only grey; refuses 3x32x32: only grey; refuses 3x64x64: only grey"
    file.write_text(source.replace("images.channels != 1", "True"))
    (subject,) = conformance(file)
    (refused,) = [found for found in subject.check() if found.result == "refused"]
    assert refused.detail == "refuses 1x8x8: only grey"


@pytest.mark.parametrize(
    "returned",
    [
        "self.down(x.flatten(1)).squeeze(1)",
        "self.down(x.flatten(1))[:, :, None].expand(-1, 2, 3)",
        "[self.down(x.flatten(1)).squeeze(1), self.down(x.flatten(1).sin())[:, :, None]]",
    ],
)
def test_a_discriminator_may_return_several_logits_of_each_image(returned: str, tmp_path: Path) -> None:
    """One, a map of them, and a list."""
    file = tmp_path / "several.py"
    file.write_text(network("discriminator", f"return {returned}"))
    (subject,) = conformance(file)
    assert {found.result for found in subject.check()} == {"passed"}


BAD: dict[str, BadPlugin] = {
    "generator shape": (
        network("generator", "return torch.tanh(self.up(x))"),
        "# forward",
        "shape",
        "returns images of shape (2, 64) for 2 images of 1x8x8, expected (2, 1, 8, 8)",
    ),
    "generator unused": (
        network("generator", f"return {UP}", "self.spare = nn.Linear(2, 2)"),
        "# forward",
        "gradient: reaches",
        "no gradient reaches spare.weight, spare.bias",
    ),
    "generator batch": (
        network("generator", f"return {UP} + 0.1 * x.mean()"),
        "# forward",
        "evaluation",
        "depends on the others in its batch",
    ),
    "generator noise": (
        network("generator", f"return {UP} + 0.01 * torch.randn(1)  # here"),
        "# here",
        "evaluation",
        "in eval mode",
    ),
    "generator latent_dim": (
        network("generator", f"return {UP}", "self.latent_dim = 5.0").replace(
            "def __init__(self, images):", "def __init__(self, images):  # here"
        ),
        "# init",
        "shape",
        "no whole number latent_dim, but 5.0",
    ),
    "generator seeds": (
        network("generator", f"return {UP}", "self.up.bias.data[0] = float(np.random.default_rng().random())  "),
        "# init",
        "weights",
        "differ in up.bias",
    ),
    "generator one size": (
        network("generator", f"return {UP} + torch.zeros(1, 1, 8, 8)  # here"),
        "# here",
        "shape",
        "fails for 2 images of 1x28x28: RuntimeError: The size of tensor",
    ),
    "generator in place": (
        network("generator", f"x.clamp_(-1, 1); return {UP}"),
        "# forward",
        "shape",
        "changes its latents in place",
    ),
    "generator place": (
        network("generator", f"return {UP} + 0.1 * torch.arange(len(x)).view(-1, 1, 1, 1)"),
        "# forward",
        "evaluation",
        "in eval mode an output depends on its place in the batch",
    ),
    "discriminator in place": (
        network("discriminator", "return self.down(nn.functional.leaky_relu_(x, 0.2).flatten(1)).squeeze(1)"),
        "# forward",
        "shape",
        "changes its images in place",
    ),
    "discriminator place": (
        network("discriminator", f"return {DOWN} + torch.linspace(-1, 1, len(x))", "self.batch_independent = True"),
        "# forward",
        "evaluation",
        "batch_independent is True, and a logit depends on its place in the batch",
    ),
    "discriminator tuple": (
        network("discriminator", f"return ({DOWN},)"),
        "# forward",
        "shape",
        "returns tuple; expected a tensor of logits, an object that has them as 'logits', or a list of these",
    ),
    "discriminator locked": (
        network("discriminator", f"return {DOWN}").replace("class Bad:", f"class Bad:\n    {LOCK}"),
        "@frozen",
        "shape",
        "cannot be copied, as a run copies it",
    ),
    "discriminator initialises": (
        network("discriminator", f"return {DOWN}").replace(
            "class Bad:", "class Bad:\n    @property\n    def initialise(self): return {}['none']  # here"
        ),
        "# here",
        "complete",
        "KeyError",
    ),
    "discriminator shape": (
        network("discriminator", "return self.down(x.flatten(1))"),
        "# forward",
        "shape",
        "returns logits of shape (2, 1)",
    ),
    "discriminator images": (
        network("discriminator", "return self.down(x.detach().flatten(1)).squeeze(1)"),
        "# forward",
        "gradient: reaches",
        "no gradient reaches the images",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
