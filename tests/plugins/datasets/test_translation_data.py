"""Data sets for translation: glyphs against matplotlib's own, photographs and degradations against Pillow and scipy.

Blended digits are searched for among all that could have been made of them.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.ndimage
import torch
from attrs import evolve, frozen
from matplotlib.ft2font import FT2Font
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_image

from ganlab import ComponentError, ImageDataset, Places
from ganlab_plugins.datasets import glyphs
from ganlab_plugins.datasets.blended import Blended
from ganlab_plugins.datasets.degraded import Degraded
from ganlab_plugins.datasets.digits import Digits
from ganlab_plugins.datasets.glyphs import Glyphs
from ganlab_plugins.datasets.image_pairs import ImagePairs, Unpaired
from ganlab_plugins.datasets.photographs import Photographs
from image_files import noise, save

# Glyphs ---------------------------------------------------------------------------------------------------------------


def ink(picture: np.ndarray) -> np.ndarray:
    """The part of a picture within the bounds of its ink, at 48x48 pixels, in [0, 1]."""
    rows, columns = np.nonzero(picture > 127)
    cropped = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return np.asarray(Image.fromarray(cropped).resize((48, 48), Image.Resampling.BILINEAR)) / 255


def by_matplotlib(font: str, character: str) -> np.ndarray:
    face = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"))
    face.set_size(100, 72)
    face.set_text(character)
    face.draw_glyphs_to_bitmap()
    return np.asarray(face.get_image())


def test_a_pair_is_one_character_in_two_fonts(places: Places) -> None:
    dataset = Glyphs(size=64).build(places, "test")
    characters = glyphs._characters(("DejaVuSans", "DejaVuSerif"))
    test = sorted(glyphs._held_out(characters, 0.1, 0))
    assert len(dataset.images) == len(test)
    plain = [c for c in test if unicodedata.decomposition(c) == "" and c.isalpha()]
    for character in plain[::12]:
        index = test.index(character)
        for font, other, images in (
            ("DejaVuSerif", "DejaVuSans", dataset.images),
            ("DejaVuSans", "DejaVuSerif", dataset.condition),
        ):
            assert images is not None
            found = ink(images[index, 0].numpy())
            right, wrong = (np.abs(found - ink(by_matplotlib(name, character))).mean() for name in (font, other))
            assert right < 0.1, (font, character)
            assert right < wrong, (font, character)


def test_no_letter_is_in_both_splits_and_no_two_pairs_are_alike() -> None:
    characters = glyphs._characters(("DejaVuSans", "DejaVuSerif"))
    test = glyphs._held_out(characters, 0.1, 0)
    assert 0.08 * len(characters) < len(test) <= 0.1 * len(characters) + 1
    bases = [{unicodedata.normalize("NFD", c)[0] for c in part} for part in (set(characters) - test, test)]
    assert not bases[0] & bases[1]
    assert {"A", "\u0434"} <= set(characters), "Latin and Cyrillic"
    assert "\u0391" not in characters, "a Greek A looks like A"
    assert test != glyphs._held_out(characters, 0.1, 1)


def test_glyphs_of_several_fonts_have_their_font_as_label(places: Places) -> None:
    both = Glyphs(size=8, others=("DejaVuSans",), condition="none").build(places, "test")
    pair = Glyphs(size=8).build(places, "test")
    for label, images in enumerate((pair.images, pair.condition)):
        assert images is not None
        assert torch.equal(both.images[both.condition == label], images)
    with pytest.raises(
        ComponentError, match=r"held_out: 0.9999 of \d+ characters leaves none to a split; expected from"
    ):
        Glyphs(held_out=0.9999).build(places, "train")
    with pytest.raises(ValueError, match=r'others: .* set condition = "none"'):
        Glyphs(others=("DejaVuSans",))
    with pytest.raises(ValueError, match="others: DejaVuSerif is there twice"):
        Glyphs(others=("DejaVuSerif",), condition="none")


def test_glyphs_of_exchanged_fonts_are_partners_in_the_same_order(places: Places) -> None:
    one = Glyphs(size=16).build(places, "test")
    other = Glyphs(size=16, font="DejaVuSans", condition="DejaVuSerif").build(places, "test")
    assert one.condition is not None
    assert other.condition is not None
    assert torch.equal(one.images, other.condition)
    assert torch.equal(one.condition, other.images)
    assert (one.images.flatten(1) > 0).any(1).all()
    alone = Glyphs(size=16, condition="none").build(places, "test")
    assert alone.condition is None
    with pytest.raises(ComponentError, match="no split 'valid'"):
        Glyphs().build(places, "valid")


# Photographs ----------------------------------------------------------------------------------------------------------


def test_patches_are_cut_from_their_region(places: Places) -> None:
    config = Photographs(("flower", "china"), size=40, stride=50, held_out=0.3, contrast=0)
    train, test = (config.build(places, split) for split in ("train", "test"))
    flower = load_sample_image("flower.jpg").transpose(2, 0, 1)
    assert np.array_equal(train.images[0].numpy(), flower[:, :40, :40])
    assert np.array_equal(train.images[9].numpy(), flower[:, 50:90, :40]), "448 - 40 pixels: nine patches a row"
    assert np.array_equal(test.images[0].numpy(), flower[:, :40, 448:488])
    assert train.classes == ("flower", "china")
    assert train.condition is not None
    assert train.condition.bincount().tolist() == [9 * 8, 9 * 8]
    assert len(test.images) == 2 * 4 * 8
    varied = evolve(config, contrast=30.0).build(places, "train").images
    stds = train.images.numpy().astype(float).mean(1).std((1, 2))
    assert np.array_equal(varied.numpy(), train.images.numpy()[stds >= 30])
    assert 0 < len(varied) < len(train.images)
    middle = evolve(config, photographs=("flower",), held_out_from=0.5)
    train, test = (middle.build(places, split) for split in ("train", "test"))
    assert np.array_equal(test.images[0].numpy(), flower[:, :40, 320:360])
    assert np.array_equal(train.images[6 * 8].numpy(), flower[:, :40, 512:552]), "320 pixels: six patches a row"
    assert (len(train.images), len(test.images)) == ((6 + 2) * 8, 4 * 8)


def test_photographs_are_made_smaller_by_averages(places: Places) -> None:
    found = Photographs(("china",), size=16, shrink=7, contrast=0).build(places, "train").images[0]
    pixels = load_sample_image("china.jpg")[: 16 * 7, : 16 * 7].astype(float)
    wanted = pixels.reshape(16, 7, 16, 7, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(found.numpy() - wanted).max() <= 1


def test_regions_too_small_and_patches_too_many_are_refused(places: Places) -> None:
    line = "0.2 leaves 32 of 160 columns of china to the test split; wanted 64 for a patch, so held_out from 0.5"
    with pytest.raises(ComponentError, match=line):  # 0.5 of grace_hopper's 128 columns
        Photographs(size=64, shrink=4, held_out=0.2).build(places, "train")
    assert len(Photographs(size=64, shrink=4, held_out=0.5).build(places, "test").images)
    with pytest.raises(ComponentError, match=r"leaves 32 of 640 columns of china to the training .* to 0.8"):
        Photographs(size=64, held_out=0.95).build(places, "test")
    with pytest.raises(ComponentError, match="size: china has 92x61 pixels with shrink = 7; wanted at least 64x64"):
        Photographs(size=64, shrink=7).build(places, "train")
    with pytest.raises(ValueError, match=r"held_out_from: 0.8 and held_out = 0.25 go beyond the right edge"):
        Photographs(held_out_from=0.8)
    with pytest.raises(ComponentError, match="contrast: no test patch has 120 levels or more"):
        Photographs(contrast=120).build(places, "test")
    with pytest.raises(ComponentError, match=r"stride: 1 gives .* patches of 128x128, .* GB; wanted at most 2 GB"):
        Photographs(size=128, stride=1).build(places, "train")


# Degraded -------------------------------------------------------------------------------------------------------------

PATCHES = Photographs(("flower",), size=32, stride=64)


def pixels_of(places: Places, config: Degraded) -> tuple[np.ndarray, np.ndarray]:
    """The images and the conditions of a degraded data set."""
    dataset = config.build(places, "train")
    assert dataset.condition is not None
    return dataset.images.numpy(), dataset.condition.numpy()


@pytest.mark.parametrize("by", [2, 4])
def test_smaller_images_are_those_of_pillow(by: int, places: Places) -> None:
    images, smaller = pixels_of(places, Degraded(PATCHES, smaller=by))
    size = (32 // by, 32 // by)
    wanted = [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).resize(size, Image.Resampling.BICUBIC)) for p in images]
    assert np.abs(smaller.astype(int) - np.stack(wanted).transpose(0, 3, 1, 2)).max() <= 2


def test_grey_images_are_those_of_pillow(places: Places) -> None:
    images, grey = pixels_of(places, Degraded(PATCHES, grey=True))
    wanted = np.stack([np.asarray(Image.fromarray(p.transpose(1, 2, 0)).convert("L")) for p in images])
    assert grey.shape == (len(images), 1, 32, 32)
    assert np.abs(grey[:, 0].astype(int) - wanted).max() <= 1


def test_blurred_images_are_those_of_scipy(places: Places) -> None:
    images, blurred = pixels_of(places, Degraded(PATCHES, blur=1.5))
    wanted = scipy.ndimage.gaussian_filter(images.astype(float), (0, 0, 1.5, 1.5), mode="nearest", truncate=4)
    assert np.abs(blurred - wanted).max() <= 0.51


def test_a_hole_is_a_rectangle_at_a_random_place(places: Places) -> None:
    images, holed = pixels_of(places, Degraded(PATCHES, hole=0.25))
    places_of = []
    for image, hole in zip(images, holed, strict=True):
        rows, columns = np.nonzero((image != hole).any(0))
        top, left = rows.min(), columns.min()
        assert rows.max() - top < 8
        assert columns.max() - left < 8
        places_of.append((top, left))
        assert (hole[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 128).all()
    assert len(set(places_of)) > len(images) / 2
    with_alpha = pixels_of(places, Degraded(PATCHES, hole=0.25, alpha=True))[1]
    assert np.array_equal(with_alpha[:, :3], holed)
    assert (np.where((images != holed).any(1), with_alpha[:, 3], 0) == 0).all()
    assert ((with_alpha[:, 3] == 0).sum((1, 2)) == 64).all()
    assert set(np.unique(with_alpha[:, 3])) == {0, 255}
    filled = pixels_of(places, Degraded(PATCHES, hole=0.25, filled="border"))[1]
    for image, fill, opaque in zip(images, filled, with_alpha[:, 3] > 0, strict=True):
        border = scipy.ndimage.binary_dilation(~opaque, np.ones((3, 3))) & opaque
        assert np.abs(fill[:, ~opaque] - image[:, border].mean(1)[:, None]).max() <= 0.51


def test_noise_has_its_deviation_and_is_of_a_split_and_a_seed(places: Places) -> None:
    config = Degraded(Digits(size=32), noise=5.0)
    images, noisy = pixels_of(places, config)
    inner = (images > 30) & (images < 225)
    assert (noisy.astype(float) - images)[inner].std() == pytest.approx((25 + 1 / 12) ** 0.5, rel=0.02)
    assert np.array_equal(noisy, pixels_of(places, config)[1])
    assert not np.array_equal(noisy, pixels_of(places, evolve(config, seed=1))[1])


def test_degradations_combine(places: Places) -> None:
    images, small = pixels_of(places, Degraded(PATCHES, grey=True, smaller=2, noise=20))
    assert small.shape == (len(images), 1, 16, 16)


@frozen
class Given:
    """A data set of 4 given entries, drawn by the weights 0 to 3."""

    values: torch.Tensor

    def build(self, places: Places, split: str) -> ImageDataset:
        return ImageDataset(self.values, "given", split, weights=torch.arange(4.0))


def test_degraded_images_are_drawn_as_often_as_the_originals(places: Places) -> None:
    given = Given(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    weights = Degraded(given, blur=1.0).build(places, "train").weights
    assert weights is not None
    assert weights.tolist() == [0, 1, 2, 3]


def test_what_cannot_be_degraded_is_refused(places: Places) -> None:
    with pytest.raises(ValueError, match="nothing is degraded; set blur, smaller, grey, hole or noise"):
        Degraded(PATCHES)
    with pytest.raises(ValueError, match="alpha is for holes, and hole = 0"):
        Degraded(PATCHES, blur=1.0, alpha=True)
    with pytest.raises(ComponentError, match="grey: the images of digits have 1 channels; wanted 3"):
        Degraded(Digits(), grey=True).build(places, "train")
    with pytest.raises(ComponentError, match="smaller: 3 does not divide the size of the images of photographs, 32x32"):
        Degraded(PATCHES, smaller=3).build(places, "train")
    for values, told in (
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint16), r"torch.uint16 \(4, 1, 8, 8\)"),
        (torch.zeros(4, 1, 8, 8), r"torch.float32 \(4, 1, 8, 8\)"),
        (torch.zeros(4, 8, dtype=torch.uint8), r"torch.uint8 \(4, 8\)"),
    ):
        with pytest.raises(ComponentError, match=rf"^degraded: given has {told}; wanted uint8 images \(N, C, H, W\)$"):
            Degraded(Given(values), blur=1.0).build(places, "train")
    with pytest.raises(
        ComponentError, match=r"^hole: 0\.95 of 8x8 pixels leaves no border to fill it with; set a smaller"
    ):
        Degraded(Digits(), hole=0.95, filled="border").build(places, "train")
    assert (pixels_of(places, Degraded(Digits(), hole=0.95))[1] == 128).all()
    wide = Given(torch.full((4, 1, 8, 40), 7, dtype=torch.uint8))
    assert (pixels_of(places, Degraded(wide, hole=0.95, filled="border"))[1] == 7).all(), "two columns are left"


# Blended --------------------------------------------------------------------------------------------------------------


def possible(digit: np.ndarray, ground: np.ndarray) -> set[bytes]:
    """All blended images of a digit (1, 8, 8) and crops of pictures (n, 3, H, W)."""
    crops = np.lib.stride_tricks.sliding_window_view(ground.astype(int), (8, 8), (2, 3)).swapaxes(1, 3)
    return {one.tobytes() for one in np.abs(crops.reshape(-1, 3, 8, 8) - digit.astype(int)).astype(np.uint8)}


def test_a_blended_digit_differs_from_a_patch_of_its_own_split(places: Places) -> None:
    over = Photographs(size=10, stride=40, contrast=0)
    config = Blended(Digits(), over, seed=3)
    ground = {split: over.build(places, split).images.numpy() for split in ("train", "test")}
    assert not {patch.tobytes() for patch in ground["train"]} & {patch.tobytes() for patch in ground["test"]}
    for split in ("train", "test"):
        found, digits = config.build(places, split), Digits().build(places, split)
        assert found.condition is digits.condition or torch.equal(found.condition, digits.condition)  # type: ignore[arg-type]
        assert found.classes == digits.classes
        seen = set()
        for index in range(0, len(digits.images), 20):
            blended = found.images[index].numpy().tobytes()
            assert blended in possible(digits.images[index].numpy(), ground[split])
            seen.add(blended)
        assert len(seen) > 10
    again, other = config.build(places, "test"), evolve(config, seed=4).build(places, "test")
    assert torch.equal(again.images, found.images)
    assert not torch.equal(other.images, found.images)
    more = evolve(config, patches=3).build(places, "test")
    first, second, third = more.images.chunk(3)
    assert torch.equal(first, found.images)
    assert torch.equal(more.condition, torch.cat([digits.condition] * 3))  # type: ignore[arg-type,list-item]
    for index in range(0, len(second), 50):
        assert second[index].numpy().tobytes() in possible(digits.images[index].numpy(), ground["test"])
    assert not torch.equal(second, first)
    assert not torch.equal(third, second)


def test_what_cannot_be_blended_is_refused(places: Places) -> None:
    with pytest.raises(ComponentError, match=r"over: the images of photographs, 32x32, are smaller .* digits, 40x40"):
        Blended(Digits(size=40), Photographs(stride=64)).build(places, "train")
    with pytest.raises(ComponentError, match="images of photographs have 3 channels and those of digits 1; wanted as"):
        Blended(Photographs(size=8, stride=64), Digits()).build(places, "train")


# Pairs of files -------------------------------------------------------------------------------------------------------


def test_halves_of_pictures_are_pairs(places: Places, folder: Path) -> None:
    pictures = np.stack([save(folder / f"{name}.png", noise(8, 16, 3)) for name in "ab"]).transpose(0, 3, 1, 2)
    left, right = pictures[..., :8], pictures[..., 8:]
    for half, images, conditions in (("right", right, left), ("left", left, right)):
        found = ImagePairs("set", half=half, size=8).build(places, "train")  # type: ignore[arg-type]
        assert found.condition is not None
        assert np.array_equal(found.images.numpy(), images)
        assert np.array_equal(found.condition.numpy(), conditions)
    grey = ImagePairs("set", size=4, condition_channels=1).build(places, "train")
    assert grey.condition is not None
    assert (grey.images.shape[1:], grey.condition.shape[1:]) == ((3, 4, 4), (1, 4, 4))


def test_files_of_equal_names_are_pairs(places: Places, folder: Path) -> None:
    names = ("b/2.png", "a.png", "b/10.png")
    images = {name: save(folder / name, noise(6, 8, 3)) for name in names}
    conditions = {name: save(places.data / "other" / name.replace("png", "bmp"), noise(3, 4, 3)) for name in names}
    config = ImagePairs("set", "other", size="original")
    found = config.build(places, "train")
    assert found.condition is not None
    for index, name in enumerate(sorted(names)):
        assert np.array_equal(found.images[index].permute(1, 2, 0).numpy(), images[name])
        assert np.array_equal(found.condition[index].permute(1, 2, 0).numpy(), conditions[name])
    test = evolve(config, test_path="other", test_condition_path="set").build(places, "test")
    assert torch.equal(test.images, found.condition)
    with pytest.raises(ComponentError, match=r"there is no test split; set dataset\.test_path"):
        config.build(places, "test")
    (folder / "a.heic").touch()
    (places.data / "other" / "a.heic").touch()
    with pytest.warns(UserWarning, match=r"image_pairs: left out 1 of 4 files in .*: 1 \.heic") as told:
        assert config.build(places, "train").left_out == {".heic": 2}
    assert [str(warning.message).partition(" files in ")[2].partition(",")[0] for warning in told] == [
        str(folder),
        str(places.data / "other"),
    ]


def test_a_pair_is_compared_upright(places: Places, folder: Path) -> None:
    """Pillow exchanges the sides of a TIFF file when it opens it, and those of a JPEG file later."""
    upright = np.full((30, 20, 3), 7, np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees
    for name in ("a.tif", "b.jpg"):
        save(places.data / "other" / f"{name[0]}.png", upright)
        Image.fromarray(upright.transpose(1, 0, 2)).save(folder / name, exif=exif)
    assert len(ImagePairs("set", "other", size=8).build(places, "train").images) == 2


def test_pairs_that_do_not_match_are_refused(places: Places, folder: Path) -> None:
    other = places.data / "other"
    for name in ("1.png", "2.png", "3.png"):
        save(folder / name)
    save(other / "1.png")
    config = ImagePairs("set", "other", size=8)
    with pytest.raises(ComponentError) as caught:
        config.build(places, "train")
    assert str(caught.value) == (
        f"image_pairs: {folder} has 3 images and {other} 1; there is no partner of 2.png, 3.png, which are in set alone"
    )
    save(other / "2.jpg", noise(8, 16, 3))
    save(other / "3.png")
    with pytest.raises(ComponentError, match=r"set/2\.png has 8x8 pixels and its condition .*other/2\.jpg 16x8"):
        config.build(places, "train")
    save(other / "2.png")
    with pytest.raises(ComponentError, match=r"other: 2\.jpg and 2\.png have one name; remove one"):
        config.build(places, "train")


def test_a_folder_in_neither_form_is_refused_in_one_line(places: Places, folder: Path) -> None:
    for name in "abc":
        save(folder / f"{name}.png", noise(8, 12, 3))
    with pytest.raises(ComponentError) as caught:
        ImagePairs("set", size=8).build(places, "train")
    assert str(caught.value) == (
        f"{folder / 'a.png'}: 12x8 pixels; wanted a picture of two images side by side, twice as wide as high; for two "
        "folders with equal names set condition_path"
    )
    with pytest.raises(ValueError, match="test_condition_path: is not set, and condition_path is; set both"):
        ImagePairs("set", "other", test_path="set")


def test_two_domains_of_a_folder(places: Places, folder: Path) -> None:
    pixels = {name: save(folder / name / "1.png") for name in ("trainA", "trainB", "testA")}
    for split, domain in (("train", "a"), ("train", "b"), ("test", "a")):
        found = Unpaired("set", domain=domain, size=8).build(places, split)  # type: ignore[arg-type]
        assert np.array_equal(found.images[0].permute(1, 2, 0).numpy(), pixels[f"{split}{domain.upper()}"])
    with pytest.raises(ComponentError, match="set has no folder testB; wanted trainA, trainB, testA and testB"):
        Unpaired("set", domain="b").build(places, "test")
