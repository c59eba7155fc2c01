"""Top-k training: the generator learns from its best images only (Sinha et al. 2020, arXiv:2002.06224)."""

import torch
from attrs import field, frozen
from attrs.validators import gt, le
from torch import Tensor
from torch.nn.functional import softplus

import ganlab


@frozen
class TopK:
    """A GAN whose generator's loss is that of the images of a batch that the discriminator finds most real.

    generator: the network that generates images.
    discriminator: the network that tells real from generated images.
    loss: the discriminator's loss; the generator's is the non-saturating one.
    share: which share of the batch the generator learns from. In the paper it falls from 1 to 0.5 or 0.75, which a
        schedule of `game.share` does.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    share: float = field(default=0.75, validator=[gt(0), le(1)])

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={"generator": self.generator, "discriminator": self.discriminator},
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.generate),
            ],
            sampler=ganlab.sampler_of("generator"),
        )

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        return turn.forward("generator", z, turn.condition).float()

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        output = turn.forward("discriminator", turn.augment(images), turn.condition)
        return turn.gather(ganlab.logits_per_image(output).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = self.fake(turn)
        real_logits, fake_logits = self.logits(turn, turn.real), self.logits(turn, fake)
        turn.show("discriminator", fake=fake, real_logits=real_logits, fake_logits=fake_logits, generator="generator")
        return self.loss.discriminator(real_logits, fake_logits)

    def generate(self, turn: ganlab.Turn) -> Tensor:
        # The best of the whole batch, of all processes. They are weighted, since their number may change in each step.
        best_first = self.logits(turn, self.fake(turn)).sort(descending=True).values
        ranks = torch.arange(len(best_first), device=best_first.device)
        weights = (ranks == 0) | (ranks + 1 <= self.share * len(best_first))
        return (softplus(-best_first) * weights).sum() / weights.sum()


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("topk", TopK)
