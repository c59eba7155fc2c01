"""Probes of components: what cannot work with an experiment's networks and data is refused before a run begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from attrs import field, frozen
from torch import Tensor

from ganlab import ComponentError, Places, Step
from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import load_plugins
from ganlab.testing.state_comparison import first_difference
from ganlab.training.build import build
from ganlab.training.state import training_state

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_a_class_loss_without_class_logits(player: str, table: dict[str, Any], write: Write, ganlab: Command) -> None:
    table["penalty"] = ["l2_generator", {"name": "class_loss", "player": player}]
    code, out, err = ganlab("run", write(table), "--dry-run")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"{Path('tiny.toml').resolve()}: penalty[1]: class_loss needs a discriminator with head = "
        '"class_logits", and class labels'
    ]
    assert not Path("runs").exists()
    table["discriminator"]["head"] = "class_logits"
    assert ganlab("run", write(table), "--dry-run")[0] == 0


@frozen
class Touching:
    """Keeps count, and moves what it can reach: the networks' weights and random numbers; refuses what is asked."""

    player: str = "discriminator"
    every: int = 3
    refuses: bool = False
    calls: Tensor = field(factory=lambda: torch.zeros(()), init=False, eq=False)

    seen: ClassVar[list[Step]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def penalty(self, step: Step) -> Tensor:
        Touching.seen.append(step)
        if self.refuses:
            raise ComponentError(f"not in the {step.player}'s")
        self.calls.add_(1)
        with torch.no_grad():
            for network in (step.generator, step.discriminator):
                for tensor in network.state_dict().values():
                    tensor.add_(torch.rand(()).mul(9).to(tensor.dtype))
        return step.fake.mean()


def test_all_are_tried_and_nothing_is_touched(table: dict[str, Any], tmp_path: Path) -> None:
    """Against a build of the same experiment without the penalties: weights, statistics, random states."""
    plugins = load_plugins()
    plugins.registry._frozen = False
    plugins.registry.register("penalty", "touching", Touching, Origin("test", "file", "", "", None))
    table |= {
        "dataset": {"name": "digits", "size": 16},
        "generator": {"name": "dcgan", "latent_dim": 8, "channels": 4},
        "loss": "relativistic",
        "augmentation": [{"name": "ada", "p": 0.5}],
    }

    def state(penalty: list[Any]) -> dict[str, Any]:
        experiment = convert_experiment(table | {"penalty": penalty}, plugins)
        training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))
        return training_state(training, 0)

    Touching.seen.clear()
    tried = state([{"name": "touching"}, {"name": "touching", "player": "generator"}])
    assert [step.player for step in Touching.seen] == ["discriminator", "generator"]
    for step in Touching.seen:
        assert step.real is not None
        assert step.real.shape == step.fake.shape == (4, 1, 16, 16)
        assert -1 <= step.real.min() < step.real.max() <= 1
    first, second = Touching.seen
    assert not first.fake.requires_grad
    assert second.fake.requires_grad
    assert [tried["components"].pop(f"penalty.{n}")["calls"] for n in (0, 1)] == [0, 0]
    assert first_difference(tried, state([])) is None

    with pytest.raises(Exception, match="not in the") as refused:
        state(
            [{"name": "touching", "refuses": True}, "r1", {"name": "touching", "player": "generator", "refuses": True}]
        )
    assert refused.value.problems == ("penalty[0]: not in the discriminator's", "penalty[2]: not in the generator's")  # type: ignore[attr-defined]
