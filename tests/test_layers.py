"""Building blocks of networks, each against a definition: loops, NumPy's singular values, torch's own norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ganlab import (
    ClassHead,
    ComponentError,
    ConditionalBatchNorm2d,
    ImageSpec,
    Judged,
    Layers,
    MinibatchStdDev,
    SelfAttention2d,
    norm_layer,
    spectrally_normed,
)

MAPS = torch.randn(12, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def test_conditional_batch_norm_is_batch_norm_with_each_classs_gain_and_bias() -> None:
    conditional, plain = ConditionalBatchNorm2d(8, 3), nn.BatchNorm2d(8)
    labels = torch.arange(12) % 3
    torch.testing.assert_close(conditional(MAPS, labels), plain(MAPS))
    with torch.no_grad():
        conditional.gain.weight.normal_()
        conditional.bias.weight.normal_()
    made = conditional(MAPS, labels)
    normed = plain(MAPS)
    for number, label in enumerate(labels):
        gain, bias = conditional.gain.weight[label], conditional.bias.weight[label]
        torch.testing.assert_close(made[number], normed[number] * gain[:, None, None] + bias[:, None, None])


def test_layers_hand_the_condition_to_those_that_take_it() -> None:
    layers = Layers(nn.Conv2d(8, 8, 1), ConditionalBatchNorm2d(8, 3), nn.ReLU())
    assert layers(MAPS, torch.arange(12) % 3).shape == MAPS.shape
    plain = Layers(nn.Conv2d(8, 8, 1), nn.ReLU())
    assert torch.equal(plain(MAPS, None), nn.Sequential(*plain)(MAPS))


def test_the_norms() -> None:
    """Mean 0 and variance 1: of an image, of each of its channels, of a channel over all images."""
    for name, over in (("layer", (1, 2, 3)), ("instance", (2, 3)), ("batch", (0, 2, 3))):
        made = norm_layer(name, 8, 2)(MAPS)  # type: ignore[arg-type]
        assert made.mean(over).abs().max() < 1e-5
        assert (made.var(over, unbiased=False) - 1).abs().max() < 1e-3
    assert norm_layer("layer", 8, 0)(MAPS.mean((2, 3))).mean(1).abs().max() < 1e-5
    assert isinstance(norm_layer("none", 8, 2), nn.Identity)
    with pytest.raises(ComponentError, match="a row has none"):
        norm_layer("instance", 8, 0)


def test_spectrally_normed_weights_have_norm_1() -> None:
    """By NumPy's singular values; a transposed convolution's rows are its outputs."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 6, 3), nn.ConvTranspose2d(6, 5, 2), nn.Flatten(), nn.Linear(45, 7)]
    network = spectrally_normed(nn.Sequential(*layers))
    for _ in range(60):
        network(MAPS)
    network.eval()
    for layer, rows in ((layers[0], 0), (layers[1], 1), (layers[3], 0)):
        weight = np.moveaxis(layer.weight.detach().numpy(), rows, 0)  # type: ignore[union-attr]
        norms = np.linalg.svd(weight.reshape(len(weight), -1), compute_uv=False)
        assert norms[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("count", "group"), [(12, 4), (7, 7), (6, 3), (1, 1)])
def test_minibatch_deviation_by_loops(count: int, group: int) -> None:
    """Groups are of 4, or of the largest number below that divides the batch; their members lie a stride apart."""
    asked = {12: 4, 7: 8, 6: 4, 1: 4}[count]
    made = MinibatchStdDev(asked)(MAPS[:count])
    assert torch.equal(made[:, :8], MAPS[:count])
    stride = count // group
    for number in range(count):
        members = MAPS[:count].numpy()[number % stride :: stride]
        assert len(members) == group
        expected = np.sqrt(members.astype(np.float64).var(0) + 1e-8).mean()
        np.testing.assert_allclose(made[number, 8].numpy(), expected, rtol=1e-5)


def test_self_attention_by_loops() -> None:
    torch.manual_seed(1)
    attention = SelfAttention2d(8).double()
    maps = MAPS[:2].double()
    assert torch.equal(attention(maps), maps), "nothing at first"
    attention.gain.data.fill_(0.7)
    made = attention(maps)
    for image, got in zip(maps, made, strict=True):

        def projected(conv: nn.Conv2d, x: torch.Tensor = image) -> np.ndarray:
            return np.einsum("oc,chw->ohw", conv.weight.detach().numpy()[:, :, 0, 0], x.numpy())

        query = projected(attention.query)
        key, value = (
            projected(conv).reshape(-1, 2, 2, 2, 2).max((2, 4)).reshape(-1, 4)
            for conv in (attention.key, attention.value)
        )
        attended = np.zeros((4, 4, 4))
        for y in range(4):
            for x in range(4):
                scores = query[:, y, x] @ key
                weights = np.exp(scores - scores.max())
                attended[:, y, x] = value @ (weights / weights.sum())
        out = np.einsum("oc,chw->ohw", attention.out.weight.detach().numpy()[:, :, 0, 0], attended)
        np.testing.assert_allclose(got.detach().numpy(), image.numpy() + 0.7 * out, rtol=1e-10)


def test_class_heads() -> None:
    images = ImageSpec(1, 4, 4, classes=3)
    features, logits, labels = torch.randn(5, 6), torch.randn(5), torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(ClassHead("plain", 6, images)(features, logits, labels), logits)
    projection = ClassHead("projection", 6, images)
    expected = [logits[n] + features[n] @ projection.classes.weight[labels[n]] for n in range(5)]
    torch.testing.assert_close(projection(features, logits, labels), torch.stack(expected))
    told = ClassHead("class_logits", 6, images)(features, logits, labels)
    assert isinstance(told, Judged)
    assert torch.equal(told.logits, logits)
    assert told.class_logits.shape == (5, 3)
    with pytest.raises(ComponentError, match='head = "projection" needs class labels'):
        ClassHead("projection", 6, ImageSpec(1, 4, 4))
