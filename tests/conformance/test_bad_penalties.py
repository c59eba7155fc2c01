"""The conformance checks of penalties and augmentations, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, augmentation, penalty

pytestmark = pytest.mark.usefixtures("quick_timing")


BAD: dict[str, BadPlugin] = {
    "penalty player": (
        penalty("sum(w.square().sum() for w in step.generator.parameters())"),
        "# penalty",
        "gradient: reaches",
        "no weight of the discriminator, its player; it reaches the generator's: is that its player?",
    ),
    "penalty detached": (
        penalty("step.fake_logits.detach().mean()"),
        "# penalty",
        "gradient: reaches",
        "reaches no weight",
    ),
    "penalty nan": (penalty("(step.real_logits.sum() * 0).log() * torch.inf  # here"), "# here", "finite", "is "),
    "penalty nobody's": (
        penalty("step.fake_logits.mean()", player="critic"),
        "# player",
        "player",
        "player is 'critic'",
    ),
    "penalty in place": (
        penalty("step.judge(step.real.clamp_(-0.5, 0.5)).square().mean()"),
        "# penalty",
        "finite",
        "changes step.real in place",
    ),
    "penalty root": (
        penalty("(step.gradient_at(step.real).square().flatten(1).sum(1).sqrt() - 1).square().mean()"),
        "# penalty",
        "gradient: reaches",
        "is not finite where all logits are 0",
    ),
    "penalty never": (penalty("step.fake_logits.mean()", every="0"), "# every", "player", "every is 0"),
    "augmentation rounds": (
        augmentation("(images * 4).round() / 4"),
        "# augment",
        "gradient: reaches",
        "0 for every",
    ),
    "augmentation detached": (augmentation("images.detach() * 0.9"), "# augment", "gradient: reaches", "detached"),
    "augmentation shape": (augmentation("images[..., 1:]"), "# augment", "shape", "returns torch.float32 (1, 1, 8, 7)"),
    "augmentation in place": (augmentation("images.mul_(0.9)"), "# augment", "images", "in place"),
    "augmentation mixes": (augmentation("images + images.mean(0)"), "# augment", "each image", "NaN in three of six"),
    "augmentation place": (
        augmentation("images * (1 - 0.5 * torch.linspace(0, 1, len(images)).view(-1, 1, 1, 1))"),
        "# augment",
        "each image",
        "depends on its place in the batch",
    ),
    "augmentation counts": (
        augmentation("images * (0.5 + (images > 0).float().mean())"),
        "# augment",
        "each image",
        "it changes with the rest",
    ),
    "augmentation forgets what it observed": (
        augmentation("images * (1 - self.dark)").replace(
            "    def",
            """    dark: torch.Tensor = field(init=False, eq=False, factory=lambda: torch.zeros(()))
    def observe(self, real): self.dark.copy_(torch.full((), 0.5))  # observe
    def""",
            1,
        ),
        "# observe",
        "observe, measures",
        "differs in images after 1,000 batches of observed logits",
    ),
    "augmentation measures": (
        augmentation("images * 0.9\n    def measures(self): return {'p': 0.5}  # measures"),
        "# measures",
        "observe, measures",
        "returns float, expected a scalar tensor",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
