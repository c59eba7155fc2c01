"""InfoGAN: latent codes that are recovered from the images that they make (Chen et al. 2016, arXiv:1606.03657).

A latent is categorical and continuous codes c and noise z. A network Q finds the codes in G(z, c), and both maximise
the likelihood of the codes under Q, a lower bound of the mutual information I(c; G(z, c)) (equation 5). What a code
means is never said: on handwritten digits a categorical code finds the classes.

Decisions:
- Q shares all layers of the discriminator but the last (section 6): it is a head of the discriminator's features, which
  moves with it, on both losses; the generator moves on both too.
- Q says of a categorical code the probabilities, and of a continuous one, uniform in [-1, 1], the mean of a normal
  distribution of variance 1, as in the authors' code for MNIST.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs
import torch
from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, gt, le, min_len
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ganlab import (
    ComponentError,
    Condition,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Sampler,
    Turn,
    component,
    generator_uses_real,
    hookimpl,
    latent_dim_of,
    latents,
    logits_per_image,
    norm_layer,
)
from ganlab_plugins.games._adversary import generated
from ganlab_plugins.games._codes import (
    feature_shape,
    judged,
    judged_with_features,
    log_probabilities,
    with_features,
    without_conditions,
)

MOST_IN_TURN = 1024
"""Of at most how many values of a code the sampler `categories` draws all in turn."""


class _Head(nn.Module):
    """Q: from features (N, …) of the discriminator to logits of the categorical codes, and the continuous codes."""

    def __init__(self, features: int, config: InfoGAN) -> None:
        super().__init__()
        hidden = config.hidden
        norm = [] if config.norm == "none" else [norm_layer(config.norm, hidden, 0)]
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(features, hidden), *norm, nn.LeakyReLU(0.1), nn.Linear(hidden, config.codes)
        )

    def forward(self, features: Tensor) -> Tensor:
        codes: Tensor = self.layers(features)
        return codes


@frozen
class InfoGAN:
    """A GAN whose latents have codes, which a head of the discriminator recovers from generated images.

    generator: the network that generates images; its latents are the categorical codes, the continuous ones, and noise.
    discriminator: the network that judges images: `mlp`, `dcgan`, or another one that has `feature_shape`, and returns
        its logits and these features where its third argument is True.
    loss: the adversarial loss.
    categories: how many values each categorical code has.
    continuous: how many continuous codes there are.
    categorical_weight, continuous_weight: factors of the codes' negative log likelihoods.
    noise: standard deviation of the noise; with 0.1 the codes outweigh it, as in ClusterGAN (arXiv:1809.03627).
    hidden: units of the hidden layer of the head.
    norm: of the hidden layer of the head; the paper's is "batch".
    """

    generator: NetworkConfig = component("generator")
    discriminator: NetworkConfig = component("discriminator")
    loss: Loss = component("loss", default="bce")
    categories: tuple[int, ...] = field(default=(10,), validator=[min_len(1), deep_iterable(and_(ge(2), le(2**16)))])
    continuous: int = field(default=2, validator=[ge(0), le(2**16)])
    categorical_weight: float = field(default=1.0, validator=[ge(0), le(1e9)])
    continuous_weight: float = field(default=0.1, validator=[ge(0), le(1e9)])
    noise: float = field(default=1.0, validator=[gt(0), le(1e3)])
    hidden: int = field(default=128, validator=[ge(1), le(2**16)])
    norm: Literal["none", "batch", "layer"] = "none"

    def build(self, data: DataSpec) -> Rules:
        images, play = without_conditions(data.images), _Play(self, data.images.shape)
        drawn = Sampler(("generator",), self._images, self._latents, options={"category": -1})
        values = self.categories[0]
        period = values if values <= MOST_IN_TURN else 1
        return Rules(
            networks={
                "generator": Network(self.generator, images=images),
                "discriminator": with_features(self.discriminator, images),
                "head": Network(self._head, given=("generator", "discriminator"), table="discriminator"),
            },
            moves=[
                Move("discriminator", players=("discriminator", "head"), terms=play.discriminate),
                Move("generator", players=("generator",), terms=play.generate),
            ],
            sampler=drawn,
            samplers={"categories": attrs.evolve(drawn, latents=self._in_turn, period=period)},
            judge=_judge,
            loss=self.loss,
            outputs={"category_logits": self._category_logits},
        )

    @property
    def codes(self) -> int:
        """How many values of a latent of InfoGAN are codes."""
        return sum(self.categories) + self.continuous

    def _head(self, generator: nn.Module, discriminator: nn.Module) -> nn.Module:
        if latent_dim_of(generator) < self.codes:
            raise ComponentError(
                f"the generator's latent_dim is {latent_dim_of(generator)}; the codes alone have {self.codes} values: "
                f"categories = {list(self.categories)}, continuous = {self.continuous}"
            )
        return _Head(math.prod(feature_shape(discriminator)), self)

    def coded(self, noise: Tensor, random: torch.Generator | None) -> Tensor:
        """Latents (n, latent_dim) of InfoGAN: categorical codes, vectors with a single 1, continuous codes, noise."""
        count, device = len(noise), noise.device
        drawn = [torch.randint(size, (count,), device=device, generator=random) for size in self.categories]
        categorical = [one_hot(code, size).float() for code, size in zip(drawn, self.categories, strict=True)]
        continuous = 2 * torch.rand(count, self.continuous, device=device, generator=random) - 1
        return torch.cat([*categorical, continuous, self.noise * noise], 1)

    def _latents(
        self, networks: Mapping[str, nn.Module], count: int, random: torch.Generator, truncation: float | None
    ) -> Tensor:
        """Latents with codes that are drawn."""
        size = latent_dim_of(networks["generator"]) - self.codes
        return self.coded(latents(count, size, random, truncation), random)

    def _in_turn(
        self, networks: Mapping[str, nn.Module], count: int, random: torch.Generator, truncation: float | None
    ) -> Tensor:
        """Latents with all values of the first categorical code in turn, and everything else equal among these."""
        values = self.categories[0]
        z = self._latents(networks, math.ceil(count / values), random, truncation).repeat_interleave(values, 0)[:count]
        return _with_category(z, torch.arange(count) % values, values)

    def _images(self, networks: Mapping[str, nn.Module], z: Tensor, condition: Condition, category: int) -> Tensor:
        """Images of latents; `category` is the value of the first categorical code, -1 for that of the latents."""
        if not -1 <= category < self.categories[0]:
            raise ComponentError(f"category: {category}; expected 0 to {self.categories[0] - 1}, or -1 for all of them")
        if category >= 0:
            z = _with_category(z, torch.full((len(z),), category, device=z.device), self.categories[0])
        made: Tensor = networks["generator"](z, None)
        return made

    def _category_logits(self, networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
        """What Q says of the first categorical code of images, (n, categories)."""
        _, features = networks["discriminator"](images, None, True)
        found: Tensor = networks["head"](features)[:, : self.categories[0]]
        return found


def _with_category(z: Tensor, category: Tensor, values: int) -> Tensor:
    return torch.cat([one_hot(category, values).to(z.dtype), z[:, values:]], 1)


@frozen
class _Play:
    """The two moves."""

    game: InfoGAN
    shape: tuple[int, ...]

    def discriminate(self, turn: Turn) -> dict[str, Tensor]:
        z = self.latents(turn)
        with torch.no_grad():
            fake, _ = generated(turn, self.shape, None, latents=z)
        real_logits, (fake_logits, features) = judged(turn, turn.real), judged_with_features(turn, fake)
        log_probabilities(turn, real_logits, fake_logits)
        turn.show("discriminator", fake=fake, latents=z, generator="generator")
        adversarial = self.game.loss.discriminator(real_logits, fake_logits)
        return {"adversarial": adversarial, **self.information(turn, features, z)}

    def generate(self, turn: Turn) -> dict[str, Tensor]:
        fake, z = generated(turn, self.shape, None, latents=self.latents(turn))
        fake_logits, features = judged_with_features(turn, fake)
        real_logits = torch.zeros_like(fake_logits)
        if generator_uses_real(self.game.loss):
            with torch.no_grad():
                real_logits = judged(turn, turn.real)
        turn.show("generator", fake=fake, latents=z, judge="discriminator")
        adversarial = self.game.loss.generator(real_logits, fake_logits)
        return {"adversarial": adversarial, **self.information(turn, features, z)}

    def latents(self, turn: Turn) -> Tensor:
        size, device = latent_dim_of(turn.networks["generator"]) - self.game.codes, turn.real.device
        return turn.draw(
            lambda count, random: self.game.coded(torch.randn(count, size, device=device, generator=random), random)
        )

    def information(self, turn: Turn, features: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The negative log likelihood of the codes under Q."""
        sizes = [*self.game.categories, self.game.continuous]
        *logits, means = turn.forward("head", features).float().split(sizes, 1)
        *codes, values = z[:, : self.game.codes].split(sizes, 1)
        categorical = [-(code * found.log_softmax(1)).sum(1).mean() for code, found in zip(codes, logits, strict=True)]
        return {
            "categorical": self.game.categorical_weight * torch.stack(categorical).sum(),
            "continuous": self.game.continuous_weight * 0.5 * (values - means).square().sum(1).mean(),
        }


def _judge(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    return logits_per_image(networks["discriminator"](images, None))


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("infogan", InfoGAN)
