"""PixelDA: its steps held against the paper's equations as a plain loop, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from games_by_hand import STEPS, assert_same, descend, problem, training_of
from ganlab.training.loop import take_step

DIGITS = {"name": "digits", "size": 8}
BLENDED = {"name": "blended", "dataset": DIGITS, "over": {"name": "photographs", "size": 8, "stride": 32}}
TRANSLATOR = {"name": "resnet_translator", "channels": 4, "blocks": 1, "halvings": 0, "norm": "none"}
NETWORKS = {
    "generator": TRANSLATOR,
    "discriminator": {"name": "patchgan", "channels": 4, "halvings": 1, "norm": "none"},
}


def adversarial(logits: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def pixelda(**options: Any) -> dict[str, Any]:
    return {"name": "pixelda", "channels": 8, "dropout": 0.0, **options}


@pytest.mark.parametrize("options", [{}, {"adversarial": 0.3, "task": 2.0}], ids=str)
def test_pixelda_by_hand(options: dict[str, Any]) -> None:
    """Equations 2 to 4, with labels of the source alone; the networks have no batch norm, so all see both domains."""
    training = training_of(game=pixelda(**options), dataset=BLENDED, source=DIGITS, **NETWORKS, loss="bce")
    nets = copy.deepcopy(dict(training.game.networks))
    generator, judge, classifier = (nets[name] for name in ("generator", "discriminator", "classifier"))
    alpha, beta = options.get("adversarial", 1.0), options.get("task", 1.0)
    for step in range(STEPS):
        batch = training.loader.batch(step)
        source = batch.streams["source"]
        labels = source.condition
        assert isinstance(labels, Tensor)
        fake = generator(torch.zeros(len(labels), 0), source.images)
        assert fake.shape == batch.images.shape
        grey = torch.cat([source.images] * 3, 1)
        errors = cross_entropy(classifier(grey), labels) + cross_entropy(classifier(fake.detach()), labels)
        judged = adversarial(judge(batch.images), 1.0) + adversarial(judge(fake.detach()), 0.0)
        descend(judged + beta * errors / 2, judge, classifier)
        descend(alpha * adversarial(judge(fake), 1.0) + beta * cross_entropy(classifier(fake), labels), generator)
        take_step(training, step)
    assert_same(training, nets)


def test_the_classifier_alone_learns_from_the_source() -> None:
    training = training_of(game=pixelda(adapt=False), dataset=BLENDED, source=DIGITS)
    assert set(training.game.networks) == {"classifier"}
    nets = copy.deepcopy(dict(training.game.networks))
    for step in range(STEPS):
        source = training.loader.batch(step).streams["source"]
        assert isinstance(source.condition, Tensor)
        descend(cross_entropy(nets["classifier"](source.images.repeat(1, 3, 1, 1)), source.condition), *nets.values())
        take_step(training, step)
    assert_same(training, nets)
    assert training.game.rules.sampler is None


def test_what_pixelda_cannot_learn_from_is_refused() -> None:
    unlabelled = {"name": "degraded", "dataset": DIGITS, "blur": 1.0}
    assert "[source] must have class labels, as 'digits' has" in problem(
        game=pixelda(), dataset=BLENDED, source=unlabelled, **NETWORKS
    )
    larger = {"name": "digits", "size": 16}
    assert "source: its images are (1, 16, 16); expected the shape of those of [dataset], (3, 8, 8), or" in problem(
        game=pixelda(), dataset=BLENDED, source=larger, **NETWORKS
    )
    assert "expected the shape of those of [dataset], (1, 8, 8)" in problem(
        game=pixelda(), dataset=DIGITS, source=BLENDED, **NETWORKS
    )


def test_latents_become_maps_of_the_training_size() -> None:
    generator = {**TRANSLATOR, "latent_dim": 3, "latent_maps": 2}
    training = training_of(game=pixelda(), dataset=BLENDED, source=DIGITS, **{**NETWORKS, "generator": generator})
    network = training.game.networks["generator"]
    z, images = torch.randn(2, 3), torch.rand(2, 1, 8, 8)
    maps = network.given.of_latents[0](z).view(2, 2, 8, 8)  # type: ignore[union-attr, index, operator]
    assert torch.equal(network.given(z, images), torch.cat([images, maps], 1))  # type: ignore[operator]
    assert "latent_maps: 1 with latent_dim = 0" in problem(
        game=pixelda(), dataset=BLENDED, source=DIGITS, **{**NETWORKS, "generator": {**TRANSLATOR, "latent_maps": 1}}
    )
