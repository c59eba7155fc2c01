"""pix2pix, CycleGAN and CUT: each step held against the papers' equations, written as a plain loop."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import l1_loss
from torchvision.transforms.functional import normalize

from games_by_hand import STEPS, assert_same, descend, problem, training_of
from ganlab import ComponentError, ImageSpec
from ganlab.training.loop import take_step

NO_LATENT = torch.zeros(8, 0)

SOURCE = {"name": "digits", "size": 16}
BLURRED = {"name": "degraded", "dataset": SOURCE, "blur": 1.0}
TRANSLATOR = {"name": "resnet_translator", "channels": 4, "blocks": 2, "halvings": 1}
PATCHES = {"name": "patchgan", "channels": 4, "halvings": 1, "norm": "instance"}


def squares(logits: Tensor, target: float) -> Tensor:
    """Half of the mean square, as Mao et al. 2017 define it."""
    return 0.5 * (logits - target).square().mean()


def adversarial(logits: Tensor, target: float) -> Tensor:
    return cross_entropy(logits, torch.full_like(logits, target))


def normalised(images: Tensor) -> Tensor:
    """Grey images in [-1, 1] as torchvision's networks have them."""
    return normalize((images.expand(-1, 3, -1, -1) + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"adversarial": 0.3, "absolute": 7.0}, {"conditional": False}, {"adversarial": 0.0}),
        {"perceptual": 3.0, "absolute": 0.0},
    ],
    ids=str,
)
def test_pix2pix_by_hand(options: dict[str, Any]) -> None:
    training = training_of(
        game={"name": "pix2pix", **options},
        dataset=BLURRED,
        generator={"name": "unet", "channels": 4, "dropout": 0.0},
        discriminator=PATCHES,
        loss="bce",
        **({"content": {"name": "vgg", "layers": 3, "channels": 8}} if "perceptual" in options else {}),
    )
    nets = copy.deepcopy(dict(training.game.networks))
    weights = {"adversarial": 1.0, "absolute": 100.0, "conditional": True, "perceptual": 0.0, **options}
    used = {"discriminator": weights["adversarial"], "content": weights["perceptual"]}
    assert set(nets) == {"generator", *(name for name, weight in used.items() if weight)}
    for step in range(STEPS):
        batch = training.loader.batch(step)
        assert batch.condition is not None
        given = batch.condition if weights["conditional"] else None
        # In training mode batch norm's statistics are those of the batch: the images are the same for both players.
        fake = nets["generator"](NO_LATENT, batch.condition)
        if weights["adversarial"]:
            judge = nets["discriminator"]
            real_loss = adversarial(judge(batch.images, given), 1.0)
            descend(0.5 * (real_loss + adversarial(judge(fake.detach(), given), 0.0)), judge)
        loss = weights["absolute"] * l1_loss(fake, batch.images)
        if weights["adversarial"]:
            loss = loss + weights["adversarial"] * adversarial(nets["discriminator"](fake, given), 1.0)
        if weights["perceptual"]:
            compared = [nets["content"].features(normalised(images)) for images in (fake, batch.images)]
            loss = loss + weights["perceptual"] * (compared[0] - compared[1]).square().mean()
        descend(loss, nets["generator"])
        take_step(training, step)
    assert_same(training, nets)


@pytest.mark.parametrize("identity", [0.0, 5.0])
def test_cyclegan_by_hand(identity: float) -> None:
    """With a pool that is not yet full, the discriminators see the latest translations."""
    training = training_of(
        game={"name": "cyclegan", "identity": identity, "pool": 100},
        **{"dataset": BLURRED, "source": SOURCE, "generator": TRANSLATOR, "discriminator": PATCHES},
    )
    nets = copy.deepcopy(dict(training.game.networks))
    ab, ba = nets["generator_ab"], nets["generator_ba"]
    of_a, of_b = nets["discriminator_a"], nets["discriminator_b"]
    for step in range(STEPS):
        batch = training.loader.batch(step)
        a, b = batch.streams["source"].images, batch.images
        fake_a, fake_b = ba(NO_LATENT, b), ab(NO_LATENT, a)
        loss = squares(of_a(fake_a), 1.0) + squares(of_b(fake_b), 1.0)
        loss = loss + 5 * (l1_loss(ba(NO_LATENT, fake_b), a) + l1_loss(ab(NO_LATENT, fake_a), b))
        loss = loss + identity * (l1_loss(ba(NO_LATENT, a), a) + l1_loss(ab(NO_LATENT, b), b))
        descend(loss, ab, ba)
        judged = [(of_a, a, fake_a.detach()), (of_b, b, fake_b.detach())]
        losses = [squares(judge(real), 1.0) + squares(judge(fake), 0.0) for judge, real, fake in judged]
        descend(0.5 * (losses[0] + losses[1]), of_a, of_b)
        take_step(training, step)
    assert_same(training, nets)


@pytest.mark.parametrize("identity", [0.0, 0.5])
def test_cut_by_hand(identity: float) -> None:
    """With all places of each layer the contrast is the cross-entropy of each patch with its own place."""
    training = training_of(
        game={"name": "cut", "patches": 1000, "dim": 8, "identity": identity, "temperature": 0.5},
        **{"dataset": BLURRED, "source": SOURCE, "generator": TRANSLATOR, "discriminator": PATCHES},
    )
    nets = copy.deepcopy(dict(training.game.networks))
    generator, heads, judge = nets["generator"], nets["heads"], nets["discriminator"]

    def contrast(before: Tensor, after: Tensor) -> Tensor:
        losses = []
        keys, queries = (generator(NO_LATENT, images, True) for images in (before, after))
        for head, key, query in zip(heads.heads, keys, queries, strict=True):
            rows = [head(maps.flatten(2).movedim(1, 2)) for maps in (key, query)]
            of_key, of_query = (part / part.norm(dim=2, keepdim=True) for part in rows)
            similar = torch.einsum("nqd,nkd->nkq", of_query, of_key.detach()) / 0.5
            places = torch.arange(similar.shape[1]).expand(len(similar), -1)
            losses.append(nn.functional.cross_entropy(similar, places))
        return torch.stack(losses).mean()

    for step in range(STEPS):
        batch = training.loader.batch(step)
        source, real = batch.streams["source"].images, batch.images
        fake, same = generator(NO_LATENT, source), generator(NO_LATENT, real)
        judged = squares(judge(real), 1.0) + squares(judge(fake.detach()), 0.0)
        descend(0.5 * judged, judge)
        loss = squares(judge(fake), 1.0) + 0.5 * contrast(source, fake)
        if identity:
            loss = loss + identity * contrast(real, same)
        descend(loss, generator, heads)
        take_step(training, step)
    assert_same(training, nets)


def test_the_translation_is_of_the_partner_that_the_game_never_sees() -> None:
    for name, generator in (("cyclegan", "generator_ab"), ("cut", "generator")):
        training = training_of(
            game=name, **{"dataset": BLURRED, "source": SOURCE, "generator": TRANSLATOR, "discriminator": PATCHES}
        )
        translate = training.game.rules.outputs["translation"]
        assert training.dataset.condition is not None
        images, partner = torch.rand(8, 1, 16, 16), torch.rand(8, 1, 16, 16)
        wanted = training.game.networks[generator](NO_LATENT, partner)
        assert torch.equal(translate(training.game.networks, images, partner), wanted)
        alone = attrs.evolve(training.data, images=ImageSpec(1, 16, 16))
        assert training.game_config.build(alone).outputs == {}


def test_what_a_game_cannot_translate_is_refused() -> None:
    both = {"generator": TRANSLATOR, "discriminator": PATCHES}
    assert "[dataset] must have images as conditions, as 'glyphs' has" in problem(
        game="pix2pix", dataset=SOURCE, **both
    )
    attributes = ImageSpec(1, 16, 16, None, (3,), condition_dtype="float32")
    training = training_of(game="pix2pix", dataset=BLURRED, **both)
    with pytest.raises(ComponentError, match=r"^pix2pix translates images: \[dataset\] must have images as conditions"):
        training.game_config.build(attrs.evolve(training.data, images=attributes))
    nothing = {"name": "pix2pix", "adversarial": 0.0, "absolute": 0.0}
    assert "the generator would learn nothing" in problem(game=nothing, dataset=BLURRED, **both)
    compares = {"name": "pix2pix", "perceptual": 1.0}
    said = problem(game=compares, dataset=BLURRED, content=PATCHES, **both)
    assert "content: the discriminator, _PatchGAN, shows no features" in said
    said = problem(game=compares, dataset=BLURRED, **both)
    assert "perceptual: compares the features of the network [content], which is not there; add one, such as" in said
    other = {"dataset": BLURRED, "source": {"name": "photographs", "size": 16, "stride": 64}}
    keeps = {"name": "cyclegan", "identity": 1.0}
    assert "identity: is 1.0, and the images of [source], (3, 16, 16), have another shape" in problem(
        game=keeps, **other, **both
    )
    assert "source: its images are (3, 16, 16); expected the shape of those of [dataset], (1, 16, 16)" in problem(
        game="cut", **other, **both
    )
    said = problem(game="cut", **{"dataset": BLURRED, "source": SOURCE, "generator": {"name": "unet", "channels": 2}})
    assert "shows no features of its encoder" in said


def test_images_with_conditions_are_not_augmented_for_their_discriminator() -> None:
    """The condition images would have to be changed alike; without `conditional` it judges images alone."""
    options: dict[str, Any] = {"dataset": BLURRED, "generator": {"name": "unet", "channels": 4}}
    options |= {"discriminator": PATCHES, "augmentation": [{"name": "flip"}]}
    line = r"^augmentation: it would change images .* leave it out, or set conditional = false in \[game\]$"
    with pytest.raises(ComponentError, match=line):
        take_step(training_of(game="pix2pix", **options), 0)
    take_step(training_of(game={"name": "pix2pix", "conditional": False}, **options), 0)


def test_a_network_that_the_options_leave_out_is_named() -> None:
    given: dict[str, Any] = {"game": "pix2pix", "dataset": BLURRED, "generator": {"name": "unet", "channels": 2}}
    content = {"name": "vgg", "layers": 2, "channels": 4}
    with pytest.warns(UserWarning, match="content: the game 'pix2pix' leaves this network out with its other options"):
        training_of(**given, discriminator=PATCHES, content=content)
    with pytest.warns(UserWarning, match="discriminator: the game 'pix2pix' leaves this network out") as warned:
        training_of(**{**given, "game": {"name": "pix2pix", "adversarial": 0.0}}, discriminator=PATCHES)
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training_of(**{**given, "game": {"name": "pix2pix", "adversarial": 0.0}})  # with the default discriminator
        games = {"name": "pix2pix", "adversarial": 0.0, "perceptual": 1.0}
        training_of(**{**given, "game": games}, content=content)


def test_domains_of_other_channels_are_translated() -> None:
    """CycleGAN from colour to grey, of other sizes."""
    training = training_of(
        game="cyclegan",
        dataset=BLURRED,
        source={"name": "photographs", "size": 8, "stride": 32},
        generator={**TRANSLATOR, "halvings": 1},
        discriminator={**PATCHES},
    )
    take_step(training, 0)
    made = training.game.networks["generator_ab"](NO_LATENT, torch.rand(8, 3, 8, 8))
    assert made.shape == (8, 1, 16, 16)
