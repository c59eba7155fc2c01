"""Characters in two of matplotlib's fonts, as pairs for image translation: available without a download.

Decisions:
- The characters are the letters and digits that both fonts have, without those that are too wide, or that both fonts
  draw like an earlier one, such as a Greek A. This is measured at one size, so that it does not depend on `size`.
- Characters are held out together with all that are made of the same letter, such as E and its accented forms.
- Both fonts stand on one baseline, centred horizontally, so that pairs are aligned. They are drawn at several times the
  size and averaged, which leaves little of the hinting. The exact grey levels depend on the version of FreeType.
"""

from __future__ import annotations

import math
import random
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt

from ganlab import (
    ComponentError,
    DatasetConfig,
    Places,
    Register,
    check_split,
    hookimpl,
    one_line,
    stream_seed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab import ImageDataset

Font = Literal[
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
]

MEASURED = 64
"""The height in pixels at which characters are measured and compared."""

EM, BASELINE = 0.68, 0.72
"""The size of the fonts and the baseline, from the top, as shares of the height."""

DRAWN = 128
"""Characters are drawn at a multiple of their size, of at least so many pixels, and averaged."""


@frozen
class Glyphs:
    """Glyphs: characters in one font, with the same characters in another font as condition images, white on black.

    For unpaired games, take one for `[dataset]` and one for the second data set, with the fonts exchanged: each has its
    own order, and the true partner of each image is there for metrics.

    With `others` the images are in several fonts, and the class label of each is its font.

    font: of the images, a file of matplotlib.
    condition: the font of the condition images; "none" for no conditions, as with `others`.
    others: more fonts of images, besides `font`, which is class 0.
    size: height and width in pixels.
    held_out: the share of characters in the test split. No accented form of theirs is in the training split.
    seed: of the choice of these characters.
    """

    font: Font = "DejaVuSerif"
    condition: Font | Literal["none"] = "DejaVuSans"
    others: tuple[Font, ...] = ()
    size: int = field(default=32, validator=[ge(8), le(512)])
    held_out: float = field(default=0.1, validator=[gt(0), lt(1)])
    seed: int = stream_seed()

    def __attrs_post_init__(self) -> None:
        if self.others and self.condition != "none":
            raise ValueError('others: their images have labels as conditions, and no images; set condition = "none"')
        if twice := [font for font in self.others if font == self.font or self.others.count(font) > 1]:
            raise ValueError(f"others: {twice[0]} is there twice")

    def build(self, places: Places, split: str) -> ImageDataset:
        import torch

        from ganlab import ImageDataset

        check_split("glyphs", split)
        fonts = [self.font, *self.others, *([] if self.condition == "none" else [self.condition])]
        characters = _characters(tuple(sorted(set(fonts))))
        test = _held_out(characters, self.held_out, self.seed)
        if not 0 < len(test) < len(characters):
            one = math.ceil(1000 / len(characters)) / 1000
            raise ComponentError(
                f"glyphs: held_out: {self.held_out:g} of {len(characters)} characters leaves none to a split; expected "
                f"from {one:g} to {1 - one:g}"
            )
        mine = [character for character in characters if (character in test) == (split == "test")]
        images, *more = (_drawn(font, mine, self.size) for font in fonts)
        if self.others:
            labels = torch.arange(len(fonts)).repeat_interleave(len(mine))
            return ImageDataset(torch.cat([images, *more]), "glyphs:fonts", split, labels)
        return ImageDataset(images, f"glyphs:{self.font}", split, more[0] if more else None)


def _path(font: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"


def _font(font: str, size: int) -> Any:
    """One of matplotlib's fonts for Pillow, for glyphs of images of a height in pixels."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(_path(font), round(EM * size), layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ImportError) as error:  # no such file, or a Pillow that was built without FreeType
        raise ComponentError(f"glyphs: {_path(font)}: cannot be read as a font ({one_line(error)})") from error


@cache  # the splits and a game's second data set have the same
def _characters(fonts: tuple[str, ...]) -> list[str]:
    """The characters of glyphs: letters and digits that all fonts have, that fit and that look like no earlier one."""
    from matplotlib.ft2font import FT2Font

    common = set.intersection(*(set(FT2Font(str(_path(font))).get_charmap()) for font in fonts))
    letters = [
        chr(code) for code in sorted(common) if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Lo", "Nd")
    ]
    faces = [_font(font, MEASURED) for font in fonts]
    characters: dict[tuple[bytes, ...], str] = {}
    for letter in letters:
        boxes = [face.getbbox(letter, anchor="ms") for face in faces]
        above, below = BASELINE * MEASURED, (1 - BASELINE) * MEASURED
        if all(
            left < right and max(-left, right) < MEASURED / 2 and -top < above and bottom < below
            for left, top, right, bottom in boxes
        ):
            characters.setdefault(tuple(_picture(face, letter, MEASURED).tobytes() for face in faces), letter)
    return list(characters.values())


def _held_out(characters: list[str], share: float, seed: int) -> set[str]:
    """The characters of the test split of glyphs: letters at random, with their accented forms, up to this share."""
    families: dict[str, list[str]] = {}
    for character in characters:
        families.setdefault(unicodedata.normalize("NFD", character)[0], []).append(character)
    order = sorted(families)
    random.Random(seed).shuffle(order)
    test: set[str] = set()
    for letter in order:
        if len(test) + len(families[letter]) <= max(1, round(share * len(characters))):
            test.update(families[letter])
    return test


def _picture(face: Any, character: str, size: int) -> Any:
    """A grey Pillow image of a glyph, white on black, `size` pixels high and wide."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).text((size / 2, BASELINE * size), character, fill=255, font=face, anchor="ms")
    return image


def _drawn(font: str, characters: list[str], size: int) -> Tensor:
    """Glyphs as uint8 (N, 1, size, size)."""
    import numpy as np
    import torch

    times = -(-DRAWN // size)
    face = _font(font, times * size)
    pictures = [np.asarray(_picture(face, character, times * size).reduce(times)) for character in characters]
    return torch.from_numpy(np.stack(pictures)).unsqueeze(1)


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("glyphs", Glyphs)
