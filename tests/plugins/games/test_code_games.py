"""VAE/GAN, AAE, BiGAN and InfoGAN: each step held against the papers' equations, written as a plain loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from games_by_hand import LR, STEPS, assert_same, descend, problem, training_of
from ganlab import ComponentError
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampling import sample_inputs
from ganlab.training.loop import Training, take_step

DIGITS = {"name": "digits"}
NETWORKS: dict[str, Any] = {
    "dataset": DIGITS,
    "generator": {"name": "mlp", "latent_dim": 6, "hidden": [12]},
    "discriminator": {"name": "mlp", "hidden": [12]},
}
ENCODER = {"encoder": {"name": "mlp_encoder", "hidden": [12]}}
NO_NOISE = torch.zeros(8, 0)


def truth(logits: Tensor, target: float) -> Tensor:
    return cross_entropy(logits, torch.full_like(logits, target))


def weighted(real: Tensor, *fakes: Tensor) -> Tensor:
    return truth(real, 1.0) + torch.stack([truth(fake, 0.0) for fake in fakes]).mean()


def images_of(training: Training, step: int) -> Tensor:
    """The images of a step; the random numbers are those that the step will draw."""
    torch.manual_seed(step)
    return training.loader.batch(step).images


def take(training: Training, step: int) -> None:
    torch.manual_seed(step)
    take_step(training, step)


def features(discriminator: nn.Module, images: Tensor) -> Tensor:
    """What the last layer of the fully connected discriminator is given."""
    layers: Any = discriminator.layers
    seen: Tensor = layers[:-1](images.flatten(1))
    return seen


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("options", [{}, {"gamma": 0.3, "prior": 0.5}], ids=str)
def test_vae_gan_by_hand(options: dict[str, float], augmented: bool) -> None:
    """Algorithm 1, each network by its own loss; torch's own divergence of normal distributions.

    Images are augmented, here by a flip of each, for the adversarial losses, and not for the error of features.
    """
    flip = [{"name": "flip", "probability": 1.0}] if augmented else []
    training = training_of(game={"name": "vae_gan", **options}, augmentation=flip, **NETWORKS, **ENCODER)
    nets = copy.deepcopy(dict(training.game.networks))
    decode, encode, judge = (nets[name] for name in ("generator", "encoder", "discriminator"))
    gamma, weight = options.get("gamma", 0.01), options.get("prior", 1.0)

    def logits(images: Tensor) -> Tensor:
        judged: Tensor = judge(images.flip(3) if augmented else images)
        return judged

    for step in range(STEPS):
        real = images_of(training, step)
        torch.randn(8, 0)
        mean, log_variance = encode(NO_NOISE, real).chunk(2, 1)
        z = mean + log_variance.exp().sqrt() * torch.randn(8, 6)
        drawn = torch.randn(8, 6)
        divergence = kl_divergence(
            Independent(Normal(mean, log_variance.exp().sqrt()), 1),
            Independent(Normal(torch.zeros(6), torch.ones(6)), 1),
        ).mean()
        again, sample = decode(z, None), decode(drawn, None)
        descend(weighted(logits(real), logits(again.detach()), logits(sample.detach())), judge)
        error = 0.5 * (features(judge, again) - features(judge, real).detach()).square().sum(1).mean()
        fooled = 0.5 * (truth(logits(again), 1.0) + truth(logits(sample), 1.0))
        of_decoder = torch.autograd.grad(gamma * error + fooled, list(decode.parameters()), retain_graph=True)
        descend(weight * divergence + error, encode)
        for parameter, gradient in zip(decode.parameters(), of_decoder, strict=True):
            parameter.data -= LR * gradient
        take(training, step)
    assert_same(training, nets)


@pytest.mark.parametrize("options", [{}, {"deviation": 3.0, "adversarial": 0.2}], ids=str)
def test_aae_by_hand(options: dict[str, float]) -> None:
    training = training_of(game={"name": "aae", **options}, **NETWORKS, **ENCODER)
    nets = copy.deepcopy(dict(training.game.networks))
    decode, encode, judge = (nets[name] for name in ("generator", "encoder", "discriminator"))
    assert judge(torch.zeros(2, 6)).shape == (2,)
    deviation, weight = options.get("deviation", 1.0), options.get("adversarial", 1.0)
    for step in range(STEPS):
        real = images_of(training, step)
        descend((decode(encode(NO_NOISE, real)) - real).square().mean(), encode, decode)
        descend(weighted(judge(deviation * torch.randn(8, 6)), judge(encode(NO_NOISE, real).detach())), judge)
        descend(weight * truth(judge(encode(NO_NOISE, real)), 1.0), encode)
        take(training, step)
    assert_same(training, nets)
    made = training.game.rules.sampler.images(training.game.networks, torch.ones(2, 6), None)
    assert torch.equal(made, training.game.networks["generator"](deviation * torch.ones(2, 6)))


def test_bigan_by_hand() -> None:
    joint = {"name": "mlp_joint", "hidden": [12]}
    training = training_of(game="bigan", **{**NETWORKS, "discriminator": joint}, **ENCODER)
    nets = copy.deepcopy(dict(training.game.networks))
    make, encode, judge = (nets[name] for name in ("generator", "encoder", "discriminator"))

    def logits(images: Tensor, z: Tensor) -> Tensor:
        layers: Any = judge.layers
        found: Tensor = layers(torch.cat([images.reshape(8, 64), z], 1))[:, 0]
        return found

    for step in range(STEPS):
        real = images_of(training, step)
        z = torch.randn(8, 6)
        descend(weighted(logits(real, encode(NO_NOISE, real).detach()), logits(make(z).detach(), z)), judge)
        z = torch.randn(8, 6)
        descend(truth(logits(make(z), z), 1.0) + truth(logits(real, encode(NO_NOISE, real)), 0.0), make, encode)
        take(training, step)
    assert_same(training, nets)


def test_infogan_by_hand() -> None:
    """With two categorical codes; a normal distribution's likelihood is torch's own, without its constant."""
    options = {"categories": [3, 2], "continuous": 1, "categorical_weight": 0.7, "continuous_weight": 0.3}
    options |= {"noise": 0.1, "hidden": 5, "norm": "layer"}
    wide = {"generator": {"name": "mlp", "latent_dim": 9, "hidden": [12]}}
    training = training_of(game={"name": "infogan", **options}, **{**NETWORKS, **wide})
    nets = copy.deepcopy(dict(training.game.networks))
    make, judge, head = (nets[name] for name in ("generator", "discriminator", "head"))

    def latents() -> Tensor:
        noise = torch.randn(8, 3)
        first, second = torch.randint(3, (8,)), torch.randint(2, (8,))
        value = 2 * torch.rand(8, 1) - 1
        return torch.cat([torch.eye(3)[first], torch.eye(2)[second], value, 0.1 * noise], 1)

    def information(images: Tensor, z: Tensor) -> Tensor:
        found = head(features(judge, images))
        loss = nn.functional.cross_entropy
        categorical = loss(found[:, :3], z[:, :3].argmax(1)) + loss(found[:, 3:5], z[:, 3:5].argmax(1))
        likelihood = Normal(found[:, 5], 1.0).log_prob(z[:, 5]) + 0.5 * torch.tensor(2 * torch.pi).log()
        return 0.7 * categorical - 0.3 * likelihood.mean()

    for step in range(STEPS):
        real = images_of(training, step)
        z = latents()
        fake = make(z).detach()
        descend(weighted(judge(real), judge(fake)) + information(fake, z), judge, head)
        z = latents()
        fake = make(z)
        descend(truth(judge(fake), 1.0) + information(fake, z), make)
        take(training, step)
    assert_same(training, nets)
    found = training.game.rules.outputs["category_logits"](nets, real, None)
    torch.testing.assert_close(found, head(features(judge, real))[:, :3])


def test_the_codes_of_infogans_samples() -> None:
    """Drawn ones are as frequent as each other; "categories" has them in turn; an option sets them."""
    wide = {"generator": {"name": "mlp", "latent_dim": 9, "hidden": [12]}}
    training = training_of(game={"name": "infogan", "categories": [4, 2], "continuous": 2}, **{**NETWORKS, **wide})
    networks, rules = training.game.networks, training.game.rules
    z = rules.sampler.latents(networks, 4000, torch.Generator().manual_seed(0), None)
    assert z.shape == (4000, 9)
    torch.testing.assert_close(z[:, :6].mean(0), torch.tensor([0.25] * 4 + [0.5] * 2), atol=0.03, rtol=0)
    assert torch.equal(z[:, :4].sum(1), torch.ones(4000))
    assert 0.95 < z[:, 6:8].abs().max() <= 1
    torch.testing.assert_close(z[:, 6:8].var(0), torch.tensor([1 / 3] * 2), atol=0.02, rtol=0)
    in_turn = rules.samplers["categories"].latents(networks, 10, torch.Generator().manual_seed(0), None)
    assert in_turn[:, :4].argmax(1).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert torch.equal(in_turn[0, 4:], in_turn[3, 4:])
    assert not torch.equal(in_turn[0, 4:], in_turn[4, 4:])
    drawn = sample_inputs(NetworkSampler(rules.samplers["categories"], networks), 300, seed=0)
    assert [int(z[:4].argmax()) for part, _ in drawn for z in part] == [0, 1, 2, 3] * 75
    chosen = rules.sampler.images(networks, in_turn, None, category=2)
    torch.testing.assert_close(chosen[0], networks["generator"](in_turn[2:3])[0])
    assert torch.equal(rules.sampler.images(networks, in_turn, None, category=-1), networks["generator"](in_turn))
    with pytest.raises(ComponentError, match=r"category: 4; expected 0 to 3, or -1"):
        rules.sampler.images(networks, in_turn, None, category=4)


@pytest.mark.parametrize("game", ["vae_gan", "aae", "bigan"])
def test_a_reconstruction_is_what_is_made_of_the_code(game: str) -> None:
    """Also that of the sampler; the game sees no labels, and noise of the encoder is left out."""
    noisy = {"encoder": {**ENCODER["encoder"], "latent_dim": 3}}
    networks = {**NETWORKS, **({"discriminator": {"name": "mlp_joint", "hidden": [4]}} if game == "bigan" else {})}
    training = training_of(game=game, **networks, **noisy)
    nets, rules = training.game.networks, training.game.rules
    images = torch.rand(5, 1, 8, 8)
    made = rules.outputs["reconstruction"](nets, images, torch.zeros(5, dtype=torch.int64))
    code = nets["encoder"](torch.zeros(5, 3), images)
    assert torch.equal(made, nets["generator"](code[:, :6]))
    sampler = rules.samplers["reconstruction"]
    assert sampler.source == "dataset"
    assert torch.equal(sampler.images(nets, torch.zeros(5, 0), images), made)


def test_what_does_not_fit_is_refused() -> None:
    assert "latent_dim is 6; the codes alone have 12 values: categories = [10], continuous = 2" in problem(
        game="infogan", **NETWORKS
    )
    bare = {"name": "patchgan", "channels": 2, "halvings": 1}
    for game in ("infogan", "vae_gan"):
        said = problem(game=game, **{**NETWORKS, "discriminator": bare, "generator": {"name": "mlp", "latent_dim": 20}})
        assert "the discriminator, _PatchGAN, shows no features of its last hidden layer" in said
        assert "use 'mlp', 'dcgan' or 'vgg'" in said
    said = problem(game="aae", **{**NETWORKS, "generator": {"name": "conditional"}}, **ENCODER)
    assert "a conditional generator needs" in said
    assert "categories" in problem(game={"name": "infogan", "categories": []}, **NETWORKS)
    assert "gamma" in problem(game={"name": "vae_gan", "gamma": 0.0}, **NETWORKS)
