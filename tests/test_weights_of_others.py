"""`[init_from]` with state_dicts of other projects, by the maps of names that docs/weights.md has.

torchvision's layers are made by torchvision; those of StudioGAN and StyleGAN2-ADA have these projects' names here, and
SNGAN's generator is computed from them by its definition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, interpolate
from torchvision.models import vgg

from ganlab.config.load import load_experiment
from ganlab.run.init_from import InitialWeights
from ganlab.training.build import build
from ganlab.utils.paths import places
from stubs import CPU

Write = Callable[..., Path]

PAGE = (Path(__file__).parents[1] / "docs" / "weights.md").read_text()


def begun(path: Path) -> tuple[dict[str, nn.Module], InitialWeights]:
    """The networks of an experiment before its first step, and what they begin with."""
    experiment, plugins = load_experiment(path, ())
    assert experiment.init_from is not None
    first = InitialWeights(experiment.init_from)
    game = build(experiment, plugins.registry, places(), CPU, start=first).game
    return {name: network.eval() for name, network in game.networks.items()}, first


def map_of_the_page(name: str) -> None:
    """Writes a map of names as the page has it."""
    (found,) = re.findall(rf"```toml\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    Path(name).write_text(found)


def drawn(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Random tensors by their names, with two underscores for each dot."""
    return {name.replace("__", "."): torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def test_torchvisions_vgg_needs_no_map(table: dict[str, Any], write: Write) -> None:
    theirs = nn.ModuleDict({"features": vgg.make_layers(vgg.cfgs["E"][:2])})
    theirs["classifier"] = nn.Linear(4, 2)  # the true one has 120 million weights
    torch.save(theirs.state_dict(), "vgg19.pth")
    table |= {
        "discriminator": {"name": "vgg", "layers": 2},
        "init_from": {"file": "vgg19.pth", "networks": ["discriminator"]},
    }
    networks, first = begun(write(table))
    images = torch.rand(3, 1, 8, 8)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = theirs["features"]((images - mean[:, None, None]) / deviation[:, None, None])
    _, features = networks["discriminator"](images * 2 - 1, with_features=True)
    torch.testing.assert_close(features, wanted)
    assert first.record["discriminator"]["layers"] == 2
    assert list(first.record["discriminator"]["new"]) == ["logit"]
    assert first.record["discriminator"]["unused"] == ["classifier.weight", "classifier.bias"]


def sngan(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """SNGAN's generator (Miyato et al. 2018, table 4) in evaluation, of a state_dict with StudioGAN's names."""

    def normed(x: Tensor, name: str) -> Tensor:
        of = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *of).relu()

    def convolved(x: Tensor, name: str, padding: int = 1) -> Tensor:
        return conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    x = (z @ state["linear0.weight"].T + state["linear0.bias"]).view(len(z), -1, 4, 4)
    for block in (f"blocks.{number}.0" for number in range(3)):
        inner = convolved(interpolate(normed(x, f"{block}.bn1"), scale_factor=2), f"{block}.conv2d1")
        beside = convolved(interpolate(x, scale_factor=2), f"{block}.conv2d0", 0)
        x = convolved(normed(inner, f"{block}.bn2"), f"{block}.conv2d2") + beside
    return convolved(normed(x, "bn4"), "conv2d5").tanh()


@pytest.mark.extended
@pytest.mark.slow
def test_a_generator_of_studiogan_makes_the_same_images(table: dict[str, Any], write: Write) -> None:
    width = 6
    state = drawn(linear0__weight=(16 * width, 5), linear0__bias=(16 * width,))
    state |= drawn(conv2d5__weight=(1, width, 3, 3), conv2d5__bias=(1,))
    norms = ["bn4", *(f"blocks.{number}.0.{norm}" for number in range(3) for norm in ("bn1", "bn2"))]
    for name in norms:
        state |= {f"{name}.{part}": torch.rand(width) + 0.5 for part in ("weight", "bias", "running_mean")}
        state |= {f"{name}.running_var": torch.rand(width) + 0.5, f"{name}.num_batches_tracked": torch.tensor(7)}
    for block in (f"blocks.{number}.0" for number in range(3)):
        for name, side in {"conv2d0": 1, "conv2d1": 3, "conv2d2": 3}.items():
            convolution = drawn(weight=(width, width, side, side), bias=(width,))
            state |= {f"{block}.{name}.{part}": value for part, value in convolution.items()}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 2e-4}]}
    torch.save({"step": 3, "epoch": 1, "state_dict": state, "optimizer": optimizer}, "G.pth")
    map_of_the_page("studiogan.toml")
    table |= {
        "dataset": {"name": "digits", "size": 32},
        "generator": {"name": "resnet", "latent_dim": 5, "channels": width},
        "init_from": {"file": "G.pth", "names_file": "studiogan.toml", "networks": ["generator"], "strict": True},
    }
    networks, _ = begun(write(table))
    z = torch.randn(3, 5)
    wanted = sngan(state, z)
    assert wanted.std() > 0.1
    torch.testing.assert_close(networks["generator"](z), wanted, rtol=1e-4, atol=1e-4)


STYLE = """
import ganlab, torch
from attrs import frozen
from torch import nn

def tensors(**shapes):
    module = nn.Module()
    for name, shape in shapes.items():
        setattr(module, name, nn.Parameter(torch.zeros(shape)))
    return module

def layer(inputs, outputs, kernel):
    module = tensors(weight=(outputs, inputs, kernel, kernel), bias=(outputs,))
    module.affine = tensors(weight=(inputs, 8), bias=(inputs,))
    if kernel == 3:
        module.noise_strength = nn.Parameter(torch.zeros(()))
        module.register_buffer("noise_const", torch.zeros(4, 4))
    return module

class Network(nn.Module):
    latent_dim = 8
    def __init__(self):
        super().__init__()
        self.mapping = nn.ModuleList([tensors(weight=(8, 8), bias=(8,)) for _ in range(2)])
        self.register_buffer("mean_w", torch.zeros(8))
        self.blocks = nn.ModuleList([tensors(const=(4, 4, 4)), nn.Module()])
        for number, block in enumerate(self.blocks):
            block.conv1, block.rgb = layer(4, 4, 3), layer(4, 1, 1)
            if number:
                block.conv0 = layer(4, 4, 3)
    def forward(self, z, condition=None):
        total = sum(parameter.sum() for parameter in self.parameters())
        return (z.sum(1) + total).tanh()[:, None, None, None].expand(-1, 1, 8, 8)

@frozen
class Style:
    def build(self, images): return Network()

@ganlab.hookimpl
def register_generators(register): register("style", Style)
"""


@pytest.mark.extended
@pytest.mark.slow
def test_a_generator_of_stylegan2_ada_by_a_map(table: dict[str, Any], write: Write) -> None:
    """With scalars, buffers, and what the plugin does not have (`resample_filter`)."""

    def convolution(name: str, outputs: int, kernel: int) -> dict[str, Tensor]:
        made = drawn(weight=(outputs, 4, kernel, kernel), bias=(outputs,), affine__weight=(4, 8), affine__bias=(4,))
        if kernel == 3:
            made |= drawn(noise_strength=(), noise_const=(4, 4), resample_filter=(4, 4))
        return {f"{name}.{part}": value for part, value in made.items()}

    state = drawn(mapping__fc0__weight=(8, 8), mapping__fc0__bias=(8,), mapping__fc1__weight=(8, 8))
    state |= drawn(mapping__fc1__bias=(8,), mapping__w_avg=(8,))
    state |= drawn(synthesis__b4__const=(4, 4, 4), synthesis__b4__resample_filter=(4, 4))
    for name in ("b4.conv1", "b8.conv0", "b8.conv1"):
        state |= convolution(f"synthesis.{name}", 4, 3)
    for name in ("b4.torgb", "b8.torgb"):
        state |= convolution(f"synthesis.{name}", 1, 1)
    torch.save({"G_ema": state}, "g_ema.pt")
    Path("style.py").write_text(STYLE)
    map_of_the_page("stylegan2.toml")
    given = {"file": "g_ema.pt", "names_file": "stylegan2.toml", "networks": ["generator"], "strict": True}
    networks, _ = begun(write(table | {"plugins": ["style.py"], "generator": {"name": "style"}, "init_from": given}))
    own = networks["generator"].state_dict()
    renamed = {"blocks.0": "synthesis.b4", "blocks.1": "synthesis.b8", "mapping.": "mapping.fc", ".rgb": ".torgb"}
    renamed["mean_w"] = "mapping.w_avg"
    for name, value in own.items():
        other = name
        for mine, its in renamed.items():
            other = other.replace(mine, its)
        assert torch.equal(value, state[other]), name
    assert len(own) == len([name for name in state if "resample_filter" not in name])
