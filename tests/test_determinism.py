"""train.deterministic: torch's settings while a run lasts and after it, and operations that cannot repeat, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ganlab.run.records import read_records
from ganlab.utils.determinism import deterministic
from ganlab.utils.errors import NotDeterministic
from run_folders import assert_same_bits, records

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

ASKING = """
import os, torch
from attrs import frozen
from ganlab import Interval, Scores, hookimpl

SEEN = set()

def settings():
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic, cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )

@frozen
class Asking:
    player: str = "discriminator"
    every: int = 1

    def penalty(self, step):
        SEEN.add(settings())
        return step.fake_logits.mean() * 0

@frozen
class Putting(Asking):
    def penalty(self, step):
        return torch.put(step.fake_logits, torch.tensor([0]), torch.tensor([0.5])).mean()

@frozen
class Enabled:
    every: Interval = Interval(0)

    def evaluate(self, evaluation):
        return Scores({"enabled": float(torch.are_deterministic_algorithms_enabled())}, {"metric": "enabled"}, {})

@hookimpl
def register_metrics(register):
    register("enabled", Enabled)

@hookimpl
def register_penalties(register):
    register("asking", Asking)
    register("putting", Putting)

@hookimpl
def run_finished(run, error):
    (run.path / "seen.txt").write_text(repr(sorted(SEEN, key=str)))
    SEEN.clear()
"""


def settings() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.fixture
def asking(tmp_path: Path, table: dict[str, Any]) -> dict[str, Any]:
    (tmp_path / "asking.py").write_text(ASKING)
    return table | {"plugins": ["asking.py"], "penalty": [{"name": "asking"}]}


def test_the_settings_are_those_of_the_run_and_put_back_after_it(
    asking: dict[str, Any], write: Write, ganlab: Command
) -> None:
    before = settings()
    path = write(asking)
    assert ganlab("run", path, "--out", "off")[0] == 0
    assert Path("off/seen.txt").read_text() == repr([before])
    assert ganlab("run", path, "--out", "on", "--set", "train.deterministic=true")[0] == 0
    assert Path("on/seen.txt").read_text() == repr([(True, False, True, False, False, ":4096:8")])
    assert settings() == before
    # On the CPU they change nothing, and a run says in its resolved file which it had.
    assert_same_bits(Path("off"), Path("on"))
    assert records(Path("off")) == records(Path("on"))
    assert "deterministic = true" in Path("on/experiment.toml").read_text()


@pytest.mark.parametrize("wanted", [False, True])
def test_scores_are_taken_as_the_run_is(wanted: bool, asking: dict[str, Any], write: Write, ganlab: Command) -> None:
    """Those of the run, and those that `ganlab eval` takes of it later."""
    asking["metric"] = [{"name": "enabled"}]
    asking["train"]["deterministic"] = wanted
    assert ganlab("run", write(asking), "--out", "r")[0] == 0
    assert ganlab("eval", "r")[0] == 0
    scores = [(record["value"], record.get("eval", False)) for record in read_records(Path("r/metrics.jsonl"))]
    assert scores == [(float(wanted), False), (float(wanted), False), (float(wanted), True)]


@pytest.mark.parametrize(("given", "kept"), [(":16:8", ":16:8"), (":4096:2", ":4096:8"), (None, ":4096:8")])
def test_workspaces_that_repeat_are_left_as_they_are_given(
    given: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if given is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    with deterministic(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == kept
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == given


def test_an_operation_that_cannot_repeat_ends_the_run_in_one_line(
    asking: dict[str, Any], write: Write, ganlab: Command
) -> None:
    before = settings()
    asking["penalty"] = [{"name": "putting"}]
    path = write(asking)
    code, _, err = ganlab("run", path, "--out", "r", "--set", "train.deterministic=true")
    line = 1 + ASKING.splitlines().index(next(text for text in ASKING.splitlines() if "torch.put(" in text))
    assert code == 1
    assert err == (
        "train.deterministic: torch has no deterministic implementation of put_, which "
        f"{path.parent / 'asking.py'}:{line} calls; use another operation, or set train.deterministic to "
        "false\n"
    )
    assert not Path("r").exists(), "it is found before the first step"
    assert settings() == before
    # The same experiment trains where it is not asked for.
    assert ganlab("run", path, "--out", "off")[0] == 0


def test_a_refusal_is_named_and_other_errors_are_left_alone() -> None:
    with pytest.raises(NotDeterministic, match=r"of put_, which .*test_determinism\.py:"), deterministic(True):
        torch.zeros(2).put_(torch.tensor([0]), torch.tensor([1.0]))
    with pytest.raises(RuntimeError, match=r"^another$"), deterministic(True):
        raise RuntimeError("another")


@pytest.mark.cuda
@pytest.mark.parametrize("capture", [True, False])
def test_two_runs_on_cuda_are_equal_to_the_bit(
    capture: bool, table: dict[str, Any], write: Write, ganlab: Command
) -> None:
    table["dataset"]["size"] = 16
    table["generator"] = {"name": "dcgan", "latent_dim": 8, "channels": 16}
    table["discriminator"] = {"name": "dcgan", "channels": 16}
    table["train"] |= {"steps": 60, "deterministic": True, "capture": capture, "ema": 0.9}
    table["metric"] = [{"name": "fid", "every": 30, "samples": 64, "features": {"name": "classifier", "updates": 20}}]
    path = write(table)
    for name in ("first", "second"):
        assert ganlab("run", path, "--out", name, "--device", "cuda")[0] == 0
    assert_same_bits(Path("first"), Path("second"))
    assert records(Path("first")) == records(Path("second"))
