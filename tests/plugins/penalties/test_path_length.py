"""Path length, against torch's Jacobian in float64, the closed form of a linear generator, and a plain running mean."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor, nn

from ganlab import ComponentError, Step
from ganlab_plugins.penalties.path_length import PathLength
from penalty_steps import Flat, step_of

COUNT, LATENT, SHAPE = 6, 3, (2, 4, 4)


class Generating(nn.Module):
    """Images of vectors, by a network of vectors; a condition is added to every pixel."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.latent_dim = LATENT
        self.layers = nn.Sequential(*layers).double()

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        images: Tensor = self.layers(z).unflatten(1, SHAPE)
        return images if condition is None else images + condition[:, None, None, None]


def step(generator: nn.Module) -> Step:
    fake = torch.zeros(COUNT, *SHAPE, dtype=torch.float64)
    return attrs.evolve(step_of(Flat(nn.Linear(32, 1).double()), fake, fake, generator), player="generator")


def deep() -> Generating:
    torch.manual_seed(1)
    return Generating(nn.Linear(LATENT, 5), nn.Tanh(), nn.Linear(5, 32), nn.Tanh())


def drawn(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """The latents and the noise that the penalty draws after this seed."""
    torch.manual_seed(seed)
    z = torch.randn(count, LATENT, dtype=torch.float64)
    return z, torch.randn(count, *SHAPE, dtype=torch.float64) / 4


def lengths_of(generator: nn.Module, seed: int, count: int) -> Tensor:
    """By torch's Jacobian of each image."""
    found = []
    for z, y in zip(*drawn(seed, count), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda z: generator(z[None], None)[0].flatten(), z)
        found.append((jacobian.T @ y.flatten()).norm())
    return torch.stack(found)


@pytest.mark.parametrize(("shrink", "count"), [(1, 6), (2, 3), (100, 2)])
def test_the_lengths_and_the_running_mean(shrink: int, count: int) -> None:
    """Also that a term is made with the mean of the updates before it."""
    generator = deep()
    made = step(generator)
    penalty = PathLength(weight=3.0, decay=0.9, batch_shrink=shrink)
    a = 0.0
    for seed in range(5):
        lengths = lengths_of(generator, seed, count)
        torch.manual_seed(seed)
        term = penalty.penalty(made)
        assert term.item() == pytest.approx(3 * (lengths - a).square().mean().item(), rel=1e-6)
        a = 0.9 * a + 0.1 * lengths.mean().item()
        assert penalty.state_dict()["a"].item() == pytest.approx(a, rel=1e-6)


def test_of_a_linear_generator() -> None:
    """x = W z has |J^T y| = |W^T y|, wherever z is: for orthogonal columns of length l, a multiple of a chi of LATENT
    degrees, of which the mean square is known."""
    columns, _ = torch.linalg.qr(torch.randn(32, LATENT, dtype=torch.float64))
    layer = nn.Linear(LATENT, 32)
    generator = Generating(layer)
    with torch.no_grad():
        layer.weight.copy_(2.5 * columns)
    made = step(generator)
    _, y = drawn(3, COUNT)
    torch.manual_seed(3)
    term = PathLength(weight=1.0, batch_shrink=1).penalty(made)
    assert term.item() == pytest.approx((y.flatten(1) @ layer.weight).square().sum(1).mean().item())
    many = attrs.evolve(made, fake=torch.zeros(20_000, *SHAPE, dtype=torch.float64))
    term = PathLength(weight=1.0, batch_shrink=1).penalty(many)
    assert term.item() == pytest.approx(2.5**2 * LATENT / 16, rel=0.03)


def test_conditions_are_those_of_the_first_images_and_change_no_slope() -> None:
    labels = torch.arange(COUNT, dtype=torch.float64)
    plain = step(deep())
    conditional = attrs.evolve(plain, condition=labels)
    z, _ = drawn(0, 3)
    added = conditional.generate(z) - plain.generate(z)
    assert torch.allclose(added, labels[:3, None, None, None].expand(3, *SHAPE))
    values = []
    for made in (conditional, plain):
        torch.manual_seed(0)
        values.append(PathLength().penalty(made).item())
    assert values[0] == pytest.approx(values[1])


def test_under_bfloat16_it_is_that_of_float32() -> None:
    generator = deep().float()
    made = step(generator)
    made = attrs.evolve(made, fake=made.fake.float())
    torch.manual_seed(0)
    expected = PathLength().penalty(made).item()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert generator(torch.zeros(1, LATENT), None).dtype == torch.bfloat16
        assert PathLength().penalty(made).item() == expected
    assert math.isfinite(expected)


def test_a_generator_without_latents_is_refused() -> None:
    generator = deep()
    generator.latent_dim = 0
    with pytest.raises(ComponentError, match=r"^path_length: generator has no latents \(latent_dim = 0\)$"):
        PathLength().penalty(step(generator))


@pytest.mark.extended
@pytest.mark.torchrun
def test_two_processes_keep_one_mean(tmp_path: Path) -> None:
    """That of the lengths of both, which draw other latents."""
    script = tmp_path / "both.py"
    script.write_text("""
import torch
from ganlab.utils import distributed
from ganlab_plugins.penalties.path_length import PathLength
from test_path_length import deep, lengths_of, step

with distributed.process_group(torch.device("cpu")):
    generator, penalty, a = deep(), PathLength(decay=0.9), 0.0
    made = step(generator)
    for update in range(3):
        lengths = lengths_of(generator, 10 * update + distributed.rank(), 3)
        a = 0.9 * a + 0.1 * distributed.all_gather_rows(lengths).mean()
        assert distributed.all_gather_rows(lengths).unique().numel() == 6
        torch.manual_seed(10 * update + distributed.rank())
        penalty.penalty(made)
    one, other = distributed.all_gather_rows(penalty.state_dict()["a"][None])
    assert one == other
    assert abs(one - a) < 1e-6 * a
""")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    path = f"{Path(__file__).parent}:{':'.join(sys.path)}"
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": ""}
    ended = subprocess.run(launcher, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
