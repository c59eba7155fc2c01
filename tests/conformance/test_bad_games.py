"""The conformance checks of games, against plugins that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_plugins import BadPlugin, assert_one_fault, of

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
                ganlab.Move("make", ("generator",), self.make),
            ],
            sampler=ganlab.Sampler(("generator",), images=self.images, latents=self.latents),
            STATE
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
    "STATE": 'state={"kept": kept}',
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
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_game_fails_one_check_at_its_line(case: str, tmp_path: Path) -> None:
    assert_one_fault(BAD[case], tmp_path)
