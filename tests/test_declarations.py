"""What losses and discriminators declare of themselves, against probes and hand computations."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab import ComponentError
from ganlab.config.load import convert_experiment
from ganlab.plugin.component import Origin
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.plugin.registry import RegistrationError
from ganlab.protocols import Augmentation, ImageSpec, Places, batch_independent, generator_uses_real
from ganlab.protocols.batch import Batch
from ganlab.training.build import build
from ganlab.training.loop import Training
from ganlab.utils.errors import UserError

REGISTRY = load_plugins().registry
ORIGIN = Origin("test", "file", "", "", None)


@pytest.fixture
def plugins() -> Plugins:
    """The bundled plugins, and a registry that a test can still add to."""
    loaded = load_plugins()
    loaded.registry._frozen = False
    return loaded


def training_of(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> Training:
    return build(convert_experiment(table, plugins), plugins.registry, Places(tmp_path, tmp_path), torch.device("cpu"))


# ---------------------------------------------------------------------------------------------------------------------
# Losses: generator_uses_real
# ---------------------------------------------------------------------------------------------------------------------


def probed_use_of_real(loss: Any) -> bool:
    """NaN probe: whether NaN real logits make the generator's loss NaN. It misses comparisons."""
    return bool(torch.isnan(copy.deepcopy(loss).generator(torch.full((4,), torch.nan), torch.zeros(4))).any())


@pytest.mark.parametrize("name", [part.name for part in REGISTRY.of_kind("loss")])
def test_a_bundled_loss_declares_what_the_probe_finds(name: str) -> None:
    (part,) = (part for part in REGISTRY.of_kind("loss") if part.name == name)
    loss = part.cls()
    assert generator_uses_real(loss) == probed_use_of_real(loss)
    if hasattr(loss, "with_targets"):
        assert generator_uses_real(loss.with_targets(real=0.9, fake=0.0)) == generator_uses_real(loss)


@frozen
class Comparing:
    """The mean of the fake logits below the mean real one, which lets no NaN through."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((fake < real.mean()).float() * fake).mean()


def test_a_loss_that_compares_is_given_the_real_logits(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    """The logged loss of an update against a hand computation with the same latents."""
    plugins.registry.register("loss", "comparing", Comparing, ORIGIN)
    training = training_of(table | {"loss": "comparing"}, plugins, tmp_path)
    game = training.game
    generator, discriminator = (copy.deepcopy(player.network) for player in game.players.values())
    with torch.no_grad():  # real images like fake ones, so that their mean logit is among the fake logits
        batch = Batch(generator(torch.randn(game.batch_size, generator.latent_dim), None), None)
    torch.manual_seed(5)
    with torch.no_grad():
        fake = discriminator(generator(torch.randn(game.batch_size, generator.latent_dim), None), None)
        real = discriminator(batch.images, None)
    expected = sum(x for x in fake.tolist() if x < real.mean()) / len(fake)
    assert expected != sum(x for x in fake.tolist() if x < 0) / len(fake), "real logits of zero give another loss"
    torch.manual_seed(5)
    game.make_update(game.rules.moves[1], batch, 0)
    assert game.meters.means()["loss_generator"] == pytest.approx(expected, rel=1e-5)


@frozen
class Declares(Comparing):
    generator_uses_real: ClassVar[bool] = False


@frozen
class DeclaresUntyped(Comparing):
    generator_uses_real = False


@frozen
class DeclaresByProperty(Comparing):
    @property
    def generator_uses_real(self) -> bool:
        return False


@pytest.mark.parametrize("cls", [Declares, DeclaresUntyped, DeclaresByProperty])
def test_a_loss_may_declare_it_in_each_way(cls: type, table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    plugins.registry.register("loss", "declares", cls, ORIGIN)
    training = training_of(table | {"loss": "declares"}, plugins, tmp_path)
    game, batch = training.game, training.loader.batch(0)
    passes: list[int] = []
    game.networks["discriminator"].register_forward_hook(lambda network, inputs, output: passes.append(len(output)))
    game.make_update(game.rules.moves[1], batch, 0)
    assert passes == [game.batch_size], "real images are not judged for a loss that does not use them"


def test_a_declaration_that_is_no_bool_is_refused(table: dict[str, Any], plugins: Plugins, tmp_path: Path) -> None:
    @frozen
    class Says(Comparing):
        generator_uses_real = "no"

    with pytest.raises(RegistrationError, match="Says: generator_uses_real is 'no'; expected True or False"):
        plugins.registry.register("loss", "says", Says, ORIGIN)

    @frozen
    class Wrapper:
        def __call__(self, loss: Any) -> Any:
            return Says()

    plugins.registry.register("loss_wrapper", "says", Wrapper, ORIGIN)
    with pytest.raises(UserError, match="loss: generator_uses_real is 'no'; expected True or False"):
        training_of(table | {"loss_wrapper": ["says"]}, plugins, tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Discriminators: batch_independent
# ---------------------------------------------------------------------------------------------------------------------


def probed_independence(
    discriminator: nn.Module,
    augmentations: Sequence[Augmentation],
    images: ImageSpec,
    condition: Tensor | None,
) -> bool:
    """NaN probe: whether NaN in half a batch leaves the other half's output bare finite logits."""
    network, augmentations = copy.deepcopy((discriminator, augmentations))
    for half in (2, 3):
        batch = torch.zeros(2 * half, images.channels, images.height, images.width)
        batch[half:] = torch.nan
        for augmentation in augmentations:
            batch = augmentation.augment(batch)
        with torch.no_grad():
            output = network.train()(batch, None if condition is None else condition[: 2 * half])
        if not isinstance(output, Tensor) or len(output) != 2 * half or not output[:half].isfinite().all():
            return False
    return True


HEADS = [{"head": head} for head in ("plain", "projection", "class_logits")]
OPTIONS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "mlp": lambda: (
        {"hidden": (8,), "norm": norm, "spectral_norm": spectral, "dropout": dropout, **head}
        for norm, spectral, dropout, head in itertools.product(
            ("none", "batch", "layer"), (False, True), (0.0, 0.5), HEADS
        )
    ),
    "dcgan": lambda: (
        {"channels": 2, "norm": norm, "spectral_norm": spectral, "minibatch_stddev": group, "attention": at, **head}
        for norm, spectral, group, at, head in itertools.product(
            ("none", "batch", "layer", "instance"), (False, True), (0, 1, 2, 3, 4), ((), (8,)), HEADS
        )
    ),
    "resnet": lambda: (
        {"channels": 2, "spectral_norm": spectral, "attention": at, "doubling": doubling, **head}
        for spectral, at, doubling, head in itertools.product((False, True), ((), (8,)), (False, True), HEADS)
    ),
    "r3gan": lambda: ({"widths": (16, 16, 16), "group_width": 8, **head} for head in HEADS),
    "patchgan": lambda: (
        {"channels": 2, "halvings": halvings, "norm": norm, "spectral_norm": spectral}
        for halvings, norm, spectral in itertools.product(
            (0, 1, 2), ("none", "batch", "layer", "instance"), (False, True)
        )
    ),
    "vgg": lambda: ({"channels": 2, "layers": layers} for layers in (1, 2, 3, 9)),
}
ALWAYS = {"vgg": {True}}
"""What a discriminator declares that has no other options."""

CLS = {part.name: part.cls for part in REGISTRY.of_kind("discriminator")}
SPEC = ImageSpec(1, 16, 16, classes=3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def configs(name: str) -> Iterator[Any]:
    """Every combination of the options that could matter; around others, for those that wrap one."""
    if name in OPTIONS:
        yield from (CLS[name](**options) for options in OPTIONS[name]())
    elif name == "conditional":
        kinds = [kind for kind in OPTIONS if kind != "vgg"]  # which judges images of one or three channels alone
        yield from (CLS[name](network=inner) for kind in kinds for inner in itertools.islice(configs(kind), 24))
        yield from (CLS[name](network=CLS["packed"](network=CLS["mlp"](hidden=(8,)), size=size)) for size in (1, 2, 3))
    elif name == "packed":
        inner = [CLS["mlp"](hidden=(8,)), CLS["mlp"](hidden=(8,), norm="batch"), CLS["resnet"](channels=2)]
        inner += [CLS["dcgan"](channels=2, norm="layer", minibatch_stddev=group) for group in (0, 1, 2)]
        # Four images, of the first two halves, are one pack of four or more, of which batch norm has no statistics.
        sizes = {True: (1, 2, 3), False: (1, 2, 3, 4, 5)}
        for network in inner:
            for size in sizes[getattr(network, "norm", "none") == "batch"]:
                yield CLS[name](network=network, size=size)
    else:
        pytest.fail(f"the bundled discriminator {name} has no options here")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",  # mlp_joint judges images with a condition that this data set has not
    ["mlp", *(pytest.param(name, marks=pytest.mark.extended) for name in CLS if name not in ("mlp", "mlp_joint"))],
)
def test_a_bundled_discriminator_declares_what_the_probe_finds(name: str) -> None:
    torch.manual_seed(0)
    found = set()
    for config in configs(name):
        network = config.build(SPEC)
        declared = batch_independent(network)
        assert declared == probed_independence(network, (), SPEC, LABELS), config
        found.add(declared)
    assert found == ALWAYS.get(name, {True, False})


@pytest.mark.parametrize("side", [8, 10, 14, 28])
def test_a_dcgan_of_any_size_declares_what_the_probe_finds(side: int) -> None:
    """That of the smallest images has no normalised layer."""
    images = ImageSpec(1, side, side)
    for norm in ("none", "batch", "layer", "instance"):
        network = CLS["dcgan"](channels=2, norm=norm).build(images)
        assert batch_independent(network) == probed_independence(network, (), images, None), norm


@pytest.mark.parametrize("name", [part.name for part in REGISTRY.of_kind("augmentation")])
def test_a_bundled_augmentation_changes_each_image_by_itself(name: str) -> None:
    (part,) = (part for part in REGISTRY.of_kind("augmentation") if part.name == name)
    torch.manual_seed(0)
    network = CLS["mlp"](hidden=(8,)).build(SPEC)
    augmentation = part.cls()
    if "p" in attrs.fields_dict(part.cls):
        augmentation = attrs.evolve(augmentation, p=1.0)
    assert probed_independence(network, (augmentation,), SPEC, None)


class Deviating(nn.Module):
    """Adds the standard deviation over the batch to each logit, as minibatch statistics do."""

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        return images.flatten(1).mean(1) + images.std(0).mean()


@frozen
class Rolling:
    """An augmentation that mixes images."""

    def augment(self, images: Tensor) -> Tensor:
        return images + images.roll(1, 0)


def test_the_probe_finds_what_mixes_images() -> None:
    network = CLS["mlp"](hidden=(8,)).build(SPEC)
    assert probed_independence(network, (), SPEC, None)
    assert not probed_independence(network, (Rolling(),), SPEC, None)
    assert not probed_independence(Deviating(), (), SPEC, None)


class Mean(nn.Module):
    """The mean of the pixels as a logit; `batch_independent` and the output's type are the test's."""

    def __init__(self, declared: Any, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.output = output
        if declared is not None:
            self.batch_independent = declared

    def forward(self, images: Tensor, condition: Tensor | None) -> Any:
        return self.output(self.weight * images.mean((1, 2, 3)))


@frozen
class WithLogits:
    logits: Tensor


@pytest.mark.parametrize(
    ("declared", "output", "line"),
    [
        (None, lambda logits: logits, None),
        (False, WithLogits, None),
        ("yes", lambda logits: logits, "discriminator: batch_independent is 'yes'; expected True or False"),
        (
            True,
            WithLogits,
            "discriminator: batch_independent is True, and it returns WithLogits; expected a tensor of logits "
            "(discriminator 'mean' of plugin test (None))",
        ),
    ],
)
def test_what_build_makes_of_the_declaration(
    declared: Any,
    output: Callable[[Tensor], Any],
    line: str | None,
    table: dict[str, Any],
    plugins: Plugins,
    tmp_path: Path,
) -> None:
    @frozen
    class Config:
        def build(self, images: ImageSpec) -> nn.Module:
            return Mean(declared, output)

    plugins.registry.register("discriminator", "mean", Config, ORIGIN)
    table["discriminator"] = {"name": "mean"}
    if line is None:
        assert training_of(table, plugins, tmp_path).step_optimizations["joined"] is False
    else:
        with pytest.raises(UserError) as refused:
            training_of(table, plugins, tmp_path)
        assert refused.value.problems == (line,)


def test_the_error_of_a_declaration_is_one_of_the_component() -> None:
    with pytest.raises(ComponentError):
        batch_independent(Mean(1, lambda logits: logits))
