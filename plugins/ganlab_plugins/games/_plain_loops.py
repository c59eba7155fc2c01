"""Plain loops of the games pix2pix and cyclegan, as one would write them by hand, for `ganlab bench` to compare with.

Decisions:
- They do the arithmetic of the games' moves and nothing else: no meters, no checks, no named terms.
- A network that is not trained is frozen, and real and fake images pass a discriminator in one batch where it declares
  `batch_independent`, since ganlab does so too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlab import Batch, Condition, batch_independent, generator_uses_real

if TYPE_CHECKING:
    from ganlab_plugins.games.cyclegan import CycleGAN
    from ganlab_plugins.games.pix2pix import Pix2Pix

Optimizers = Mapping[str, torch.optim.Optimizer]


def pix2pix_step(
    game: Pix2Pix, networks: Mapping[str, Any], optimizers: Optimizers, next_batch: Callable[[], Batch]
) -> Callable[[], None]:
    """A step of pix2pix as a plain loop."""
    generator, judge, content = networks["generator"], networks.get("discriminator"), networks.get("content")

    def step() -> None:
        batch = next_batch()
        real, given = batch.images, batch.condition if game.conditional else None
        fake = generator(_latents(generator, real), batch.condition).float()
        if judge is not None:
            judged = game.loss.discriminator(*_both(judge, real, fake.detach(), given))
            _descend(0.5 * judged, optimizers["discriminator"])
        total = game.absolute * (fake - real).abs().mean()
        if judge is not None:
            judge.requires_grad_(False)
            total = total + game.adversarial * _fooled(game.loss, judge, real, fake, given)
        if content is not None:
            with torch.no_grad():
                wanted = content(real, None, True)[1]
            total = total + game.perceptual * (content(fake, None, True)[1] - wanted).square().mean()
        _descend(total, optimizers["generator"])
        if judge is not None:
            judge.requires_grad_(True)

    return step


def cyclegan_step(
    game: CycleGAN, networks: Mapping[str, Any], optimizers: Optimizers, next_batch: Callable[[], Batch]
) -> Callable[[], None]:
    """A step of CycleGAN as a plain loop."""
    pools: dict[str, Tensor] = {}

    def step() -> None:
        batch = next_batch()
        real, fakes = {"a": batch.streams["source"].images, "b": batch.images}, {}
        total = real["a"].new_zeros(())
        for name in "ab":
            networks[f"discriminator_{name}"].requires_grad_(False)
        for of, to in (("a", "b"), ("b", "a")):
            there, back = networks[f"generator_{of}{to}"], networks[f"generator_{to}{of}"]
            fake = there(_latents(there, real[of]), real[of]).float()
            again = back(_latents(back, fake), fake).float()
            total = total + _fooled(game.loss, networks[f"discriminator_{to}"], real[to], fake, None)
            total = total + game.cycle * (again - real[of]).abs().mean()
            if game.identity:
                same = there(_latents(there, real[to]), real[to]).float()
                total = total + game.identity * (same - real[to]).abs().mean()
            fakes[to] = fake.detach()
        _descend(total, optimizers["generator_ab"], optimizers["generator_ba"])
        total = real["a"].new_zeros(())
        for name in "ba":
            judge = networks[f"discriminator_{name}"].requires_grad_(True)
            pools[name], earlier = _exchanged(pools.get(name, fakes[name][:0]), fakes[name], game.pool)
            total = total + 0.5 * game.loss.discriminator(*_both(judge, real[name], earlier, None))
        _descend(total, optimizers["discriminator_a"], optimizers["discriminator_b"])

    return step


def _latents(generator: Any, images: Tensor) -> Tensor:
    return torch.randn(len(images), generator.latent_dim, device=images.device)


def _both(judge: nn.Module, real: Tensor, fake: Tensor, given: Condition) -> tuple[Tensor, Tensor]:
    """The logits of real and fake images in a plain loop."""
    if not batch_independent(judge):
        return judge(real, given).float(), judge(fake, given).float()
    twice = None if given is None else torch.cat([given, given])  # type: ignore[list-item]
    on_real, on_fake = judge(torch.cat([real, fake]), twice).float().chunk(2)
    return on_real, on_fake


def _fooled(loss: Any, judge: nn.Module, real: Tensor, fake: Tensor, given: Condition) -> Tensor:
    """The adversarial loss of a generator in a plain loop."""
    on_fake = judge(fake, given).float()
    with torch.no_grad():
        on_real = judge(real, given).float() if generator_uses_real(loss) else torch.zeros_like(on_fake)
    found: Tensor = loss.generator(on_real, on_fake)
    return found


def _exchanged(pool: Tensor, fake: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A pool of generated images in a plain loop, and the images to judge: half of them are earlier ones."""
    if len(pool) < size:
        return torch.cat([pool, fake])[:size], fake
    place = torch.randperm(size, device=fake.device)[: len(fake)]
    change = (torch.rand(len(place), device=fake.device) < 0.5).view(-1, 1, 1, 1)
    latest, old = fake[: len(place)], pool[place]
    pool[place] = torch.where(change, latest, old)
    return pool, torch.cat([torch.where(change, old, latest), fake[len(place) :]])


def _descend(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
