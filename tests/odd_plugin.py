"""A plugin whose components give what is not finite in one step, each in a way of its own, and what a run then says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STEP = 6
"""The step, counted from 1, in which the plugins below go wrong: one update of each player has five before it."""

PLUGIN = """
import torch
from attrs import field, frozen
from torch import nn
import ganlab

class Clock:
    def __init__(self): self.time = torch.zeros(())
    def tick(self):
        self.time += 1
        return self.time == STEP
    def state_dict(self): return {"time": self.time}
    def load_state_dict(self, state): self.time.copy_(state["time"])

class Spoilt(torch.autograd.Function):  # its value is sound and its gradient is not
    @staticmethod
    def forward(ctx, x, bad):
        ctx.save_for_backward(bad)
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        (bad,) = ctx.saved_tensors
        return torch.where(bad, torch.nan, g), None

def value(x, bad): return torch.where(bad, torch.inf, x)
def gradient(x, bad): return Spoilt.apply(x, bad)
HOW = {"value": value, "gradient": gradient}

@frozen
class Loss:
    how: str = "value"
    player: str = "generator"
    clock: Clock = field(factory=Clock, init=False, eq=False)
    def state_dict(self): return self.clock.state_dict()
    def load_state_dict(self, state): self.clock.load_state_dict(state)
    def _turn(self, player, x):
        return HOW[self.how](x, self.clock.tick()) if player == self.player else x
    def discriminator(self, real, fake): return self._turn("discriminator", (fake - real).sigmoid().mean())
    def generator(self, real, fake): return self._turn("generator", -fake.sigmoid().mean())

@frozen
class Penalty:
    how: str = "value"
    player: str = "generator"
    every: int = 1
    clock: Clock = field(factory=Clock, init=False, eq=False)
    def state_dict(self): return self.clock.state_dict()
    def load_state_dict(self, state): self.clock.load_state_dict(state)
    def penalty(self, step):
        x = 1e-3 * sum(p.square().sum() for p in getattr(step, self.player).parameters())
        return HOW[self.how](x, self.clock.tick())

class Sieve(nn.Module):  # sound forwards, and in one of its calls not backwards
    batch_independent = True  # so a step calls it twice
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 1)
        self.register_buffer("calls", torch.zeros(()))
    def forward(self, images, condition):
        if self.training: self.calls += 1
        return Spoilt.apply(self.layer(images.flatten(1)).squeeze(1), self.calls == 2 * STEP)

@frozen
class Judge:
    def build(self, images): return Sieve(images.channels * images.height * images.width)

@frozen
class Trap:
    clock: Clock = field(factory=Clock, init=False, eq=False)
    def state_dict(self): return self.clock.state_dict()
    def load_state_dict(self, state): self.clock.load_state_dict(state)
    def augment(self, images): return Spoilt.apply(images, self.clock.tick())

@frozen
class Forgetful:
    def discriminator(self, real, fake): return (fake - real).sigmoid().mean()
    def generator(self, real, fake):
        calls.append(1)
        return -fake.sigmoid().mean() + (float("nan") if len(calls) == STEP + 1 else 0.0)  # one is tried
calls = []

@frozen
class Noise:
    clock: Clock = field(factory=Clock, init=False, eq=False)
    def state_dict(self): return self.clock.state_dict()
    def load_state_dict(self, state): self.clock.load_state_dict(state)
    def augment(self, images): return torch.where(self.clock.tick(), torch.nan, images)

@frozen
class Huge:
    player: str = "generator"
    every: int = 1
    def penalty(self, step): return 1e25 * sum(p.sum() for p in step.generator.parameters())

class Net(nn.Module):
    latent_dim = 8
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 64)
        self.register_buffer("calls", torch.zeros(()))
    def forward(self, z, condition):
        if self.training: self.calls += 1
        images = self.layer(z).tanh().view(-1, 1, 8, 8)
        return torch.where(self.calls >= 2 * STEP, torch.nan, images)

@frozen
class Maker:
    def build(self, images): return Net()

@ganlab.hookimpl
def register_losses(register): register("odd_loss", Loss); register("forgetful", Forgetful)
@ganlab.hookimpl
def register_penalties(register): register("odd_penalty", Penalty); register("huge", Huge)
@ganlab.hookimpl
def register_augmentations(register): register("odd_noise", Noise); register("trap", Trap)
@ganlab.hookimpl
def register_discriminators(register): register("sieve", Judge)
@ganlab.hookimpl
def register_generators(register): register("odd_maker", Maker)
""".replace("STEP", str(STEP))

LOSS, PENALTY = "loss 'odd_loss' of plugin odd", "penalty 'odd_penalty' of plugin odd"
FAULTS = {
    "loss": ({"loss": {"name": "odd_loss"}}, "loss_generator is inf", LOSS),
    "the other's loss": (
        {"loss": {"name": "odd_loss", "player": "discriminator"}},
        "loss_discriminator is inf",
        LOSS,
    ),
    "loss's gradient": (
        {"loss": {"name": "odd_loss", "how": "gradient"}},
        "the gradient of loss_generator is not finite",
        LOSS,
    ),
    "penalty": ({"penalty": [{"name": "odd_penalty"}]}, "penalty_odd_penalty is inf", PENALTY),
    "penalty's gradient": (
        {"penalty": [{"name": "l2_generator"}, {"name": "odd_penalty", "how": "gradient", "player": "discriminator"}]},
        "the gradient of penalty_odd_penalty is not finite",
        PENALTY,
    ),
    "data": (
        {"augmentation": [{"name": "odd_noise"}]},
        "what an augmentation makes of images is not finite",
        "augmentation 'odd_noise' of plugin odd",
    ),
    "network's gradient": (
        {"discriminator": {"name": "sieve"}},
        "the gradient of loss_generator is not finite, from its way back through the discriminator on",
        "discriminator 'sieve' of plugin odd",
    ),
    "data's gradient": (
        {"augmentation": [{"name": "trap"}]},
        "the gradient of loss_generator is not finite, from its way back through the augmentation[0] on",
        "augmentation 'trap' of plugin odd",
    ),
    "network": (
        {"generator": {"name": "odd_maker"}},
        "what the generator returns is not finite",
        "generator 'odd_maker' of plugin odd",
    ),
}


def odd(table: dict[str, Any], tmp_path: Path) -> None:
    """Makes the plugin a file, and an experiment that uses it for fifty steps."""
    (tmp_path / "odd.py").write_text(PLUGIN)
    table["plugins"] = ["odd.py"]
    table["discriminator"].pop("dropout")
    table["train"] |= {"steps": 50, "log_every": 5, "ema": 0.9}
