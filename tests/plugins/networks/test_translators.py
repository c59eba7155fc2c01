"""U-Net, the residual translator and PatchGAN, against the figures of the papers and the authors' parameter counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganlab import ComponentError, ImageSpec
from ganlab_plugins.networks.patchgan import PatchGAN
from ganlab_plugins.networks.resnet_translator import ResnetTranslator
from ganlab_plugins.networks.unet import UNet

PAIRS = ImageSpec(3, 256, 256, None, (3, 256, 256))
NO_LATENT = torch.zeros(2, 0)


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


@pytest.mark.parametrize(
    ("config", "images", "published"),
    [
        (UNet(), PAIRS, 54.414),
        (ResnetTranslator(blocks=9), PAIRS, 11.378),
        (PatchGAN(), PAIRS, 2.769),
        (PatchGAN(norm="instance"), ImageSpec(3, 256, 256), 2.765),
    ],
    ids=["unet", "resnet_translator", "patchgan, conditional", "patchgan"],
)
def test_the_number_of_parameters_that_the_authors_code_prints(
    config: UNet | ResnetTranslator | PatchGAN, images: ImageSpec, published: float
) -> None:
    """Up to the biases of layers with a norm, which are left out here, and the gains of instance norm."""
    assert millions(config.build(images)) == pytest.approx(published, abs=0.006)


SIZES = [(32, 32), (33, 21), (28, 28), (12, 9), (8, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_any_height_and_width(size: tuple[int, int]) -> None:
    """Also for a trained network: an image of another size."""
    images = ImageSpec(3, *size, None, (1, *size))
    for config in (UNet(channels=4), ResnetTranslator(channels=4, blocks=1)):
        network = config.build(images).eval()
        assert network(NO_LATENT, torch.randn(2, 1, *size)).shape == (2, 3, *size)
        assert network(NO_LATENT, torch.randn(2, 1, 45, 64)).shape == (2, 3, 45, 64)


def test_smaller_conditions_are_enlarged_by_the_factor_of_the_data() -> None:
    images = ImageSpec(3, 32, 32, None, (3, 8, 16))
    for config in (UNet(channels=4), ResnetTranslator(channels=4, blocks=1)):
        network = config.build(images).eval()
        assert network(NO_LATENT, torch.randn(2, 3, 8, 16)).shape == (2, 3, 32, 32)
        assert network(NO_LATENT, torch.randn(2, 3, 10, 24)).shape == (2, 3, 40, 48)
    judged = PatchGAN(channels=4, halvings=1).build(images)
    assert judged(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 8, 16)).shape == (2, 1, 14, 14)


@pytest.mark.parametrize(("halvings", "side"), [(0, 1), (1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_the_papers_size(halvings: int, side: int) -> None:
    """Section 4.4 of pix2pix: patches of 1, 16 and 70 pixels. The gradient of a logit is zero outside of its patch."""
    network = PatchGAN(channels=2, halvings=halvings, norm="none").build(ImageSpec(1, 128, 128)).double()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)
    images = torch.ones(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    logits = network(images, None)
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], images)
    rows, columns = gradient[0, 0].nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side


def test_latents_and_conditions_change_what_is_made_and_judged() -> None:
    images = ImageSpec(1, 16, 16, None, (1, 16, 16))
    condition = torch.randn(2, 1, 16, 16)
    for config in (UNet(channels=4, latent_dim=3), ResnetTranslator(channels=4, blocks=1, latent_dim=3)):
        network = config.build(images).eval()
        assert network.latent_dim == 3
        assert not torch.equal(network(torch.zeros(2, 3), condition), network(torch.ones(2, 3), condition))
    judge = PatchGAN(channels=4, halvings=1).build(images).eval()
    assert not torch.equal(judge(condition, condition), judge(condition, -condition))


def test_a_residual_is_added_to_the_enlarged_condition() -> None:
    network = UNet(channels=4, residual=True, latent_dim=2).build(ImageSpec(3, 32, 32, None, (1, 16, 16))).eval()
    nn.init.zeros_(network.up[-1].enlarge.weight)
    condition = torch.rand(2, 1, 16, 16)
    enlarged = nn.functional.interpolate(condition, (32, 32), mode="bicubic")
    assert torch.allclose(network(torch.ones(2, 2), condition), enlarged.expand(-1, 3, -1, -1))
    filled = UNet(channels=4, residual=True).build(ImageSpec(3, 32, 32, None, (4, 32, 32))).eval()
    holed = torch.ones(2, 4, 32, 32)
    holed[:, -1, 8:16, 4:12] = -1
    made = filled(torch.ones(2, 0), holed)
    opaque = (holed[:, -1:] > 0).expand_as(made)
    assert torch.equal(made[opaque], holed[:, :3][opaque])
    assert (made[~opaque] != 1).all()
    with pytest.raises(ComponentError, match="conditions with 3 channels cannot be added to images with 1"):
        UNet(residual=True).build(ImageSpec(1, 32, 32, None, (3, 32, 32)))


def test_the_noise_of_pix2pix_is_dropout_in_the_three_innermost_layers_on_the_way_up() -> None:
    network = UNet(channels=2).build(PAIRS)
    with_dropout = [any(isinstance(m, nn.Dropout) for m in up.modules()) for up in network.up]
    assert with_dropout == [True, True, True, False, False, False, False, False]
    norms = [any(isinstance(m, nn.BatchNorm2d) for m in down.modules()) for down in network.down]
    assert norms == [False, True, True, True, True, True, True, False]


def test_the_encoder_of_the_residual_translator_shows_what_it_computes() -> None:
    network = ResnetTranslator(channels=4, blocks=4).build(ImageSpec(3, 32, 32, None, (3, 32, 32))).eval()
    condition = torch.randn(2, 3, 32, 32)
    features = network(NO_LATENT, condition, True)
    assert [maps.shape[1] for maps in features] == list(network.feature_channels)
    assert [maps.shape[2] for maps in features] == [32, 16, 8, 8, 8]
    assert torch.equal(features[0], condition)
    seen: list[torch.Tensor] = []
    network.blocks[1].register_forward_hook(lambda module, given, output: seen.append(output))
    network(NO_LATENT, condition)
    assert torch.equal(seen[0], features[-1])


def test_what_does_not_fit_is_refused() -> None:
    pair = ImageSpec(3, 32, 32, None, (3, 32, 32))
    with pytest.raises(ComponentError, match="unet translates images: it needs images as conditions"):
        UNet().build(ImageSpec(3, 32, 32))
    with pytest.raises(ComponentError, match="unet: depth: images of 32x32 can be halved 5 times, not 6"):
        UNet(depth=6).build(pair)
    with pytest.raises(
        ComponentError, match=r"resnet_translator needs images of at least 32x32 pixels .* here they are 8"
    ):
        ResnetTranslator(halvings=4).build(ImageSpec(3, 8, 8, None, (3, 8, 8)))
    with pytest.raises(ComponentError, match=r"patchgan needs images of at least 24x24 pixels with halvings = 3"):
        PatchGAN().build(ImageSpec(1, 8, 8))
    attributes = ImageSpec(3, 32, 32, None, (5,), condition_dtype="float32")
    for config in (UNet(), ResnetTranslator()):
        with pytest.raises(ComponentError, match="translates images: it needs images as conditions"):
            config.build(attributes)
    with pytest.raises(ComponentError, match=r"judges images and their condition images; here conditions are \(5,\)"):
        PatchGAN().build(attributes)
    with pytest.raises(ComponentError, match="patchgan judges images and their conditions"):
        PatchGAN().build(pair)(torch.zeros(1, 3, 32, 32), None)
    with pytest.raises(ComponentError, match="resnet_translator translates images: it was called without"):
        ResnetTranslator(channels=2, blocks=1).build(pair)(NO_LATENT, torch.tensor([1, 2]))


def test_what_ends_in_a_tanh_refuses_data_outside_of_its_range() -> None:
    """A residual is added to a condition, without a tanh."""
    wide, within = (
        ImageSpec(1, 16, 16, None, (1, 16, 16), dtype="float32", condition_dtype="float32", range=limits)
        for limits in ((-1.0, 3.0), (-0.5, 1.0))
    )
    for name, config in (("unet", UNet(channels=2)), ("resnet_translator", ResnetTranslator(channels=2, blocks=1))):
        with pytest.raises(
            ComponentError, match=rf"^{name} makes values in \[-1, 1\], and the data set's are from -1 to 3"
        ):
            config.build(wide)
        config.build(within)
    condition = torch.full((2, 1, 16, 16), 3.0)
    network = UNet(channels=2, residual=True).build(wide).eval()
    nn.init.zeros_(network.up[-1].enlarge.weight)
    assert torch.equal(network(NO_LATENT, condition), condition)
