"""What a step of ganlab costs besides its arithmetic: CycleGAN with four networks of one layer, and a loop by hand.

    pytest -s tests/benchmarks/test_bookkeeping.py

Both take turns of a fraction of a second, with one thread; the ratio is the median over rounds. The loop by hand is
what a person writes: an optimiser for both networks of a move, all others frozen, nothing recorded. Before, both are
held against each other, weight by weight.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganlab.bench.benchmark import StepFunction, ganlab_step, median_ratio, time_in_turns
from ganlab.config.load import convert_experiment
from ganlab.plugin.loader import load_plugins
from ganlab.training.build import build
from ganlab.training.loop import Training
from ganlab.utils.paths import Places
from ganlab.utils.rng import derived_seed, seed_everything

CPU = torch.device("cpu")
METHOD = Path(__file__).parents[1] / "methods" / "cyclegan.py"
BOUND = 1.5
SIZE, POOL, STEPS = 16, 50, 8
TABLE: dict[str, Any] = {
    "name": "cyclegan",
    "game": {"name": "small_cyclegan", "pool": POOL},
    "source": {"name": "digits"},
    "dataset": {"name": "digits"},
    "train": {"steps": 1_000_000, "batch_size": SIZE},
}


@pytest.fixture(autouse=True)
def real_places() -> None:
    """No real images are needed."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def both_loops(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Training, dict[str, StepFunction], list[nn.Module]]:
    """ganlab's training, both loops, and the networks that the one by hand trains, from the same weights."""
    plugins = load_plugins([METHOD])
    module = sys.modules[plugins.registry.find("game", "small_cyclegan").cls.__module__]
    monkeypatch.setattr(module, "Translator", lambda images, width: nn.Conv2d(1, 1, 3, padding=1))
    monkeypatch.setattr(module, "Patches", lambda images, width: nn.Conv2d(1, 1, 4, 2, 1))
    experiment = convert_experiment(TABLE, plugins)
    training = build(experiment, plugins.registry, Places(folder, folder), CPU)
    networks = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(2)] + [nn.Conv2d(1, 1, 4, 2, 1) for _ in range(2)]
    for network, theirs in zip(networks, training.game.networks.values(), strict=True):
        network.load_state_dict(theirs.state_dict())
    loops = {"ganlab": ganlab_step(experiment, training), "by hand": step_by_hand(training, networks)}
    return training, loops, networks


def step_by_hand(training: Training, networks: list[nn.Module]) -> StepFunction:
    """CycleGAN's step in plain torch; it draws the same random numbers as ganlab's."""
    ab, ba, d_a, d_b = networks
    makers = torch.optim.Adam([*ab.parameters(), *ba.parameters()], 2e-4, (0.5, 0.999), fused=True)
    judges = torch.optim.Adam([*d_a.parameters(), *d_b.parameters()], 2e-4, (0.5, 0.999), fused=True)
    images = {"a": training.streams["source"].images, "b": training.dataset.images}
    seeds = {"a": derived_seed(0, "stream", "source"), "b": 0}
    orders: dict[str, Tensor] = {}
    pools = {name: torch.zeros(POOL, *data.shape[1:]) for name, data in images.items()}
    filled = dict.fromkeys(images, 0)
    numbers = itertools.count()

    def batch(name: str, number: int) -> Tensor:
        epoch, position = divmod(number, len(images[name]) // SIZE)
        if position == 0:
            random = torch.Generator().manual_seed(derived_seed(seeds[name], "order", epoch))
            orders[name] = torch.randperm(len(images[name]), generator=random)
        rows = orders[name][position * SIZE : (position + 1) * SIZE]
        return images[name][rows].float().div_(127.5).sub_(1.0)

    def exchange(name: str, fake: Tensor) -> Tensor:
        full = filled[name] >= POOL
        drawn = torch.rand(POOL).argsort()[:SIZE]
        places = drawn if full else (filled[name] + torch.arange(SIZE)) % POOL
        exchanged = torch.rand(SIZE) < 0.5
        old = pools[name][places]
        if not full:
            pools[name][places] = fake
            filled[name] = min(POOL, filled[name] + SIZE)
            return fake
        pools[name][places] = torch.where(exchanged[:, None, None, None], fake, old)
        return torch.where(exchanged[:, None, None, None], old, fake)

    def freeze(judges: bool) -> None:
        for network in (d_a, d_b):
            network.requires_grad_(not judges)

    def step() -> None:
        number = next(numbers)
        real_a, real_b = batch("a", number), batch("b", number)
        freeze(True)
        fake_b, fake_a = ab(real_a), ba(real_b)
        judged_b, judged_a = d_b(fake_b), d_a(fake_a)
        loss = (judged_b - 1).square().mean() / 2 + (judged_a - 1).square().mean() / 2
        loss = loss + 10 * (ba(fake_b) - real_a).abs().mean() + 10 * (ab(fake_a) - real_b).abs().mean()
        loss = loss + 5 * (ab(real_b) - real_b).abs().mean() + 5 * (ba(real_a) - real_a).abs().mean()
        makers.zero_grad()
        loss.backward()
        makers.step()
        freeze(False)
        fake_a, fake_b = exchange("a", fake_a.detach()), exchange("b", fake_b.detach())
        total: Any = 0.0
        for judge, real, fake in ((d_a, real_a, fake_a), (d_b, real_b, fake_b)):
            total = total + 0.5 * ((judge(real) - 1).square().mean() / 2 + judge(fake).square().mean() / 2)
        judges.zero_grad()
        total.backward()
        judges.step()

    return step


def test_both_take_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, loops, networks = both_loops(tmp_path, monkeypatch)
    for step in loops.values():
        seed_everything(7)
        for _ in range(STEPS):
            step()
    for (name, network), mine in zip(training.game.networks.items(), networks, strict=True):
        for key, value in network.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=1e-4, atol=1e-6, msg=f"{name} {key}")


def test_the_bookkeeping_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, loops, _ = both_loops(tmp_path, monkeypatch)
    rates = time_in_turns(loops, 10.0, CPU, lambda done, total: None)
    ratio = 1 / median_ratio(rates["ganlab"], rates["by hand"])
    times = {name: 1000 / sorted(found)[len(found) // 2] for name, found in rates.items()}
    said = f"{times['ganlab']:.3f} ms a step, {times['by hand']:.3f} ms by hand, {ratio:.3f} times as long"
    sys.stdout.write(f"\n{said}\n")  # pytest -s shows it
    assert ratio <= BOUND, said
