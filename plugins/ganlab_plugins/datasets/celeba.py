"""Aligned CelebA: 202,599 photographs of faces of 178x218 pixels, downloaded on first use.

Source: Z. Liu, P. Luo, X. Wang and X. Tang, Deep learning face attributes in the wild, ICCV 2015, arXiv:1411.7766.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import frozen

from ganlab import (
    ComponentError,
    DatasetConfig,
    Places,
    Progress,
    Register,
    check_split,
    downloading,
    hookimpl,
    no_progress,
    one_line,
)
from ganlab_plugins.datasets.image_folder import original_or_size

if TYPE_CHECKING:
    from ganlab import ImageDataset

IMAGES = "img_align_celeba"
PARTITION = "list_eval_partition.txt"
CODES = {"train": "0", "test": "2"}  # 1 is the validation split


def _up_to_the_width(celeba: object, option: attrs.Attribute[Any], value: int | str) -> None:
    """Validates CelebA's central crop: 1 to 178 pixels, or "none"."""
    if isinstance(value, int):
        attrs.validators.ge(1)(celeba, option, value)
        attrs.validators.le(178)(celeba, option, value)


@frozen
class CelebA:
    """CelebA faces without labels: the official training split (162,770 images) and test split (19,962).

    They are read from `celeba/img_align_celeba/*.jpg` and `celeba/list_eval_partition.txt` in the data folder. If these
    are missing, they are downloaded; this needs the package `gdown`.

    size: height and width in pixels, or [height, width].
    crop: side of the central crop before resizing. 178, the full width, is used by published 64-pixel recipes; others
        use 148, 140 or 108, which leaves less background. "none" is the whole photograph, for a size that is higher
        than wide. Scores are comparable only for equal crops.
    channels: 3 for colour or 1 for grey.
    """

    size: int | tuple[int, int] = attrs.field(default=64, validator=original_or_size)
    crop: int | Literal["none"] = attrs.field(default=178, validator=_up_to_the_width)
    channels: Literal[1, 3] = 3

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        from ganlab import ImageDataset
        from ganlab_plugins.datasets._decoded_cache import decode_files

        check_split("celeba", split)
        folder = places.data / "celeba"
        if not (folder / IMAGES).is_dir() or not (folder / PARTITION).is_file():
            with downloading("celeba", folder, f"{IMAGES}/*.jpg and {PARTITION}", *_refusals()):
                _download(folder)
        names = _names(folder / PARTITION, CODES[split])
        images = decode_files(
            folder / IMAGES,
            names,
            size=self.size,
            channels=self.channels,
            crop=None if self.crop == "none" else self.crop,
            cache=places.cache,
            progress=progress,
        )
        return ImageDataset(images, "celeba", split)


def _names(partition: Path, code: str) -> list[str]:
    """The file names of one split of CelebA, in the order of the partition file."""
    try:
        lines = partition.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise ComponentError(f"{partition}: cannot be read ({one_line(error)})") from error
    names = []
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"(\w+\.jpg)\s+([012])\s*", line)
        if match is None:
            raise ComponentError(f'{partition}: line {number} is {line[:80]!r}; wanted one such as "000001.jpg 0"')
        if match[2] == code:
            names.append(match[1])
    if not names:
        raise ComponentError(f"{partition}: lists no image of this split (code {code})")
    return names


def _download(folder: Path) -> None:
    """Downloads the missing files of CelebA, with torchvision's MD5 sums."""
    from torchvision.datasets import CelebA as Published
    from torchvision.datasets import utils

    for file_id, md5, name in Published.file_list:
        missing = not (folder / IMAGES).is_dir() if name == f"{IMAGES}.zip" else not (folder / PARTITION).is_file()
        if name in (f"{IMAGES}.zip", PARTITION) and missing:
            utils.download_file_from_google_drive(file_id, str(folder), name, md5)
            if name == f"{IMAGES}.zip":
                _extract(folder / name)


def _extract(archive: Path) -> None:
    """Unpacks CelebA's images next to the archive: only with the expected names, and either all of them or none."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{IMAGES}.") as temporary:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = [member for member in opened.infolist() if not member.is_dir()]
                if strange := [member for member in members if not _is_image(member)]:
                    raise ComponentError(
                        f"{archive}: holds {strange[0].filename!r}; wanted only {IMAGES}/*.jpg; remove it"
                    )
                opened.extractall(temporary, members)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ComponentError(f"{archive}: is damaged ({one_line(error)}); remove it") from error
        os.replace(Path(temporary) / IMAGES, archive.parent / IMAGES)


def _is_image(member: zipfile.ZipInfo) -> bool:
    """Whether a member of CelebA's archive is a regular file (the upper 16 bits are its mode) with a valid name."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    return kind in (0, stat.S_IFREG) and re.fullmatch(rf"{IMAGES}/\w+\.jpg", member.filename) is not None


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions of gdown if Google Drive refuses a download, usually because its daily quota is exceeded."""
    try:
        errors = importlib.import_module("gdown.exceptions")
    except ImportError:
        return ()
    return tuple(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception))


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("celeba", CelebA)
