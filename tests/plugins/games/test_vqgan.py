"""VQGAN: its steps held against the paper's equations as a plain loop; its codebook against torch's distances."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from games_by_hand import assert_same, descend, problem, training_of
from ganlab import Codebook
from ganlab.training.loop import take_step

DIGITS = {"name": "digits", "size": 8}
JUDGE = {"name": "patchgan", "channels": 4, "halvings": 1, "norm": "none"}
SMALL = {"name": "vqgan", "codes": 8, "dim": 3, "channels": 4, "blocks": 1, "halvings": 1}


def test_a_codebook_is_the_nearest_code_and_gradients_pass_through() -> None:
    torch.manual_seed(0)
    codebook = Codebook(7, 3)
    vectors = torch.randn(2, 3, 4, 5, requires_grad=True)
    rows = vectors.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    wanted = torch.cdist(rows, codebook.codes).argmin(1)
    assert torch.equal(codebook.nearest(vectors).flatten(), wanted)
    quantised, loss = codebook(vectors, 0.5)
    torch.testing.assert_close(quantised.permute(0, 2, 3, 1).reshape(-1, 3), codebook.codes[wanted])
    weights = torch.randn_like(vectors)
    assert torch.equal(torch.autograd.grad((quantised * weights).sum(), vectors, retain_graph=True)[0], weights)
    distance = rows - codebook.codes[wanted]
    assert loss.item() == pytest.approx(1.5 * float(distance.square().mean()), rel=1e-5)
    to_vectors, to_codes = torch.autograd.grad(loss, (vectors, codebook.codes))
    moved = 2 * distance / distance.numel()
    torch.testing.assert_close(to_vectors.permute(0, 2, 3, 1).reshape(-1, 3), 0.5 * moved)
    torch.testing.assert_close(to_codes, torch.zeros(7, 3).index_add(0, wanted, -moved))


def test_a_network_called_as_another_games_table_has_options_of_its_own() -> None:
    """`encoder`, which a function makes here, is a table of the game `aae`."""
    own = {"encoder": {"optimizer": {"lr": 0.125}, "clip_norm": 2.0}}
    training = training_of(game=SMALL, dataset=DIGITS, discriminator=JUDGE, **own)
    player = training.game.players["encoder"]
    assert (player.optimizer.param_groups[0]["lr"], player.clip_norm) == (0.125, 2.0)


def test_vqgan_by_hand() -> None:
    """With a discriminator from the second step on: equations 4 to 7, and hinge losses."""
    training = training_of(game={**SMALL, "start": 1}, dataset=DIGITS, discriminator=JUDGE, loss="hinge")
    nets: dict[str, Any] = copy.deepcopy(dict(training.game.networks))
    encoder, codebook, decoder, judge = (nets[name] for name in ("encoder", "codebook", "decoder", "discriminator"))
    for step in range(2):
        real = training.loader.batch(step).images
        vectors = encoder(real)
        codes = codebook.codes[torch.cdist(vectors.movedim(1, -1).flatten(0, 2), codebook.codes).argmin(1)]
        codes = codes.view(8, 4, 4, 3).movedim(-1, 1)
        fake = decoder(vectors + (codes - vectors).detach())
        error, fooled = l1_loss(fake, real), -judge(fake).mean()
        lengths = [
            torch.autograd.grad(term, decoder.last.weight, retain_graph=True)[0].norm() for term in (error, fooled)
        ]
        loss = error + mse_loss(codes, vectors.detach()) + 0.25 * mse_loss(vectors, codes.detach())
        if step:
            loss = loss + 0.8 * lengths[0] / (lengths[1] + 1e-4) * fooled
        made = fake.detach()
        descend(loss, encoder, codebook, decoder)
        if step:
            descend(0.5 * ((1 - judge(real)).relu().mean() + (1 + judge(made)).relu().mean()), judge)
        take_step(training, step)
    assert_same(training, nets)
    images: Tensor = real
    found = training.game.rules.outputs["codes"](training.game.networks, images, None)
    assert found.shape == (8, 4, 4)
    assert found.dtype == torch.int64


def test_sides_that_cannot_be_halved_are_refused() -> None:
    said = problem(game={**SMALL, "halvings": 2}, dataset={"name": "digits", "size": 10}, discriminator=JUDGE)
    assert "sides are divisible by 4 with halvings = 2; here they are 10x10" in said
