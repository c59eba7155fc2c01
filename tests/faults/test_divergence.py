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
from odd_plugin import FAULTS, LOSS, PENALTY, STEP, odd
from tiers import spread

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


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


def test_what_a_run_begins_with_is_searched_too(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    """The network counts its calls in its weights: begun anew it would not go wrong before step 6."""
    odd(table, tmp_path)
    table["generator"] = {"name": "odd_maker"}
    assert ganlab("run", write(table), "--out", "a", "--set", "train.steps=4")[0] == 0
    table |= {"init_from": {"run": "a", "networks": ["generator"]}}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 3
    assert "diverged in step 2: what the generator returns is not finite (generator 'odd_maker'" in err


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
