"""The conformance checks of games, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, faults, of
from ganlab.testing import conformance

pytestmark = pytest.mark.usefixtures("quick_timing")

GAME = """
class Generator(nn.Module):
    def __init__(self, data):
        super().__init__()
        self.shape = (data.channels, data.height, data.width)
        self.up = nn.Linear(4, data.channels * data.height * data.width)
    def forward(self, z, condition=None):
        return torch.tanh(self.up(z)).unflatten(1, self.shape)

class Discriminator(nn.Module):
    def __init__(self, data):
        super().__init__()
        self.down = nn.Linear(data.channels * data.height * data.width, 1)
    def forward(self, images):
        return self.down(images.flatten(1)).squeeze(1)

class Kept:
    def __init__(self): self.mean = torch.zeros(())
    def state_dict(self): return {"mean": self.mean}
    def load_state_dict(self, state): self.mean.copy_(state["mean"])

@frozen
class Bad:
    def build(self, data):  # build
        kept = Kept()
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: Generator(data.images)),
                "discriminator": ganlab.Network(lambda: Discriminator(data.images)),
                NETWORKS
            },
            moves=[
                ganlab.Move("judge", ("discriminator",), lambda turn: self.judge(turn, kept)),
                ganlab.Move("make", ("generator",), self.make, START),
            ],
            sampler=ganlab.Sampler(("generator",), images=self.images, latents=self.latents),
            STATE
            OUTPUTS
        )
    def judge(self, turn, kept):  # judge
        real, fake = (turn.forward("discriminator", images) for images in (turn.real, self.fake(turn)))
        JUDGED
        return softplus(fake).mean() + softplus(-real).mean()
    def make(self, turn):
        return softplus(-turn.forward("discriminator", self.fake(turn))).mean()
    def fake(self, turn):
        return turn.forward("generator", turn.normal(4))
    def latents(self, networks, count, generator, truncation):
        return torch.randn(count, 4, generator=generator)
    def images(self, networks, z, condition):
        return IMAGES
"""

SOUND = {
    "NETWORKS": "",
    "START": "start=0",
    "STATE": 'state={"kept": kept},',
    "OUTPUTS": 'outputs={"class_logits": lambda networks, images, condition: images[:, 0, 0]},',
    "JUDGED": "kept.mean.lerp_(real.detach().mean(), 0.1)",
    "IMAGES": 'networks["generator"](z)',
}


def game(**changes: str) -> str:
    source = GAME
    for name, expression in (SOUND | changes).items():
        source = source.replace(name, expression)
    return of("game", source)


BAD: dict[str, BadPlugin] = {
    "a network without a purpose": (
        game(NETWORKS='"spare": ganlab.Network(lambda: nn.Linear(2, 2))'),
        "# build",
        "rules",
        "no move trains the network 'spare'",
    ),
    "networks that share parameters": (
        game(NETWORKS='"twin": ganlab.Network(lambda one: nn.Sequential(one), given=("discriminator",), frozen=True)'),
        "# build",
        "trains",
        "share parameters",
    ),
    "a measure that is the core's": (
        game(JUDGED='turn.log("step", real.mean())'),
        "# build",
        "trains",
        "would both be logged as 'step'",
    ),
    "state that is not saved": (
        game(STATE="", JUDGED="kept.mean.add_(0.1); real = real + kept.mean"),
        "@frozen",
        "resumes",
        "differs in",
    ),
    "a value read back": (
        game(JUDGED="float(real.detach().mean())  # here"),
        "# here",
        "capture",
        "reads a value back",
    ),
    "samples that differ": (
        game(IMAGES='networks["generator"](z) * torch.rand(())'),
        "# build",
        "samples",
        "gave other images",
    ),
    "samples of another sampler that differ": (
        game(
            OUTPUTS='samplers={"more": ganlab.Sampler(("generator",), lambda n, z, c: torch.rand(len(z), 3, 8, 8), '
            "self.latents)},"
        ),
        "# build",
        "samples",
        "two samplings by the sampler 'more' with one seed gave other images",
    ),
    "a judge that raises": (
        game(OUTPUTS="judge=lambda networks, images, condition: images.none(),  # here"),
        "# here",
        "samples",
        "AttributeError",
    ),
    "a judge of maps": (
        game(OUTPUTS="judge=lambda networks, images, condition: images,"),
        "# build",
        "samples",
        "judge returns torch.float32 (8, 3, 8, 8) for 8 images, expected a logit of each",
    ),
    "levers that raise": (
        game(OUTPUTS="levers=lambda networks: 1 / 0,  # here"),
        "# here",
        "samples",
        "ZeroDivisionError",
    ),
    "an output that is drawn": (
        game(OUTPUTS='outputs={"drawn": lambda networks, images, condition: torch.rand_like(images)},'),
        "# build",
        "outputs",
        "the output 'drawn' is another one when it is made again",
    ),
    "an output of another shape": (
        game(OUTPUTS='outputs={"reconstruction": lambda networks, images, condition: images[:, :1]},'),
        "# build",
        "outputs",
        "the output 'reconstruction' has the shape (1, 8, 8) for an image; expected that of the image, (3, 8, 8)",
    ),
    "class logits of maps": (
        game(OUTPUTS='outputs={"class_logits": lambda networks, images, condition: images},'),
        "# build",
        "outputs",
        "has the shape (3, 8, 8) for an image; expected (classes,)",
    ),
    "an output that is not finite": (
        game(OUTPUTS='outputs={"log": lambda networks, images, condition: (0 * images).log()},'),
        "# build",
        "outputs",
        "the output 'log' has values that are not finite",
    ),
}


@pytest.mark.extended
@pytest.mark.slow
def test_a_sound_game_passes(tmp_path: Path) -> None:
    file = tmp_path / "sound.py"
    file.write_text(game())
    (component,) = conformance(file)
    checks = {found.what.partition(":")[0]: found for found in component.check()}
    assert {found.result for found in checks.values()} == {"passed"}
    assert checks["outputs"].detail == "class_logits (8,)"


SLOW = (
    "a judge of maps",
    "levers that raise",
    "samples of another sampler that differ",
    "an output that is drawn",
    "an output that is not finite",
    "class logits of maps",
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=(pytest.mark.extended, pytest.mark.slow) if case in SLOW else ()) for case in BAD],
)
def test_a_bad_game_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)


def test_a_move_that_begins_late_is_made_in_the_check(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(game(START="start=20, every=2"))
    (component,) = conformance(tmp_path / "late.py")
    assert faults(component.check()) == []
