"""NaN and infinity, held against what was really wrong: the step, the term and its plugin, and nothing of it saved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganlab.run.records import read_records
from ganlab.training.checkpoint import list_checkpoints, load_checkpoint
from ganlab.utils.state_tree import find_non_finite
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

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
    (tmp_path / "odd.py").write_text(PLUGIN)
    table["plugins"] = ["odd.py"]
    table["discriminator"].pop("dropout")
    table["train"] |= {"steps": 50, "log_every": 5, "ema": 0.9}


@pytest.mark.parametrize("saved", spread(8, [0, 4]))
@pytest.mark.parametrize("fault", FAULTS)
def test_what_went_wrong_first_is_named(
    fault: str, saved: int, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """Within one tick; from a checkpoint on and from the very beginning."""
    odd(table, tmp_path)
    changes, what, owner = FAULTS[fault]
    table |= changes
    table["train"]["checkpoint_every"] = saved
    code, _, err = ganlab("run", write(table), "--out", "r")
    # The augmentation is called twice a step: for real and fake images together, and for the generator's turn.
    step = STEP // 2 if fault.startswith("data") else STEP
    kept = f"the checkpoint of step {saved} is kept" if saved and saved < step else "there is no checkpoint yet"
    assert code == 3, err
    assert err == f"diverged in step {step}: {what} ({owner} ({tmp_path}/odd.py)); {kept}\n"
    info = json.loads(Path("r/run.json").read_text())
    assert info["status"] == "diverged"
    assert what in info["error"]
    assert all(record["step"] <= STEP + 5 for record in read_records(Path("r/log.jsonl"))), "within one tick"
    for path in list_checkpoints(Path("r/checkpoints")).values():
        assert not find_non_finite(load_checkpoint(path))


def test_a_moment_that_overflows_is_found_though_every_weight_and_loss_is_finite(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """Adam's second moment of a gradient of 1e25 is infinite: from then on no update would move the weights."""
    odd(table, tmp_path)
    table["penalty"] = [{"name": "l2_generator"}, {"name": "huge"}]
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 3
    assert re.match(
        r"diverged in step 1: an update of the generator left [\w.]+\.exp_avg_sq not finite, after a gradient of "
        r"penalty_huge of up to 1e\+25 \(penalty 'huge' of plugin odd \(.*\)\) \(optimizer 'adam' of plugin",
        err,
    ), err
    assert not any(Path("r/checkpoints").glob("step-*"))


@pytest.mark.usefixtures("real_plots")  # what is not finite must be drawn too
def test_steps_that_are_too_long_are_seen_in_what_overflows_first(
    table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    table["optimizer"] = {"name": "sgd", "lr": 1e6, "momentum": 0.9}
    table["loss"] = {"name": "least_squares"}
    table["train"] |= {"steps": 50, "log_every": 5}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 3
    assert re.match(r"diverged in step \d: what the discriminator returns is not finite \(discriminator 'mlp'", err)


def test_a_state_that_no_checkpoint_holds_is_told_of(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """The steps cannot diverge again, since the plugin counts its calls on; and a resume would not be exact either."""
    odd(table, tmp_path)
    table["loss"] = {"name": "forgetful"}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 3
    assert "loss_generator is nan in the mean of the last steps up to 10; taken again from step 0, the steps did" in err
    assert "a component may keep a state without a state_dict" in err


@pytest.mark.usefixtures("real_plots")  # what is not finite must be drawn too
def test_nothing_that_is_not_finite_is_saved_between_two_ticks(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    odd(table, tmp_path)
    table |= {"loss": {"name": "odd_loss", "how": "gradient"}}
    table["train"] |= {"log_every": 1000, "checkpoint_every": 1}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 3, err
    assert max(list_checkpoints(Path("r/checkpoints"))) == STEP - 1


def test_what_a_stopped_update_would_have_done_is_no_divergence(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """The discriminator's updates are all stopped, so that its gradient of NaN harms nothing and is not blamed."""
    odd(table, tmp_path)
    table |= {"loss": {"name": "odd_loss", "how": "gradient", "player": "discriminator"}}
    table["train"] |= {"steps": 2 * STEP, "stop_discriminator_under": 1e3}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    table["penalty"] = [{"name": "odd_penalty"}]
    code, _, err = ganlab("run", write(table), "--out", "q")
    assert code == 3
    assert err.startswith(f"diverged in step {STEP}: penalty_odd_penalty is inf ({PENALTY} "), err


def test_a_gradient_that_spoilt_an_update_that_was_not_stopped_is_named(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    odd(table, tmp_path)
    table |= {"loss": {"name": "odd_loss", "how": "gradient", "player": "discriminator"}}
    table["train"] |= {"stop_discriminator_under": -1e3}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 3
    assert err.startswith(f"diverged in step {STEP}: the gradient of loss_discriminator is not finite ({LOSS} "), err


MASKED = """
import torch
from attrs import frozen
from torch import nn
from ganlab import hookimpl

class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 1)
        self.register_buffer("mask", torch.full((2,), -torch.inf))
    def forward(self, images, condition): return self.layer(images.flatten(1)).squeeze(1)

@frozen
class Masked:
    def build(self, images): return Judge()

@hookimpl
def register_discriminators(register): register("masked", Masked)
"""


@pytest.mark.usefixtures("real_plots")  # what is not finite must be drawn too
def test_a_mask_of_minus_infinity_is_no_divergence(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "masked.py").write_text(MASKED)
    table |= {"plugins": ["masked.py"], "discriminator": {"name": "masked"}}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
