"""A run that `load_run` read, as any other object: copied, pickled, its generator called, exported and traced."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ganlab as package
from child_work import sample_unpickled
from children import Child
from ganlab import ImageSpec, load_run
from ganlab.config.converter import TableConverter
from ganlab.plugin.loader import load_plugins
from ganlab.utils.errors import ComponentError, GanlabError, UserError
from support import REPOSITORY
from tiers import spread

Ganlab = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

unpickled = pickle.loads

BARE = """
import torch
from attrs import frozen
from torch import nn
from ganlab import hookimpl


class Net(nn.Module):
    latent_dim = 4

    def __init__(self, images):
        super().__init__()
        self.shape = (images.channels, images.height, images.width)
        self.layer = nn.Linear(4, images.channels * images.height * images.width)

    def forward(self, z, condition):
        return torch.tanh(self.layer(z)).unflatten(1, self.shape)


@frozen
class Bare:
    def build(self, images): return Net(images)


@hookimpl
def register_generators(register): register("bare", Bare)
"""
"""A plugin's generator as they were written before the condition had a default."""


@pytest.fixture(params=["bundled", "plugin"])
def run(request: pytest.FixtureRequest, table: dict[str, Any], write: Write, ganlab: Ganlab) -> Path:
    if request.param == "plugin":
        Path("bare.py").write_text(BARE)
        table |= {"plugins": ["bare.py"], "generator": "bare"}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    return Path("r")


def test_a_copy_is_a_run_of_its_own(run: Path) -> None:
    loaded = load_run(run)
    images = loaded.sample(4)
    for made in (copy.deepcopy(loaded), copy.deepcopy([loaded, loaded])[1]):
        assert made.generator is not loaded.generator
        assert made.metrics == loaded.metrics
        assert made.info is not loaded.info
        with torch.no_grad():
            for weight in made.generator.parameters():
                weight.zero_()
        assert not torch.equal(made.sample(4), images)
    assert torch.equal(loaded.sample(4), images)
    assert copy.copy(loaded).generator is loaded.generator
    assert copy.copy(loaded).log is loaded.log


def test_a_pickle_holds_the_weights_and_the_place(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_run(run, step=4, overrides=["seed=5"])
    with torch.no_grad():
        next(loaded.generator.parameters()).mul_(2)
    data = pickle.dumps(loaded)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again = unpickled(data)
    assert torch.equal(again.sample(4), loaded.sample(4))
    assert (again.step, again.experiment.seed) == (4, 5)
    shutil.rmtree(loaded.path.resolve() if loaded.path.is_absolute() else Path("..") / loaded.path)
    with pytest.raises(GanlabError, match="not a run folder"):
        unpickled(data)


def test_a_pickle_is_read_in_another_process(run: Path) -> None:
    loaded = load_run(run)
    Path("run.pkl").write_bytes(pickle.dumps(loaded))
    child = Child(partial(sample_unpickled, "run.pkl", "images.pt"), Path("log"))
    assert child.ended() == 0, child.said
    assert torch.equal(torch.load("images.pt"), loaded.sample(4))


def test_other_objects_that_a_user_holds() -> None:
    """Plugins hold modules: a copy shares them. Data sets and experiments are plain values."""
    plugins = load_plugins()
    assert copy.deepcopy({"a": plugins})["a"] is plugins
    with pytest.raises(TypeError, match="plugins cannot be pickled, since they hold modules; load them again"):
        pickle.dumps(plugins)
    dataset = package.ImageDataset(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), "zeros", condition=torch.arange(4))
    for again in (copy.deepcopy(dataset), unpickled(pickle.dumps(dataset))):
        assert again.fingerprint == dataset.fingerprint


def test_the_generator_is_called_with_latents_alone(run: Path) -> None:
    generator = load_run(run).generator
    z = torch.randn(3, generator.latent_dim)
    assert torch.equal(generator(z), generator(z, None))
    assert torch.equal(generator(z), generator(z, condition=None))
    assert torch.equal(copy.deepcopy(generator)(z), generator(z))


@pytest.mark.parametrize(
    ("arguments", "said"),
    spread(
        5,
        [
            ({"count": 0}, "count 0: expected at least 1"),
            ({"count": -1}, "count -1: expected at least 1"),
            ({"count": 2.0}, "sample: count: expected a whole number, got 2.0"),
            ({"count": True}, "sample: count: expected a whole number, got True"),
            ({"count": "4"}, "sample: count: expected a whole number, got '4'"),
            ({"count": None}, "sample: count: expected a whole number, got None"),
            ({"count": 10**15}, "count 1,000,000,000,000,000: 59,604,645 GiB of images do not fit into memory"),
            ({"count": 10**40}, "count …: expected at least 1 and at most 10,000,000,000,000,000"),
            ({"seed": -1}, "seed -1: expected at least 0"),
            ({"seed": 1.0}, "sample: seed: expected a whole number, got 1.0"),
            ({"seed": True}, "sample: seed: expected a whole number, got True"),
            ({"seed": None}, "sample: seed: expected a whole number, got None"),
            ({"seed": 2**64}, "seed 18446744073709551616: expected at least 0 and at most 9,223,372,036,854,775,807"),
            ({"truncation": 0}, "truncation 0: expected a finite number above 0"),
            ({"truncation": "0.5"}, "sample: truncation: expected a number or None, got '0.5'"),
            ({"truncation": True}, "sample: truncation: expected a number or None, got True"),
            ({"truncation": float("nan")}, "truncation nan: expected a finite number above 0"),
            ({"truncation": 10**400}, "expected a finite number above 0"),
            ({"label": 0}, "label 0: the networks of this run know no classes"),
            ({"label": 1.5}, "sample: label: expected a whole number, a text or None, got 1.5"),
        ],
    ),
    ids=str,
)
@pytest.mark.parametrize("run", ["bundled"], indirect=True)
def test_a_wrong_argument_of_sample_is_one_clear_error(run: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_run(run).sample(**{"count": 2, **arguments})
    assert said in str(refused.value)


@pytest.mark.parametrize("run", ["bundled"], indirect=True)
def test_numbers_of_other_libraries_are_arguments_of_sample(run: Path) -> None:
    """A seed is part of a text, so that 1 and numpy's 1 must be the same."""
    loaded = load_run(run, step=np.int64(4))
    expected = loaded.sample(3, seed=1, truncation=0.5)
    for made in (
        loaded.sample(np.int32(3), np.int64(1), truncation=np.float64(0.5)),
        loaded.sample(torch.tensor(3), torch.tensor(1), truncation=np.float32(0.5)),
    ):
        assert torch.equal(made, expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    spread(
        3,
        [
            ({"step": "4"}, "load_run: step: expected a whole number or None, got '4'"),
            ({"step": 4.0}, "load_run: step: expected a whole number or None, got 4.0"),
            ({"step": True}, "load_run: step: expected a whole number or None, got True"),
            ({"step": -1}, "step -1: expected at least 0"),
            ({"step": 3}, "step 3: r has no such checkpoint; there are: 4"),
            ({"device": "gpu"}, "device 'gpu': expected auto or a device that is here: cpu; did you mean 'cuda'?"),
            ({"device": "pretend"}, "; call ganlab.testing.pretend.install() first, before any backward pass"),
            ({"device": None}, "load_run: device: expected a text, got None"),
            ({"device": "cuda:99"}, "device cuda:99: torch finds "),
            ({"overrides": "seed=5"}, "load_run: overrides: expected a list of texts, got 'seed=5'; write ['seed=5']"),
            (
                {"plugins": "bare.py"},
                "load_run: plugins: expected a list of texts or paths, got 'bare.py'; write ['bare.py']",
            ),
        ],
    ),
    ids=str,
)
@pytest.mark.parametrize("run", ["bundled"], indirect=True)
def test_a_wrong_argument_of_load_run_is_one_clear_error(run: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_run(run, **arguments)
    assert said in str(refused.value)


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_every_bundled_network_has_a_default_or_says_what_is_missing(kind: str) -> None:
    images = ImageSpec(3, 32, 32, 10)
    registry = load_plugins().registry
    converter = TableConverter(registry)
    for component in registry.of_kind(kind):
        config = converter.component(kind, component.name)
        if component.name in ("unet", "resnet_translator"):  # their input is the condition
            with pytest.raises(ComponentError, match="needs images as conditions"):
                config.build(images)
            continue
        if component.name in ("mlp_encoder", "dcgan_encoder", "mlp_joint"):  # so is theirs
            with pytest.raises(ComponentError, match="as conditions, and the data set has none"):
                config.build(images)
            continue
        network: nn.Module = config.build(images).eval()
        given = torch.randn(2, network.latent_dim) if kind == "generator" else torch.rand(2, 3, 32, 32) * 2 - 1
        if component.name == "conditional":
            with pytest.raises(TypeError, match="condition"):
                network(given)
        else:
            with torch.no_grad():
                network(given)


def test_a_layer_that_needs_labels_says_so() -> None:
    registry = load_plugins().registry
    images = ImageSpec(3, 32, 32, 10)
    generator = registry.find("generator", "resnet").cls(norm="conditional_batch").build(images)
    with pytest.raises(ComponentError, match='norm = "conditional_batch" needs class labels'):
        generator(torch.randn(2, generator.latent_dim))
    discriminator = registry.find("discriminator", "resnet").cls(head="projection").build(images)
    with pytest.raises(ComponentError, match='head = "projection" needs class labels'):
        discriminator(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("run", ["bundled"], indirect=True)
def test_the_lines_of_the_readme_export_and_trace(run: Path) -> None:
    """They are executed as they stand there, but for the run folder and the training."""
    (lines,) = re.findall(r"```python\n(import ganlab\n.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    code, found = re.subn(r'load_run\(".*?"\)', f"load_run({str(run)!r})", lines)
    assert found == 1
    code, found = re.subn(r"^run = ganlab\.train\(.*\n", "", code, flags=re.MULTILINE)
    assert found == 1
    names: dict[str, Any] = {}
    exec(compile(code, "lines", "exec"), names)
    assert names["images"].shape == (16, 1, 8, 8)
    assert_same_images(names["run"].generator)


@pytest.mark.parametrize("run", ["plugin"], indirect=True)
def test_a_generator_without_a_default_is_exported_with_its_condition(run: Path) -> None:
    generator = load_run(run).generator
    z = torch.randn(16, generator.latent_dim)
    shapes = ({0: torch.export.Dim("count")}, None)
    torch.export.save(torch.export.export(generator, (z, None), dynamic_shapes=shapes), "generator.pt2")
    torch.jit.trace(generator, z).save("generator.pt")
    assert_same_images(generator, None)


def assert_same_images(generator: nn.Module, *condition: None) -> None:
    exported, traced = torch.export.load("generator.pt2").module(), torch.jit.load("generator.pt")
    for count in (1, 16, 5):
        z = torch.randn(count, generator.latent_dim)
        expected = generator(z)
        assert torch.allclose(exported(z, *condition), expected, atol=1e-6)
        assert torch.allclose(traced(z), expected, atol=1e-6)
