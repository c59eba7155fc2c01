"""CTGAN: rows of a table, conditional on a category of one of its columns (Xu et al. 2019, arXiv:1907.00503)."""

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Generator(nn.Module):
    """From latents and the discrete columns of rows to rows, of which one discrete column is as in these."""

    def __init__(self, sizes: list[int], discrete: list[int], latent_dim: int, width: int, temperature: float) -> None:
        super().__init__()
        self.sizes, self.discrete, self.latent_dim, self.temperature = sizes, discrete, latent_dim, temperature
        given = latent_dim + sum(discrete)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(given + n * width, width), nn.LayerNorm(width), nn.ReLU()) for n in range(2)
        )
        self.last = nn.Linear(given + 2 * width, sum(sizes))

    def draw(self, count: int, random: torch.Generator | None, device: torch.device) -> Tensor:
        """Latents, and Gumbel noise for the choice of a column and for each value of a row, in one tensor."""
        z = torch.empty(count, self.latent_dim, device=device).normal_(generator=random)
        noise = torch.empty(count, len(self.discrete) + sum(self.sizes), device=device).exponential_(generator=random)
        return torch.cat([z, -noise.log()], 1)

    def choose(self, noise: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """The condition (N, categories of all columns), one-hot: the category of the column that is chosen."""
        often = torch.stack([part.sum(1) for part in columns.values()], 1).clamp(min=1e-20)
        chosen = nn.functional.one_hot((often.log() + noise).argmax(1), len(columns))
        return torch.cat([(part > 0) * chosen[:, n : n + 1] for n, part in enumerate(columns.values())], 1).float()

    def forward(self, drawn: Tensor, columns: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns rows (N, D), what they were before the last activation, and the condition."""
        z, choice, noise = drawn.split([self.latent_dim, len(self.discrete), sum(self.sizes)], 1)
        condition = self.choose(choice, columns)
        x = torch.cat([z, condition], 1)
        for layer in self.layers:
            x = torch.cat([layer(x), x], 1)
        raw = self.last(x)
        made = []
        for part, gumbel in zip(raw.split(self.sizes, 1), noise.split(self.sizes, 1), strict=True):
            softmax = ((part + gumbel) / self.temperature).softmax(1)
            made.append(torch.tanh(part) if part.shape[1] == 1 else softmax)
        return torch.cat(made, 1), raw, condition

    def mistakes(self, raw: Tensor, condition: Tensor) -> Tensor:
        """The cross-entropy of the chosen column of generated rows, from what `forward` returns."""
        own = raw[:, -sum(self.discrete) :].split(self.discrete, 1)
        chosen = condition.split(self.discrete, 1)
        parts = [(wanted * part.log_softmax(1)).sum(1) for part, wanted in zip(own, chosen, strict=True)]
        return -torch.stack(parts).sum(0).mean()


class Critic(nn.Module):
    """From `pac` rows with their conditions at a time (PacGAN) to one number (N / pac,)."""

    def __init__(self, given: int, pac: int, width: int) -> None:
        super().__init__()
        self.pac = pac
        self.layers = nn.Sequential(nn.Linear(given * pac, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def forward(self, rows: Tensor, condition: Tensor) -> Tensor:
        return self.layers(torch.cat([rows, condition], 1).view(len(rows) // self.pac, -1)).squeeze(1)


@frozen
class CTGAN:
    """A Wasserstein GAN of tables: continuous columns first, each a value and its mode, then discrete ones, one-hot.

    Discrete columns are the conditions of `[dataset]`, by name and one-hot, times how often each is to be chosen.

    continuous: how many continuous columns there are.
    pac: how many rows are judged at a time; it must divide the batch size.
    penalty: the factor of the gradient penalty.
    temperature: of the Gumbel softmax.
    latent_dim: size of the latent.
    width: units of the hidden layers.
    """

    continuous: int = field(default=1, validator=ge(1))
    pac: int = field(default=4, validator=ge(1))
    penalty: float = field(default=10.0, validator=ge(0))
    temperature: float = field(default=0.2, validator=gt(0))
    latent_dim: int = field(default=128, validator=ge(1))
    width: int = field(default=256, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        table, discrete = data.images, [spec.shape[0] for spec in data.images.conditions.values()]
        each, left = divmod(table.size - sum(discrete), self.continuous)
        if len(table.shape) != 1 or not discrete or left or each < 3:
            what = f"{self.continuous} continuous columns with two modes or more, and discrete ones as conditions"
            raise ganlab.ComponentError(f"is of {what}; the data set has {table.in_words}")
        sizes, given = [1, each - 1] * self.continuous + discrete, table.size + sum(discrete)
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(
                    lambda: Generator(sizes, discrete, self.latent_dim, self.width, self.temperature)
                ),
                "critic": ganlab.Network(lambda: Critic(given, self.pac, self.width)),
            },
            moves=[
                ganlab.Move("critic", players=("critic",), terms=self.criticise),
                ganlab.Move("generator", players=("generator",), terms=self.generate),
            ],
            sampler=ganlab.Sampler(
                networks=("generator",),
                images=lambda networks, drawn, columns: networks["generator"](drawn, columns)[0],
                latents=lambda networks, n, random, _: networks["generator"].draw(n, random, torch.device("cpu")),
            ),
        )

    def made(self, turn: ganlab.Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Generated rows, what they were before the activation, and the conditions that real rows have too."""
        draw, device = turn.networks["generator"].draw, turn.real.device
        drawn = turn.draw(lambda count, random: draw(count, random, device))
        rows, raw, condition = turn.forward("generator", drawn, turn.condition)
        return rows.float(), raw.float(), condition

    def criticise(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        with torch.no_grad():
            fake, _, condition = self.made(turn)
        real, made = (turn.forward("critic", rows, condition).float().mean() for rows in (turn.real, fake))
        share = turn.draw(lambda n, random: torch.rand(n, 1, device=fake.device, generator=random))
        between = turn.real.lerp(fake, share).requires_grad_()
        value = turn.networks["critic"](between, condition).sum()
        (slope,) = torch.autograd.grad(value, between, create_graph=True)
        norms = slope.reshape(len(slope) // self.pac, -1).norm(dim=1)
        return {"distance": made - real, "penalty": self.penalty * (norms - 1).square().mean()}

    def generate(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        rows, raw, condition = self.made(turn)
        distance = -turn.forward("critic", rows, condition).float().mean()
        return {"distance": distance, "condition": turn.networks["generator"].mistakes(raw, condition)}


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("ctgan", CTGAN)
