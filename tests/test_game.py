"""The game's two phases: what is frozen, what carries a gradient, how often a penalty counts, what is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from attrs import frozen
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.plugin.registry import Registry
from ganlab.protocols import Places, Step
from ganlab.training.build import build
from ganlab.training.loop import Training


@pytest.fixture
def plugins() -> Plugins:
    """The bundled plugins, and a registry that a test can still add to."""
    loaded = load_plugins()
    loaded.registry._frozen = False
    return loaded


def register(registry: Registry, kind: str, name: str, cls: type) -> None:
    registry.register(kind, name, cls, Origin("test", "file", "", "", None))


def training_of(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> Training:
    experiment = convert_experiment(table, plugins)
    training = build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))
    Recording.seen.clear()  # what build tried
    return training


@frozen
class Recording:
    """A penalty that keeps what it is shown and adds a known gradient."""

    player: str = "generator"
    every: int = 1
    weight: float = 0.0

    seen: ClassVar[list[Step]] = []

    def penalty(self, step: Step) -> Tensor:
        Recording.seen.append(step)
        return self.weight * sum(p.sum() for p in step.trained.parameters())


@pytest.fixture(autouse=True)
def forget() -> None:
    Recording.seen = []


def test_each_phase_moves_only_its_player(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    training = training_of(table, plugins, tmp_path)
    game = training.game
    trained: dict[str, set[bool]] = {}  # whether the weights of a player required gradients as it was called
    for player in game.players.values():
        player.network.register_forward_pre_hook(
            lambda network, inputs, name=player.name: trained.setdefault(name, set()).update(
                torch.is_grad_enabled() and p.requires_grad for p in network.parameters()
            )
        )
    for phase, mover, still in (
        (training.train_step.phases[0], game.players["discriminator"], game.players["generator"]),
        (training.train_step.phases[1], game.players["generator"], game.players["discriminator"]),
    ):
        before = {p.name: [w.clone() for w in p.network.parameters()] for p in (mover, still)}
        trained.clear()
        phase.update(training.loader.batch(0), 0)
        assert not all(torch.equal(a, b) for a, b in zip(before[mover.name], mover.network.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before[still.name], still.network.parameters(), strict=True))
        assert trained == {mover.name: {True}, still.name: {False}}, "gradients of a frozen player are wasted work"
        assert all(p.requires_grad for p in still.network.parameters()), "the frozen player was not freed again"
    assert all(p.grad is not None for p in game.players["generator"].network.parameters())


def test_what_a_penalty_is_shown(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    register(plugins.registry, "penalty", "recording", Recording)
    table["penalty"] = [{"name": "recording", "player": "generator"}, {"name": "recording", "player": "discriminator"}]
    training = training_of(table, plugins, tmp_path)
    for phase in training.train_step.phases:
        phase.update(training.loader.batch(0), 0)
    discriminator, generator = Recording.seen
    assert (discriminator.player, generator.player) == ("discriminator", "generator")
    assert discriminator.fake.shape == (16, 1, 8, 8)
    assert not discriminator.fake.requires_grad
    assert generator.fake.requires_grad
    assert discriminator.real is not None
    assert generator.real is not None
    assert generator.real_logits is None, "bce does not use real logits, so the generator's move must not compute them"
    assert generator.images_seen.shape == ()


def test_a_lazy_penalty_counts_every_k_updates_times_k(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    """Against the gradient by hand: plain SGD moves each weight by -lr * k * weight on every k-th update only."""
    register(plugins.registry, "penalty", "recording", Recording)

    @frozen
    class Nothing:
        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            return 0.0 * (real.mean() + fake.mean())

        def generator(self, real: Tensor, fake: Tensor) -> Tensor:
            return 0.0 * fake.mean()

    register(plugins.registry, "loss", "nothing", Nothing)
    table |= {"loss": {"name": "nothing"}, "optimizer": {"name": "sgd", "lr": 0.5}}
    table["penalty"] = [{"name": "recording", "every": 3, "weight": 0.1}]
    training = training_of(table, plugins, tmp_path)
    weight = next(training.game.players["generator"].network.parameters())
    for step in range(7):
        before = weight.clone()
        training.train_step.phases[1].update(training.loader.batch(0), step)
        moved = -0.5 * 3 * 0.1 if step % 3 == 0 else 0.0
        torch.testing.assert_close(weight - before, torch.full_like(weight, moved))


def test_real_logits_reach_the_generators_loss_only_where_it_uses_them(
    table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    table["loss"] = {"name": "relativistic"}
    register(plugins.registry, "penalty", "recording", Recording)
    table["penalty"] = [{"name": "recording"}]
    training = training_of(table, plugins, tmp_path)
    training.train_step.phases[1].update(training.loader.batch(0), 0)
    (step,) = Recording.seen
    assert step.real_logits.shape == (16,)
    assert not torch.equal(step.real_logits, torch.zeros(16))


def test_augmentation_is_applied_to_real_and_fake_and_carries_the_gradient(
    table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    seen = []

    @frozen
    class Darker:
        def augment(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images * 0.0 - 1.0

    register(plugins.registry, "augmentation", "darker", Darker)
    table["augmentation"] = [{"name": "darker"}]
    training = training_of(table, plugins, tmp_path)
    seen.clear()  # what build tried
    training.train_step.phases[0].update(training.loader.batch(0), 0)
    assert [len(images) for images in seen] == [32], "real and fake, together"
    training.train_step.phases[1].update(training.loader.batch(0), 0)
    gradients = [p.grad for p in training.game.players["generator"].network.parameters()]
    assert all(g is not None and not g.any() for g in gradients), "black images tell the generator nothing"


class Syncs(TorchDispatchMode):
    """Counts the operations that make the host wait for the device: .item(), bool(tensor) and their like."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_local_scalar_dense" in str(function):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "balance",
    [{}, {"accumulate": 2, "clip_norm": 1.0, "stop_discriminator_under": 1.0, "stop_generator_under": 1.0}],
)
def test_a_step_never_waits_for_the_device(
    balance: dict[str, Any], table: dict[str, Any], plugins: Plugins, tmp_path: Path
) -> None:
    table["train"] |= balance
    table["penalty"] = [{"name": "l2_generator", "weight": 0.1}]
    table["loss_wrapper"] = [{"name": "label_smoothing"}]
    table["train"]["ema"] = 0.9
    training = training_of(table, plugins, tmp_path)
    assert training.ema is not None
    with Syncs() as syncs:
        torch.ones(()).item()
    assert syncs.found, "the check can see a sync"
    with Syncs() as syncs:
        for step in range(2):
            for phase in training.train_step.phases:
                phase.update(training.loader.batch(step), step)
            training.ema.update()
    assert not syncs.found


def test_meters_give_means_and_bfloat16_runs(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    table["train"]["precision"] = "bfloat16"
    training = training_of(table, plugins, tmp_path)
    for step in range(3):
        for phase in training.train_step.phases:
            phase.update(training.loader.batch(step), step)
    means = training.game.meters.means()
    assert set(means) == {"d_real", "d_fake", "loss_discriminator", "loss_generator"}
    assert 0 < means["d_real"] < 1
    assert means["loss_generator"] == pytest.approx(0.69, abs=0.2)
    weight = next(training.game.players["generator"].network.parameters())
    assert weight.dtype == torch.float32


def test_joined_and_separate_passes_agree(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    table["discriminator"] = {"name": "mlp", "hidden": [16]}
    weights = []
    for joined in (True, False):
        training = training_of(table, plugins, tmp_path)
        discriminator: Any = training.game.networks["discriminator"]
        assert discriminator.batch_independent
        discriminator.batch_independent = joined
        training.train_step.phases[0].update(training.loader.batch(0), 0)
        weights.append(
            torch.cat([p.detach().flatten() for p in training.game.players["discriminator"].network.parameters()])
        )
    assert torch.allclose(*weights, rtol=1e-4, atol=1e-6)


def test_the_name_of_a_term_says_whose_it_is(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    register(plugins.registry, "penalty", "recording", Recording)
    names = []
    for players in (
        ["generator"],
        ["generator", "discriminator"],
        ["generator", "generator"],
        ["generator"] * 2 + ["discriminator"],
    ):
        table["penalty"] = [{"name": "recording", "player": player} for player in players]
        game = training_of(table, plugins, tmp_path).game
        names.append({name: [part for part, _ in player.penalties] for name, player in game.players.items()})
    assert names == [
        {"generator": ["penalty_recording"], "discriminator": []},
        {"generator": ["penalty_recording_generator"], "discriminator": ["penalty_recording_discriminator"]},
        {"generator": ["penalty_recording", "penalty_recording_2"], "discriminator": []},
        {
            "generator": ["penalty_recording_generator", "penalty_recording_generator_2"],
            "discriminator": ["penalty_recording_discriminator"],
        },
    ]
