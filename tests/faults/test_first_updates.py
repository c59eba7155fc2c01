"""What would fail in the first step is refused by `--dry-run` and before a run makes its folder, in one line each.

Each plugin is wrong in one way. The line must name the component and its plugin, and say what was wanted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import load_plugins
from ganlab.protocols import Batch, ImageSpec, Move
from ganlab.run.first_updates import FirstUpdates
from ganlab.testing.state_comparison import first_difference
from ganlab.training.build import build
from ganlab.training.probes import GameTrial
from ganlab.training.state import training_state
from ganlab.utils.errors import PluginFailed
from ganlab.utils.paths import Places
from ganlab.utils.rng import global_state

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]

PLUGIN = """
import torch
from attrs import field, frozen
from torch import nn
from torch.nn.functional import softplus
import ganlab

@frozen
class Loss:
    needs: int = 0
    def discriminator(self, real, fake):
        assert len(fake) >= self.needs
        return DISCRIMINATOR_LOSS
    def generator(self, real, fake): return GENERATOR_LOSS
    MORE_LOSS

class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Linear(64, 1)
        self.register_buffer("scale", torch.ones(1))
    def forward(self, images, condition):
        logits = self.down(images.flatten(1)).squeeze(1)
        return JUDGED

class Maker(nn.Module):
    latent_dim = 8
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 64)
    def forward(self, z, condition):
        images = torch.tanh(self.up(z)).unflatten(1, (1, 8, 8))
        return MADE

@frozen
class Make:
    def build(self, images): return Maker()
@frozen
class Judging:
    def build(self, images): return Judge()
@frozen
class Term:
    player: str = "discriminator"
    every: int = 16
    def penalty(self, step): return TERM
@frozen
class Change:
    def augment(self, images): return AUGMENTED
    MORE_AUGMENTATION

def write(tensor, value=2.0):
    with torch.no_grad(): tensor.mul_(value)

@ganlab.hookimpl
def register_losses(register): register("odd", Loss)
@ganlab.hookimpl
def register_generators(register): register("odd", Make)
@ganlab.hookimpl
def register_discriminators(register): register("odd", Judging)
@ganlab.hookimpl
def register_penalties(register): register("odd", Term)
@ganlab.hookimpl
def register_augmentations(register): register("odd", Change)
"""

SOUND = {
    "DISCRIMINATOR_LOSS": "softplus(fake - real).mean()",
    "GENERATOR_LOSS": "softplus(real - fake).mean()",
    "MORE_LOSS": "",
    "JUDGED": "logits * self.scale",
    "MADE": "images",
    "TERM": "step.fake_logits.square().mean()",
    "AUGMENTED": "images",
    "MORE_AUGMENTATION": "",
}


@pytest.fixture
def odd(tmp_path: Path, table: dict[str, Any], write: Write) -> Callable[..., Path]:
    """Writes the plugin with some of its expressions replaced, and an experiment that uses all of it."""

    def odd(options: dict[str, Any] | None = None, **changes: str) -> Path:
        source = PLUGIN
        for name, expression in (SOUND | changes).items():
            source = source.replace(name, expression)
        (tmp_path / "odd.py").write_text(source)
        parts = {kind: {"name": "odd"} for kind in ("generator", "discriminator", "loss")}
        listed = {kind: [{"name": "odd"}] for kind in ("penalty", "augmentation")}
        return write(table | parts | listed | {"plugins": ["odd.py"]} | (options or {}))

    return odd


def of(kind: str) -> str:
    return rf"{kind} 'odd' of plugin odd \(\S+/odd\.py\)"


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "a loss without mean": (
        {"DISCRIMINATOR_LOSS": "softplus(fake - real)"},
        rf"loss: the discriminator's loss is torch.float32 \(4,\); expected a scalar of floats, such as the mean over "
        rf"a batch \({of('loss')}\)",
    ),
    "a generator's loss with a dimension": (
        {"GENERATOR_LOSS": "-fake.mean(0, keepdim=True)"},
        rf"loss: the generator's loss is torch.float32 \(1,\); expected a scalar of floats, .* \({of('loss')}\)",
    ),
    "a loss that is a number": (
        {"GENERATOR_LOSS": "0.0"},
        rf"loss: the generator's loss is float; expected a scalar of floats, .* \({of('loss')}\)",
    ),
    "two losses": (
        {"GENERATOR_LOSS": "(fake.mean(), real.mean())"},
        rf"loss: the generator's loss is tuple; expected a scalar of floats, .* \({of('loss')}\)",
    ),
    "a loss that is detached": (
        {"GENERATOR_LOSS": "-fake.detach().mean()"},
        rf"loss: the generator's loss has no gradient with respect to the generator's weights \({of('loss')}\)",
    ),
    "a loss that refuses": (
        {"MORE_LOSS": "def discriminator(self, real, fake): raise ganlab.ComponentError('no such logits')"},
        r"loss: no such logits",
    ),
    "a state that no checkpoint holds": (
        {"MORE_LOSS": "def state_dict(self): return {'seen': {1}}\n    def load_state_dict(self, state): pass"},
        r"loss: its state_dict\(\) cannot be saved: a checkpoint holds tensors and plain values; seen is a set "
        rf"\({of('loss')}\)",
    ),
    "a network's state that no checkpoint holds": (
        {"JUDGED": "logits * self.scale\n    def get_extra_state(self): return b''"},
        r"discriminator: its state_dict\(\) cannot be saved: a checkpoint holds tensors and plain values; _extra_state "
        rf"is a bytes \({of('discriminator')}\)",
    ),
    "a state that is not read again": (
        {"MORE_AUGMENTATION": "def state_dict(self): return {'p': torch.zeros(())}"},
        rf"augmentation\[0\]: it has state_dict\(\) and no load_state_dict\(state\) \({of('augmentation')}\)",
    ),
    "a measure": (
        {"MORE_LOSS": "def measures(self, real, fake): return {'gap': real - fake}"},
        r"game, loss or augmentation: the measure 'gap' is torch.float32 \(4,\); expected a scalar of floats, .*",
    ),
    "an augmentation's measure": (
        {"MORE_AUGMENTATION": "def measures(self): return {'p': 0.5}"},
        r"game, loss or augmentation: the measure 'p' is float; expected a scalar of floats, .*",
    ),
    "a penalty without mean": (
        {"TERM": "step.fake_logits.square()"},
        rf"penalty\[0\]: the term is torch.float32 \(4,\); expected a scalar of floats, .* \({of('penalty')}\)",
    ),
    "a penalty that is None": (
        {"TERM": "None"},
        rf"penalty\[0\]: the term is NoneType; expected a scalar of floats, .* \({of('penalty')}\)",
    ),
    "a discriminator that gives a dict": (
        {"JUDGED": "{'logits': logits}"},
        r"discriminator: returns dict; expected a tensor of logits, an object that has them as 'logits', or a list of "
        rf"these \({of('discriminator')}\)",
    ),
    "a discriminator that gives a tuple": (
        {"JUDGED": "logits, images"},
        rf"discriminator: returns tuple; expected a tensor of logits, .* \({of('discriminator')}\)",
    ),
    "a generator that gives a tuple": (
        {"MADE": "images, z"},
        rf"generator: returns tuple; expected a tensor of images \({of('generator')}\)",
    ),
    "a generator that gives a tuple while it trains": (
        {"MADE": "(images, z) if self.training else images"},
        rf"generator: returns tuple; expected a tensor of images \({of('generator')}\)",
    ),
    "a penalty that changes a buffer": (
        {"TERM": "write(step.discriminator.scale) or step.fake_logits.mean()"},
        r"penalty\[0\]: changes the buffer 'scale' of the discriminator in place, after the forward pass has used it, "
        rf"so that it has no gradient; change a copy \({of('penalty')}\)",
    ),
    "a discriminator that changes a buffer": (
        {"JUDGED": "(logits * self.scale, write(self.scale))[0]"},
        r"discriminator: changes the buffer 'scale' of the discriminator in place, .* "
        rf"\({of('discriminator')}\)",
    ),
    "a loss that changes its input": (
        {"GENERATOR_LOSS": "(fake.square().mean(), write(fake))[0]"},
        rf"loss: changes its input 2 in place, after the forward pass has used it, .* \({of('loss')}\)",
    ),
}

RAISED = {
    "a penalty": ({"TERM": "step.fkae.mean()"}, "AttributeError: 'Step' object has no attribute 'fkae'"),
    "a loss": ({"GENERATOR_LOSS": "fake.maen()"}, "AttributeError: 'Tensor' object has no attribute 'maen'"),
    "a network while it trains": ({"JUDGED": "logits[99] if self.training else logits"}, "IndexError: .*"),
    "an augmentation of few images": (
        {"AUGMENTED": "images if len(images) == 2 else images[99]"},
        "IndexError: .*",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_one_line(case: str, odd: Callable[..., Path], ganlab: Command) -> None:
    changes, line = REFUSED[case]
    file = odd(**changes)
    for more in (["--dry-run"], ["--out", "r"]):
        code, out, err = ganlab("run", file, *more)
        assert (code, out) == (2, ""), err
        # With a whole batch where a few images were refused.
        wanted = line.replace(r"\(4,\)", r"\(16,\)")
        assert re.fullmatch(rf"{file}: {wanted}\n", err), err
    assert not Path("r").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize("case", RAISED)
def test_what_raises_is_named_before_there_is_a_folder(case: str, odd: Callable[..., Path], ganlab: Command) -> None:
    changes, text = RAISED[case]
    file = odd(**changes)
    for more in (["--dry-run"], ["--out", "r"]):
        code, _, err = ganlab("run", file, *more)
        assert code == 1
        last = err.splitlines()[-1]
        assert re.fullmatch(rf"plugin odd \(\S+\) raised before the first step: {text} \(line \d+\)(, in .*)?", last), (
            err
        )
    assert not Path("r").exists()


class FailsInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        if self.training:
            raise ValueError("no")
        return images.mean((1, 2, 3)) * self.gain


@frozen
class Foreign:
    def build(self, images: ImageSpec) -> nn.Module:
        return FailsInTraining()


def test_an_error_in_no_plugins_file_names_the_component(table: dict[str, Any], tmp_path: Path) -> None:
    """A network may be of a class of another package: no line of the plugin is in the traceback."""
    plugins = load_plugins()
    plugins.registry._frozen = False
    plugins.registry.register("discriminator", "foreign", Foreign, Origin("abroad", "file", "", "", None))
    experiment = convert_experiment(table | {"discriminator": "foreign"}, plugins)
    trial = partial(FirstUpdates, experiment=experiment, registry=plugins.registry)
    line = r"discriminator 'foreign' of plugin abroad \(None\) raised before the first step: ValueError: no"
    with pytest.raises(PluginFailed, match=line):
        build(experiment, plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"), make_trial=trial)


class Untried(GameTrial):
    """No trial at all."""

    def try_move(self, move: Move, batch: Batch, refused: list[str]) -> None:
        pass


def test_sound_plugins_pass_and_the_training_is_the_same(
    odd: Callable[..., Path], ganlab: Command, tmp_path: Path
) -> None:
    """No bit of the training is changed: weights, statistics, optimisers, states, meters and random numbers."""
    file = odd()
    plugins = load_plugins([tmp_path / "odd.py"])
    experiment = convert_experiment(tomllib.loads(file.read_text()), plugins)
    states = []
    for trial in (Untried, partial(FirstUpdates, experiment=experiment, registry=plugins.registry)):
        places = Places(tmp_path, tmp_path)
        training = build(experiment, plugins.registry, places, torch.device("cpu"), make_trial=trial)
        states.append((training_state(training, 0), global_state()))
    (before, random), (after, other) = states
    assert first_difference(before, after) is None
    assert first_difference(random, other) is None
    assert ganlab("run", file, "--dry-run")[0] == 0


def test_a_component_that_needs_more_images_than_the_trial_takes(odd: Callable[..., Path], ganlab: Command) -> None:
    for needs, code in ((16, 0), (17, 1)):
        file = odd({"loss": {"name": "odd", "needs": needs}})
        assert ganlab("run", file, "--dry-run")[0] == code


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_cannot_be_copied_is_not_tried(odd: Callable[..., Path], ganlab: Command) -> None:
    """torch's older weight norm keeps a tensor with a graph, which no copy has; such a network trains as ever."""
    file = odd({"penalty": []})
    source = Path("odd.py").read_text()
    source = source.replace("self.down = nn.Linear(64, 1)", "self.down = nn.utils.weight_norm(nn.Linear(64, 1))")
    Path("odd.py").write_text(source)
    code, _, err = ganlab("run", file, "--out", "r")
    assert code == 0, err


def test_all_that_penalties_refuse_is_told_at_once(odd: Callable[..., Path], ganlab: Command) -> None:
    refuse = "(_ for _ in ()).throw(ganlab.ComponentError(f'not for the {step.player}'))"
    file = odd({"penalty": [{"name": "odd", "player": name} for name in ("generator", "discriminator")]}, TERM=refuse)
    code, out, err = ganlab("run", file, "--dry-run")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"{file}: penalty[{index}]: not for the {name}" for index, name in ((1, "discriminator"), (0, "generator"))
    ]


def test_a_network_that_asks_for_the_type_of_its_condition(odd: Callable[..., Path], ganlab: Command) -> None:
    """The trial finds who uses conditions by a class of its own, and does without where that fails."""
    file = odd(JUDGED="logits if type(condition) is torch.Tensor else logits[99]")
    code, _, err = ganlab("run", file, "--out", "r")
    assert code == 0, err
